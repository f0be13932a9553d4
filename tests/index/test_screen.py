"""A first look by coarse rows changes nothing about the answer."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.index import coarse_products, screen
from clipsieve.index.coarse import BEYOND, encode, make_coarse
from clipsieve.index.coarse_products import fastest, ways
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question, Veto, judge
from clipsieve.index.scan import scan_threshold, scan_topk
from clipsieve.index.screen import Screen
from clipsieve.types import ClassVectors, Float32
from tests.index.made import (
    MODEL,
    as_items,
    best_of,
    everything,
    loop,
    make_class,
    make_rows,
    make_vectors,
    questions,
    unit,
)


def screen_of(rows: Rows) -> Screen:
    return Screen(rows, *make_coarse(rows))


VETOES: tuple[Veto, ...] = ("hard", "soft")


@given(questions())
@settings(max_examples=60, deadline=None)
def test_topk_is_the_loop(asked: tuple[Question, Rows]) -> None:
    question, rows = asked
    (ranked,) = screen_of(rows).topk([question])
    assert as_items(ranked) == best_of(question, rows)


@given(questions())
@settings(max_examples=30, deadline=None)
def test_threshold_is_the_loop_in_id_order(asked: tuple[Question, Rows]) -> None:
    question, rows = asked
    found = [item for ranked in screen_of(rows).threshold(question) for item in as_items(ranked)]
    assert found == sorted(loop(question, rows), key=lambda item: item[1])


@st.composite
def hard(draw: st.DrawFn) -> tuple[list[Question], Rows]:
    """Rows that a coarse copy serves badly, and questions near to them."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    dim, n = draw(st.sampled_from([1, 3, 64, 513, 2048])), draw(st.sampled_from([1, 30, 400]))
    vectors = rng.standard_normal((n, dim))
    if draw(st.booleans()):  # a direction that all have, and small differences
        vectors = rng.standard_normal((1, dim)) + draw(st.sampled_from([1e-1, 1e-3, 1e-6])) * vectors
    if draw(st.booleans()):  # large dimensions: in all rows, or in one
        vectors[:, : draw(st.integers(1, 4))] += draw(st.sampled_from([3, 100]))
        vectors[rng.integers(n), rng.integers(dim)] *= 1000
    vectors = np.array(unit(vectors))
    if draw(st.booleans()):
        vectors[rng.random(n) < 0.2] = 0
        vectors[rng.random(n) < 0.1] = np.nan
    if draw(st.booleans()):  # the same ones again, or all but
        vectors[n // 2 :] = vectors[: n - n // 2]
        vectors[::7] = np.nextafter(vectors[::7], np.float32(2))
    half = draw(st.booleans())
    rows = make_rows(vectors, shards=2, half=half)
    finite = np.nan_to_num(vectors, nan=0.1)

    def near(count: int) -> Float32:
        some = finite[rng.integers(0, n, count)]
        return unit(some + draw(st.sampled_from([0, 1e-4, 1])) * rng.standard_normal((count, dim)) + 1e-9)

    asked = [
        Question(
            ClassVectors("c", near(draw(st.integers(1, 3))), near(draw(st.integers(0, 3))), MODEL),
            k=draw(st.sampled_from([1, 5, 1000])),
            threshold=draw(st.sampled_from([None, 0.5, 0.99])),
            view=draw(st.sampled_from(["matched", "rejected", "below"])),
            veto=draw(st.sampled_from(VETOES)),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    return asked, rows


@pytest.mark.slow
@given(hard(), st.sampled_from(ways()))
@settings(max_examples=100, deadline=None)
def test_hard_rows_are_answered_to_the_last_bit(
    asked: tuple[list[Question], Rows], way: coarse_products.Product
) -> None:
    questions, rows = asked
    held = screen_of(rows)
    held._ways = dict.fromkeys(range(10), way)
    for question, ranked in zip(questions, held.topk(questions), strict=True):
        shown = judge(question, question.compile(), *everything(rows))  # in float64; loop has no word for NaN
        assert as_items(ranked) == as_items(shown.top(question))
        found = [item for some in held.threshold(question) for item in as_items(some)]
        assert found == as_items(shown)


@pytest.mark.slow
@given(hard(), st.sampled_from(ways()))
@settings(max_examples=50, deadline=None)
def test_no_level_is_off_by_more_than_its_bound(
    asked: tuple[list[Question], Rows], way: coarse_products.Product
) -> None:
    (question, *_), rows = asked
    held = screen_of(rows)
    held._ways = dict.fromkeys(range(10), way)
    compiled = question.compile()
    for block in held._blocks(compiled, [range(rows.count)]):
        levels = compiled.units.astype(np.float64) @ rows.take(block.ids).astype(np.float64).T
        wanted = levels[compiled.slices[0][0]].max(axis=0)
        finite = np.isfinite(wanted)
        assert (np.abs(block.best[0] - wanted) <= block.slack[0])[finite].all()
        assert (block.slack[0] >= 1e20)[~finite].all()


def test_large_dimensions_do_not_coarsen_the_others() -> None:
    """As CLIP has them: the bound is that of rows without them."""
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((500, 64)).astype(np.float32) / 8
    large = plain.copy()
    large[:, 3] += 5
    large[:, 9] *= 20
    lost = [float(np.median(make_coarse(Rows(64, [(range(500), v)]))[1].bounds[1])) for v in (plain, large)]
    assert lost[1] < 3 * lost[0]


def test_a_row_that_is_no_numbers_is_always_looked_at() -> None:
    vectors = np.ones((4, 8), np.float32)
    vectors[1, 2], vectors[2, 3] = np.nan, np.inf
    codes, bounds = encode(vectors, np.stack([np.zeros(8, np.float32), np.ones(8, np.float32)]))
    assert (bounds[1] == BEYOND).tolist() == [False, True, True, False]
    assert not codes[1:3].any()


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
def test_many_questions_over_many_blocks_in_many_threads(monkeypatch: pytest.MonkeyPatch, half: bool) -> None:
    monkeypatch.setattr(screen, "MOST_ROWS", 1024)
    monkeypatch.setattr(screen, "LEAST_ROWS", 256)
    monkeypatch.setattr(screen, "LEAST_SHARE", 2**12)
    monkeypatch.setattr(screen, "processors", lambda: 3)
    rows = make_rows(make_vectors(20_000, 32), half=half)
    asked = [
        Question(make_class(f"c{i}", 1 + i % 3, i % 3, 32, seed=i), (5, 40, 3000)[i % 3], veto=veto)
        for i in range(9)
        for veto in VETOES
    ]
    held = screen_of(rows)
    wanted, _ = scan_topk(rows, asked)
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(held.topk, [asked] * 8):
            for one, other in zip(together, wanted, strict=True):
                assert one.ids.tolist() == other.ids.tolist()
                np.testing.assert_array_equal(one.best, other.best)
    assert held.topk([]) == []
    question = Question(asked[0].vectors, 1, threshold=0.2)
    found = [item for some in held.threshold(question) for item in as_items(some)]
    assert found == [item for some in scan_threshold(rows, question) for item in as_items(some)]


def test_few_rows_are_settled() -> None:
    """Else the look would save nothing."""
    rows = make_rows(make_vectors(20_000, 128))
    held, settled = screen_of(rows), 0
    take = held._take

    def counted(at: np.ndarray) -> Float32:
        nonlocal settled
        settled += len(at)
        return take(at)

    held._take = counted  # type: ignore[method-assign]
    held.topk([Question(make_class("c", 1, 1, 128), 20)])
    assert 20 <= settled < 1000


def test_a_product_that_computes_something_else_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = make_coarse(make_rows(make_vectors(500)))[1]
    codes, scales = torch.from_numpy(coarse.codes), torch.from_numpy(coarse.bounds[0].copy()).bfloat16()
    examples = np.random.default_rng(0).standard_normal((3, codes.shape[1]))
    monkeypatch.setattr(torch, "_weight_int8pack_mm", lambda a, b, _: torch.zeros(len(a), len(b)))
    assert fastest(examples, codes, scales).name != "int8"

    def refuses(*_: object) -> None:
        raise RuntimeError("expected something else")

    monkeypatch.setattr(torch, "_weight_int8pack_mm", refuses)
    assert fastest(examples, codes, scales).name != "int8"


def test_products_come_in_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shape costs memory for good."""
    shapes, product = set(), torch.mm

    def recorded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        shapes.add((tuple(left.shape), tuple(right.shape)))
        return product(left, right)

    monkeypatch.setattr(torch, "mm", recorded)
    for n in range(1, 900, 37):
        held = screen_of(make_rows(make_vectors(n)))
        held._ways = dict.fromkeys(range(10), ways()[-1])
        for examples in (1, 2, 3, 5, 6, 7, 8):
            held.topk([Question(make_class("c", examples, 0), 3)])
    assert len(shapes) <= 4


@pytest.mark.parametrize("way", ways())
def test_every_way_here_computes_what_is_believed_of_it(way: coarse_products.Product) -> None:
    """Sums of the largest integers too, where processors without VNNI have 16 bits for two products."""
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.integers(-127, 128, (300, 512), np.int8))
    scales = torch.from_numpy(rng.random(300).astype(np.float32)).bfloat16()
    for e in (1, 3, 8):
        assert coarse_products._computes(way, rng.standard_normal((e, 512)), codes, scales)
        assert coarse_products._computes(way, np.where(rng.random((e, 512)) < 0.5, -1.0, 1.0), codes, scales)
