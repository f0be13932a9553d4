"""A first look in bfloat16 changes nothing about the answer."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from clipsieve.index import screen
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question, Veto
from clipsieve.index.scan import scan_topk
from clipsieve.index.screen import Screen
from tests.index.made import MODEL, as_items, best_of, make_class, make_rows, make_vectors, questions, unit

VETOES: tuple[Veto, ...] = ("hard", "soft")


@pytest.mark.slow
@given(questions())
@settings(max_examples=60, deadline=None)
def test_topk_is_the_loop(asked: tuple[Question, Rows]) -> None:
    question, rows = asked
    (ranked,) = Screen(rows).topk([question])
    assert as_items(ranked) == best_of(question, rows)


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
    held = Screen(rows)
    wanted, _ = scan_topk(rows, asked)
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(held.topk, [asked] * 8):
            for one, other in zip(together, wanted, strict=True):
                assert one.ids.tolist() == other.ids.tolist()
                np.testing.assert_array_equal(one.best, other.best)
    assert held.topk([]) == []


def test_the_bound_holds_where_bfloat16_cannot_tell_the_rows_apart() -> None:
    """Rows around one direction whose products differ by less than bfloat16 can say."""
    rng = np.random.default_rng(0)
    axis = unit(rng.standard_normal((1, 64)))
    vectors = unit(axis + 2e-3 * rng.standard_normal((5000, 64)))
    rows = Rows(64, [(range(5000), vectors)])
    question = Question(type(make_class("c", 1, 0))("c", axis, axis[:0], MODEL), 10)
    (ranked,), _ = scan_topk(rows, [question])
    (screened,) = Screen(rows).topk([question])
    assert screened.ids.tolist() == ranked.ids.tolist()


def test_products_come_in_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shape costs memory for good."""
    shapes, product = set(), torch.mm

    def recorded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        shapes.add((tuple(left.shape), tuple(right.shape)))
        return product(left, right)

    monkeypatch.setattr(torch, "mm", recorded)
    monkeypatch.setattr(screen, "LEAST_ROWS", 64)
    monkeypatch.setattr(screen, "MOST_ROWS", 256)
    for n in range(1, 900, 37):
        held = Screen(make_rows(make_vectors(n)))
        for examples in (1, 2, 3, 5, 6, 7, 8):
            held.topk([Question(make_class("c", examples, 0), 3)])
    assert len(shapes) <= 4 * 4
