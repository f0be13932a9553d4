"""The items nearest a vector that somebody made, near-duplicates told apart on the way where that is asked for."""

import dataclasses
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

from clipsieve.errors import InputError
from clipsieve.index import query
from clipsieve.index.duplicates import first_of_near
from clipsieve.index.kinds import Source
from clipsieve.index.opened import DUPLICATE_COSINE, Opened
from clipsieve.index.rule import Question
from clipsieve.index.stored import Modality
from clipsieve.types import ClassVectors, Float32, Int64, ModelId

_P = ParamSpec("_P")
_T = TypeVar("_T")

NEAR_DUPLICATES = 10_000
"""Items of an answer that are compared with each other where no groups are known: a second's work."""


def nearest(
    opened: Opened,
    vector: Float32,
    k: int,
    model: ModelId | None,
    *,
    modality: Modality,
    dedup: bool,
    without: Int64 | None,
    source: Source | None,
    timings: dict[str, float] | None,
) -> tuple[Int64, Float32]:
    """As `Collection.nearest` says, of one commit.

    model  what made the vectors; None where that is not known
    """
    given = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(given)) if given.ndim == 1 else 0.0
    if given.shape != (opened.manifest.dim,) or not 0 < length < np.inf:
        raise InputError(
            f"The vector has shape {given.shape} and length {length:g}; it is one of "
            f"{opened.manifest.dim} finite numbers that are not all 0."
        )
    unit = (given / length).astype(np.float32)[None]
    asked_by = ClassVectors("nearest", unit, unit[:0], model or ModelId("not known", "", ""))
    question = Question(asked_by, k, without=without)
    spent: list[float] = []
    grouped = dedup and opened.has_groups
    if grouped:
        worse = _timed(opened.groups.worse, spent)(None, without, opened.removed)
        question = dataclasses.replace(question, without=worse if without is None else np.union1d(worse, without))
    wanted = k
    while True:
        asked = dataclasses.replace(question, k=wanted)
        rows = opened.rows(modality)
        index, recall = opened.index_for(modality, asked, None if source is None else {source})
        found = query.search(asked, rows, index, recall, scan=opened.scan(modality)).ranked
        if not dedup or grouped:
            break
        near = min(len(found.ids), NEAR_DUPLICATES)
        first = _timed(first_of_near, spent)(rows.take(found.ids[:near]), DUPLICATE_COSINE)
        kept = np.concatenate([first, np.arange(near, len(found.ids))])
        if len(kept) >= k or len(found.ids) < wanted:
            found = found.pick(kept[:k])
            break
        wanted = k + 2 * (wanted - len(kept))
    if dedup and timings is not None:
        timings["dedup"] = timings.get("dedup", 0.0) + sum(spent)
    return found.ids, (found.best.astype(np.float64) * length).astype(np.float32)


def _timed(function: Callable[_P, _T], seconds: list[float]) -> Callable[_P, _T]:
    """The same function; what each call took is added to the list."""

    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        start = time.perf_counter()
        found = function(*args, **kwargs)
        seconds.append(time.perf_counter() - start)
        return found

    return call
