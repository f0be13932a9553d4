"""Whether a text says anything to a collection: compared with texts that have nothing to do with any.

A model gives every text a vector, and every vector has nearest items. What the best of them is worth shows beside texts
that describe no picture: where their best hits are as unusual, or their answers are the same, the text found nothing.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from clipsieve.index.calibrate import Background, Float64
from clipsieve.reading import shown
from clipsieve.types import ClassVectors, Float32, Int64, ModelId

TEXTS = (
    "jurisprudence",
    "of which there is more",
    "quarterly earnings",
    "in the meantime",
    "seventeen",
    "a theory of justice",
    "therefore",
    "abracadabra",
    "lorem ipsum dolor",
    "wednesday",
    "an opinion",
    "mortgage rates",
    "grammar",
    "whatever",
    "hypothesis testing",
    "epistemology",
)
"""They describe no picture."""

LEAST = 100
"""Items of a sample under which nothing is said."""

TOP = 40
"""Items of an answer that are compared, or a 20th of a smaller sample."""

ALIKE = 0.5
"""Share of an answer that is common to the answer of half of TEXTS, from which it is called the same."""

_MODEL = ModelId("texts", "", "")


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What texts find in a sample.

    best    float64 (t,), the greatest level of each
    excess  float64 (t,), by how much its greatest cosine is above its median one: a class that is a large part of the
            collection widens its own spread, and its level is low although nothing else comes near
    top     int64 (t, k), the first items of its answer, ascending
    """

    best: Float64
    excess: Float64
    top: Int64


class Ordinary:
    """What TEXTS find, remembered for each way of embedding them. Safe in many threads."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[Background, Answers]] = {}
        self._lock = threading.Lock()

    def notes(
        self,
        background: Background,
        key: Hashable,
        texts: Sequence[str],
        embed: Callable[[Sequence[str]], Float32],
    ) -> tuple[str, ...]:
        """A sentence for each text that finds no more than TEXTS do.

        key    what the vectors depend on beside the text: model, templates, modality
        embed  n texts -> float32 (n, d), unit rows
        """
        if len(background.vectors) < LEAST or not texts:
            return ()
        with self._lock:
            measured, ordinary = self._known.get(key, (None, None))
        if ordinary is None or measured is not background:
            ordinary = answers(background, embed(TEXTS))
            with self._lock:
                self._known[key] = background, ordinary
        found = answers(background, embed(texts))
        notes = (_note(text, found, i, ordinary) for i, text in enumerate(texts))
        return tuple(note for note in notes if note is not None)


def answers(background: Background, vectors: Float32) -> Answers:
    """What texts, float32 (t, d), find in the sample."""
    asked = ClassVectors("texts", vectors, vectors[:0], _MODEL)
    scale = background.scale(asked)
    cosines = vectors @ background.vectors.T  # (t, b)
    count = min(TOP, cosines.shape[1] // 20)
    top = np.sort(np.argpartition(-cosines, count, axis=1)[:, :count], axis=1).astype(np.int64)
    excess = cosines.max(axis=1) - scale.center
    return Answers(excess / scale.spread, excess, top)


def _note(text: str, found: Answers, i: int, ordinary: Answers) -> str | None:
    alike = [len(np.intersect1d(found.top[i], top)) / found.top.shape[1] for top in ordinary.top]
    if np.median(alike) >= ALIKE:
        return (
            f"The answer to {shown(text)!r} is much the same as to any other words: the model does not tell this text "
            "from others."
        )
    if found.best[i] <= np.median(ordinary.best) and found.excess[i] <= np.median(ordinary.excess):
        return (
            f"The best hit for {shown(text)!r} is no more unusual in this collection than that of texts that have "
            "nothing to do with it: it may hold nothing like that."
        )
    return None
