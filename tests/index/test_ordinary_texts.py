from collections.abc import Sequence

import numpy as np
import pytest

from clipsieve.index.calibrate import Background
from clipsieve.index.ordinary_texts import LEAST, TEXTS, Ordinary
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.types import Float32
from tests.index.made import make_vectors, unit

FAKE = FakeEmbedder(dim=32)


def sample(members: int = 30) -> Background:
    """A bulk of a thousand, and some items near "bus"."""
    vectors = make_vectors(1000, 32)
    vectors[:members] = unit(0.3 * vectors[:members] + FAKE.embed_texts(["bus"]))
    return Background(vectors)


@pytest.mark.parametrize("members", [1, 30, 400])
def test_a_text_that_finds_something_is_not_named(members: int) -> None:
    assert Ordinary().notes(sample(members), "fake", ["bus"], FAKE.embed_texts) == ()


def test_a_text_that_finds_no_more_than_others_is_named() -> None:
    # Of texts that mean nothing to the collection about half find less than the median of TEXTS.
    strays = [f"stray {i}" for i in range(200)]
    notes = Ordinary().notes(sample(), "fake", [*strays, "bus"], FAKE.embed_texts)
    assert 40 < len(notes) < 150
    assert all("no more unusual in this collection" in note and "'stray" in note for note in notes)


def test_a_model_that_answers_all_words_alike_is_named() -> None:
    calls: list[Sequence[str]] = []

    def embed(texts: Sequence[str]) -> Float32:
        calls.append(texts)
        near = FAKE.embed_texts(["unknown"]) + 0.01 * FAKE.embed_texts(list(texts))
        return unit(near)

    ordinary, background = Ordinary(), sample()
    (note,) = ordinary.notes(background, "fake", ["a skirt"], embed)
    assert "much the same as to any other words" in note
    ordinary.notes(background, "fake", ["a skirt"], embed)
    assert calls == [TEXTS, ["a skirt"], ["a skirt"]]  # what others find is measured once


def test_little_is_no_background() -> None:
    few = Background(make_vectors(LEAST - 1, 32))
    assert Ordinary().notes(few, "fake", ["a skirt"], lambda texts: np.ones((len(texts), 32), np.float32)) == ()
