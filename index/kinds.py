"""Kinds of questions to an approximate index, and what is known of its recall for each.

How much an index finds depends on the question. A text is far from all images, in lists that hold little of its
answer; a filter may leave only rows that no list near the question holds. One figure, measured with the images
themselves, is wrong for all of these. So an index has a figure and an effort for each kind, and an answer states that
of its own.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from clipsieve.index.faiss_index import FaissIndex
from clipsieve.index.flat import CombinedIndex
from clipsieve.index.rows import Rows, ascending, contains
from clipsieve.index.rule import Question
from clipsieve.manifest import Index
from clipsieve.protocols import VectorIndex
from clipsieve.types import Example, Float32, Int64

Source = Literal["image", "text"]
"""What the positive examples of a question are."""

Shape = Literal["one", "several", "negative", "filtered", "far"]
"""One positive, several, negatives beside them, a filter that leaves a part of the rows, and one that leaves few of
those nearest the question, so that the answer is scattered over the index."""

OLD_K = 2**31
"""Answers that the figure of an index without kinds is taken to hold for: any number."""

FILTERED_SHARE = 0.98
"""A question that may find a smaller share of the rows than this counts as filtered."""


SAMPLED = 4_000
"""Rows that a filter is looked at with: some milliseconds."""

NEAR_SHARE, FAR_LIFT = 0.05, 0.5
"""A filter is far from a question that leaves less than FAR_LIFT times as many of the NEAR_SHARE nearest as of all."""


@dataclass(frozen=True, slots=True)
class KindRecall:
    """What was measured of one kind of question.

    k       it holds for answers of up to so many items
    effort  of the index, for such questions; None where the index has no setting
    recall  0..1, of questions that the effort was not chosen with; None where the index is not used for them, because
            what was asked for is not reached at a lower cost than reading all rows
    """

    source: Source
    shape: Shape
    k: int
    effort: int | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class Use:
    """How an index is used for a question.

    index   whether it is used at all; else all rows are read
    effort  None for the index's own
    recall  of its answers; None where it was not measured for such questions
    """

    index: bool
    effort: int | None = None
    recall: float | None = None


def sources_of(examples: Sequence[Example]) -> set[Source]:
    """What the examples are. A part of an image is an image."""
    return {"image" if e.text is None else "text" for e in examples}


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Random rows, by which a filter is compared with the question before anything is searched.

    ids      int64 (s,), ascending
    vectors  float32 (s, d)
    """

    ids: Int64
    vectors: Float32


def sample_of(rows: Rows) -> Sample:
    """SAMPLED random rows, the same ones each time."""
    ids = rows.sample(SAMPLED)
    return Sample(ids, rows.take(ids))


def shapes_of(question: Question, sample: Callable[[], Sample]) -> set[Shape]:
    """The shapes of a question.

    sample  of the rows that it is asked of; called only for questions that have a filter
    """
    vectors = question.vectors
    shapes: set[Shape] = {"one" if len(vectors.positive) == 1 else "several"}
    if len(vectors.negative):
        shapes.add("negative")
    if question.only is not None or question.without is not None:
        shapes |= _filtered(question, sample())
    return shapes


def _filtered(question: Question, sample: Sample) -> set[Shape]:
    """Nothing where all but a few rows may be found; else whether those nearest the question are among them."""
    allowed = np.ones(len(sample.ids), np.bool_)
    if question.only is not None:
        allowed &= contains(ascending(question.only), sample.ids)
    if question.without is not None:
        allowed &= ~contains(ascending(question.without), sample.ids)
    share = float(allowed.mean()) if len(allowed) else 1.0
    if share >= FILTERED_SHARE:
        return set()
    levels = sample.vectors @ question.vectors.positive.T  # (s, p)
    if question.scale is not None:
        p = levels.shape[1]
        levels = (levels - question.scale.center[:p]) / question.scale.spread[:p]
    near = np.argsort(-levels.max(axis=1), kind="stable")[: max(1, int(NEAR_SHARE * len(levels)))]
    return {"filtered" if float(allowed[near].mean()) >= FAR_LIFT * share else "far"}


def use_for(kinds: Sequence[KindRecall], sources: Collection[Source], shapes: Collection[Shape], k: int) -> Use:
    """How the index is used for a question of these sources and shapes: as the worst of its kinds demands.

    A kind that was measured for fewer than k items only does not use it. One that was not measured at all does, and
    its answers have no figure.
    """
    efforts, recalls, known = [], [], True
    for source in sources:
        for shape in shapes:
            found = sorted((kind for kind in kinds if (kind.source, kind.shape) == (source, shape)), key=lambda x: x.k)
            fits = next((kind for kind in found if kind.k >= k), None)
            if not found:
                known = False
            elif fits is None or fits.recall is None:
                return Use(index=False)
            else:
                efforts.append(fits.effort or 1)
                recalls.append(fits.recall)
    if not known:  # the greatest effort that is used for anything; what that finds is not known
        return Use(True, max((kind.effort or 1 for kind in kinds if kind.recall is not None), default=None), None)
    return Use(True, max(efforts), min(recalls))


def measured_sources(kinds: Sequence[KindRecall]) -> set[Source]:
    """The sources of which there is a figure, "image" where there is none at all."""
    return {kind.source for kind in kinds} or {"image"}


def at_effort(index: VectorIndex, effort: int | None) -> VectorIndex:
    """The same index, or combination of some, with another effort."""
    if effort is None:
        return index
    if isinstance(index, CombinedIndex):
        return CombinedIndex(*(at_effort(part, effort) for part in index.parts))
    return dataclasses.replace(index, effort=effort) if isinstance(index, FaissIndex) else index


def to_json(kinds: Sequence[KindRecall]) -> list[dict[str, Any]]:
    """As the parameters of an index hold them, and as `info` says them."""
    return [dataclasses.asdict(kind) for kind in kinds]


def kinds_of(entry: Index) -> tuple[KindRecall, ...]:
    """What the manifest knows of an index's kinds. An older one has a single figure: it was measured with images."""
    stored = entry.parameters.get("kinds")
    if stored is None:
        if entry.recall is None:
            return ()
        return (KindRecall("image", "one", OLD_K, entry.parameters.get("effort"), entry.recall),)
    return kinds_of_json(stored)


def kinds_of_json(stored: Sequence[Mapping[str, Any]]) -> tuple[KindRecall, ...]:
    """What `to_json` made. What a later version measures and this one does not know is passed over."""
    return tuple(_kind(one) for one in stored if _is_kind(one))


def _is_kind(one: Mapping[str, Any]) -> bool:
    """False for what a later version measures and this one does not know."""
    return one.get("source") in get_args(Source) and one.get("shape") in get_args(Shape)


def _kind(one: Mapping[str, Any]) -> KindRecall:
    effort, recall = one.get("effort"), one.get("recall")
    return KindRecall(
        cast(Source, one["source"]),
        cast(Shape, one["shape"]),
        int(one["k"]),
        None if effort is None else int(effort),
        None if recall is None else float(recall),
    )
