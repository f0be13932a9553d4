"""A class as it was asked for, and its answers from one commit of a collection."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipsieve.errors import InputError, NotFound, quoted
from clipsieve.index import query
from clipsieve.index.calibrate import Scale
from clipsieve.index.examples import Templates, unit_rows
from clipsieve.index.kinds import sources_of
from clipsieve.index.learn import Learned
from clipsieve.index.opened import Opened
from clipsieve.index.review import Asking, Review, review
from clipsieve.index.rule import Question, Ranked, Veto, View, settle
from clipsieve.index.stored import Modality
from clipsieve.types import (
    Calibration,
    Claim,
    ClassSet,
    ClassVectors,
    Distribution,
    Float32,
    Hit,
    MetaClass,
    QueryResult,
)

Own = Literal["own"]

UNMEASURED = (
    "How much of the answer the index finds was not measured for questions of this kind; `clipsieve index` measures it."
)
"""Told with an answer that is partial for that reason."""


@dataclass(frozen=True, slots=True, eq=False)
class RankedAnswer:
    """What `Collection.rank` found: the items in order, and what may be claimed about them, as in `QueryResult`."""

    _asked: "Asked"
    ranked: Ranked
    claim: Claim
    recall: float | None
    timings_ms: Mapping[str, float]

    @property
    def notes(self) -> tuple[str, ...]:
        """As in `QueryResult`."""
        return self._asked.notes

    def hits(self, ranked: Ranked) -> tuple[Hit, ...]:
        """These of the items with their keys and reasons."""
        return self._asked.hits(ranked)

    def result(self) -> QueryResult:
        """All of them so."""
        return QueryResult(self.hits(self.ranked), self.claim, self.recall, self.timings_ms, self.notes)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A class asked of one commit. Its methods answer as those of `Collection` with the same arguments.

    meta      the class as it was given
    question  its examples embedded, with threshold, filter and scale
    notes     what is to be told of its texts
    """

    opened: Opened
    meta: MetaClass
    question: Question
    modality: Modality
    notes: tuple[str, ...] = ()

    def rank(self, dedup: bool, view: View, order: query.Order, budget_ms: float | None, veto: Veto) -> RankedAnswer:
        """The best items, `question.k` of them."""
        opened, asked = self.opened, dataclasses.replace(self.question, view=view, veto=veto)
        put = dataclasses.replace(self, question=asked)
        if dedup:
            asked, notes = self._without_copies(asked), self.notes
            if opened.unseen_copies is not None:
                notes = (*notes, opened.unseen_copies)
            put = dataclasses.replace(self, question=asked, notes=notes)
        rows = opened.rows(self.modality)
        if order != "score":
            ranked = query.in_order(asked, opened.everything(self.modality, asked), order).pick(slice(asked.k))
            return RankedAnswer(put, ranked, "exact", None, {})
        index, recall = opened.index_for(self.modality, asked, sources_of(self.meta.positive))
        answer = query.search(asked, rows, index, recall, budget_ms, opened.scan(self.modality))
        if answer.unmeasured:
            put = dataclasses.replace(put, notes=(*put.notes, UNMEASURED))
        return RankedAnswer(put, answer.ranked, answer.claim, answer.recall, answer.timings_ms)

    def explain(self, id: int) -> tuple[list[float], list[float]]:
        """An item's score with each positive, and with each negative."""
        compiled = self.question.compile()
        levels = settle(compiled, self.opened.rows(self.modality).take(np.array([id], dtype=np.int64)))[:, 0]
        scores = levels if self.question.scale is None else self.question.scale.score(levels)
        of_positive, of_negative = compiled.slices[0]
        return scores[of_positive].tolist(), scores[of_negative].tolist()

    def filter(self, dedup: bool) -> Iterator[Hit]:
        """Every item, by ascending id; `question.k` is not looked at."""
        question = self._without_copies(self.question) if dedup else self.question
        for ranked in self.opened.everything(self.modality, question):
            yield from self.hits(ranked)

    def _without_copies(self, question: Question) -> Question:
        """The question, of each group of copies about the best one that it is about at all."""
        worse = self.opened.groups.worse(question.only, question.without, self.opened.removed)
        gone = worse if question.without is None else np.union1d(worse, question.without)
        return dataclasses.replace(question, without=gone)

    def distribution(self, sample: int | None, edges: Float32 | None, veto: Veto) -> Distribution:
        """How the items fall under the class."""
        rows = self.opened.rows(self.modality)
        drawn = None if sample is None or sample >= rows.count else rows.sample(sample)
        return query.distribution(dataclasses.replace(self.question, veto=veto), rows, drawn, edges)

    def review(
        self, right: Sequence[int], wrong: Sequence[int], limit: int, asking: Asking, learned: Learned | None
    ) -> Review[tuple[Hit, ...]]:
        """What to ask about next."""
        asked, opened, meta = self.question, self.opened, self.meta
        examples = [e.image for e in (*meta.positive, *meta.negative) if isinstance(e.image, int)]
        yes, no, known = (np.array(ids, dtype=np.int64) for ids in (right, wrong, examples))
        direction = None
        if learned is not None:
            unit = unit_rows(learned.direction[None].astype(np.float32))
            direction = ClassVectors("learned", unit, unit[:0], asked.vectors.model)
        scan = opened.scan(self.modality)
        found = review(asked, opened.rows(self.modality), yes, no, known, limit, scan, asking, direction)
        return found.map(self.hits)

    def hits(self, ranked: Ranked) -> tuple[Hit, ...]:
        """Items with their keys and reasons."""
        return query.make_hits(self.question, self.meta, ranked, self.opened.keys(ranked.ids))


def scales_of(
    opened: Opened, classes: ClassSet, vectors: Sequence[ClassVectors], modality: Modality
) -> tuple[Scale, ...] | None:
    """The calibration of each class of a set; None where the set has none."""
    if classes.calibration == "none":
        return None
    background = opened.background(modality)
    return tuple(background.scale(v) for v in vectors)


def choose(
    question: MetaClass | ClassSet, name: str | None, templates: Templates | Own, calibration: Calibration | None
) -> tuple[ClassSet, MetaClass]:
    """The one class asked for, as a set of it alone, which checks that texts and images mix only where they may.

    InputError where it is not said which class of several is meant; NotFound where the set has none of that name.
    """
    if isinstance(question, MetaClass):
        meta = question
        own: tuple[Calibration, Templates] = ("none", None)
    else:
        named = {c.name: c for c in question.classes}
        if name is None and len(named) != 1:
            raise InputError(f"The set holds {len(named)} classes; name one of {quoted(', '.join(named), '')}.")
        if name is not None and name not in named:
            raise NotFound(f"The set has no class {quoted(name)}; it has {quoted(', '.join(named), '')}.")
        meta = named[name] if name is not None else question.classes[0]
        own = (question.calibration, question.templates)
    wrapped = own[1] if templates == "own" else templates
    return ClassSet([meta], calibration or own[0], wrapped), meta
