"""What is asked next is what a slow, literal reading of the rule would ask."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings

from clipsieve.errors import InputError
from clipsieve.index import review as module
from clipsieve.index.collection import open_collection
from clipsieve.index.query import search
from clipsieve.index.review import candidates, review, spread
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question, Ranked
from clipsieve.types import ClassSet, Example, Int64, MetaClass
from tests.back.made import FAKE, add_items
from tests.index.made import everything, make_class, make_rows, make_vectors, questions

NONE = np.zeros(0, np.int64)


def levels(question: Question, rows: Rows) -> dict[int, tuple[float, float]]:
    """P and N of every live item, one by one."""
    c, scale, found = question.vectors, question.scale, {}
    for i, v in zip(*everything(rows), strict=True):
        each = np.concatenate([c.positive, c.negative]).astype(np.float64) @ v.astype(np.float64)
        if scale is not None:
            each = (each - scale.center) / scale.spread
        each = each.astype(np.float32)
        p = len(c.positive)
        found[int(i)] = float(each[:p].max()), float(max(each[p:], default=-math.inf))
    return found


def literal(
    question: Question, rows: Rows, right: set[int], wrong: set[int], examples: set[int], least: int, share: int
) -> tuple[list[int], list[int], list[int]]:
    """Candidates of which nothing was said in order of asking, then what is missed and mistaken, in order."""
    known = levels(question, rows)
    threshold = float(np.float32(question.least))

    def inside(i: int) -> float:
        best, worst = known[i]
        walls = [best - wall for wall in (worst, question.least) if wall != -math.inf]
        return min(walls) if walls else best

    def is_accepted(i: int) -> bool:
        best, worst = known[i]
        return best > worst and best >= threshold

    allowed = [i for i in known if question.only is None or i in question.only]
    best_first = sorted(
        (i for i in allowed if question.without is None or i not in question.without), key=lambda i: (-max(known[i]), i)
    )
    pool = best_first[: max(least, math.ceil(len(allowed) / share))]
    unsaid = [i for i in pool if i not in right | wrong | examples]
    doubtful = sorted(unsaid, key=lambda i: (abs(inside(i)), -max(known[i]), i))
    no_more = examples | set([] if question.without is None else question.without.tolist())
    vectors = dict(zip(everything(rows)[0].tolist(), everything(rows)[1].astype(np.float64), strict=True))

    def alike(i: int, said: set[int]) -> float:
        others = [vectors[i] @ vectors[j] for j in said & known.keys() if j != i]
        return sum(others) / len(others) if others else math.nan

    missed = [i for i in (right - no_more) & known.keys() if not is_accepted(i)]
    typical = {i: round(0 if math.isnan(like := alike(i, right)) else like, 9) for i in missed}
    if min(len(right & known.keys()) - 1, len(wrong & known.keys())) >= 3:
        missed = [i for i in missed if alike(i, right) >= alike(i, wrong)]
    mistaken = [i for i in (wrong - no_more) & known.keys() if is_accepted(i)]
    return (
        doubtful,
        sorted(missed, key=lambda i: (-typical[i], i)),
        sorted(mistaken, key=lambda i: (-inside(i), i)),
    )


@pytest.mark.slow
@given(questions())
@settings(max_examples=100, deadline=None)
def test_it_is_the_literal_reading(asked: tuple[Question, Rows]) -> None:
    question, rows = asked
    ids, _ = everything(rows)
    drawn = np.random.default_rng(len(ids)).permutation(ids)
    third = len(ids) // 6
    right, wrong, examples = drawn[:third], drawn[third : 2 * third], drawn[third - 3 : third + 3]
    right = np.append(right, 10**8 + 1)  # one that was removed since
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST", 7)
        patch.setattr(module, "SHARE", 4)
        patch.setattr(module, "CHUNK", 16)
        found = review(question, rows, right, wrong, examples, 20)
    doubtful, missed, mistaken = literal(
        question, rows, set(right.tolist()), set(wrong.tolist()), set(examples.tolist()), 7, 4
    )
    assert found.left == len(doubtful)
    assert found.doubtful.ids.tolist() == doubtful[:20]
    assert found.missed.ids.tolist() == missed[:20]
    assert found.mistaken.ids.tolist() == mistaken[:20]


def test_the_best_hundredth_is_worth_asking_about(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(make_vectors(3000), removed=0)
    question = Question(make_class("c", 2, 2), 1)
    assert len(candidates(question, rows)) == 200
    monkeypatch.setattr(module, "LEAST", 5)
    assert len(candidates(question, rows)) == 30
    assert len(candidates(dataclasses.replace(question, only=everything(rows)[0][:1000]), rows)) == 10


def test_all_rows_are_read_once() -> None:
    rows = make_rows(make_vectors(3000))
    asked: list[Question] = []

    def scan(question: Question) -> Ranked:
        asked.append(question)
        return search(question, rows).ranked

    marked: Int64 = everything(rows)[0][:50]
    review(Question(make_class("c", 2, 2), 1), rows, marked, marked[:0], NONE, 10, scan)
    assert len(asked) == 1


def test_a_collection_says_it_with_keys_and_reasons(tmp_path) -> None:
    folder = add_items(tmp_path / "c", 60)
    bus = MetaClass("bus", ["bus"], ["truck"], threshold=0.5)
    with open_collection(folder, embedder=FAKE) as photos:
        matched = [hit.id for hit in photos.search(bus, 60).hits]
        rejected = [hit.id for hit in photos.search(bus, 60, view="rejected").hits]
        below = [hit.id for hit in photos.search(bus, 60, view="below").hits]
        right, wrong = [matched[0], below[0]], [matched[1], below[1]]
        found = photos.review(bus, right, wrong, 60)
        assert [hit.id for hit in found.missed] == [below[0]]
        assert [hit.id for hit in found.mistaken] == [matched[1]]
        assert {hit.id for hit in found.doubtful} == {*matched, *rejected, *below} - {*right, *wrong}
        assert found.left == 56
        distance = [abs(min(hit.margin, hit.score - 0.5)) for hit in found.doubtful]
        assert distance == pytest.approx(sorted(distance), abs=1e-6)
        assert found.doubtful[0].key == f"{found.doubtful[0].id}.jpg"

        taught = MetaClass("bus", ["bus", Example(image=below[0])], ["truck", Example(image=matched[1])])
        again = photos.review(ClassSet([taught], "background"), right, wrong, 60)
        offered = {hit.id for hits in (again.missed, again.mistaken, again.doubtful) for hit in hits}
        assert not {below[0], matched[1]} & offered
        with pytest.raises(InputError, match="nothing"):
            photos.review(bus, where="nothing = 1")


@pytest.mark.parametrize(("count", "limit"), [(1, 5), (5, 5), (30, 7), (3000, 5), (3000, 40)])
def test_spread_asks_about_every_stretch_of_the_ranking_once(count: int, limit: int) -> None:
    best = np.arange(max(1, count // 10)) if count > 30 else np.arange(count)
    rest = 10_000 + np.arange(min(limit, count - len(best)))
    chosen = spread(best, rest, count, limit)
    assert len(chosen) == min(limit, count)
    assert len(np.unique(chosen)) == len(chosen)
    from_best = chosen[chosen < 10_000]
    assert (np.diff(from_best) > 0).all()
    if count == 3000 and limit == 5:  # 3000 ** (1 / 5) is 4.96: ranks 1-5, 6-25, 26-123, and two stretches beyond 300
        assert from_best.tolist() == [2, 14, 73]


def test_spread_asks_about_nothing_known_and_keeps_to_the_filter() -> None:
    rows = make_rows(make_vectors(3000), removed=0)
    ids = everything(rows)[0]
    question = Question(make_class("c", 2, 2), 1, only=ids[:1000])
    said = ids[:300]
    found = review(question, rows, said, NONE, NONE, 20, asking="spread").doubtful.ids
    assert len(found) == 20
    assert set(found.tolist()) <= set(ids[300:1000].tolist())
