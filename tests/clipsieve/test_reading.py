"""Texts that a model reads in part, or not at all: what is told, and what is refused."""

import numpy as np
import pytest

from clipsieve.errors import InputError
from clipsieve.inference.fake import MOST_WORDS, FakeEmbedder
from clipsieve.inference.text_reader import TextReader
from clipsieve.reading import SHOWN, Reading, check_long_text, notes_of, read_with, shown
from clipsieve.types import Example, MetaClass, ModelId

LONG = "very " * 18 + "red circle"


def count(texts):
    """A tokenizer of words that keeps letters and digits, with two ends."""
    return [len([w for w in text.split() if w.isalnum()]) + 2 for text in texts]


def reader(context=20, known=("a", "very", "red", "circle")):
    return TextReader(count, context, lambda words: [word not in known for word in words])


class Small(FakeEmbedder):
    """One that reads 20 token ids, and no signs."""

    def __init__(self, name="mini"):
        super().__init__(16, name)
        self._reader = reader()

    def read_texts(self, texts):
        return self._reader.read(texts)

    def split_text(self, text):
        return self._reader.split(text)


def test_what_is_beyond_the_context_is_left_out():
    assert reader().read([f"a {LONG}", LONG[5:]]) == [Reading("very red circle"), Reading("circle")]
    assert reader().read(["a very red circle"]) == [Reading()]
    assert reader(None).read([LONG]) == [Reading()]


def test_a_word_that_is_longer_than_the_context_is_cut_within():
    letters = TextReader(lambda texts: [len(text) for text in texts], 30)
    assert letters.read(["a " + "x" * 60]) == [Reading("x" * 32)]
    assert letters.split("x" * 70) == ["x" * 30, "x" * 30, "x" * 10]


def test_a_long_text_costs_its_beginning():
    asked: list[int] = []

    def counted(texts):
        asked.extend(map(len, texts))
        return count(texts)

    (found,) = TextReader(counted, 20).read(["word " * 100_000])
    assert len(found.left_out.split()) == 100_000 - 18
    assert sum(sorted(asked)[:-1]) < 5_000


def test_parts_are_read_whole_and_hold_every_word():
    parts = reader().split(LONG + " " + LONG)
    assert " ".join(parts).split() == (LONG + " " + LONG).split()
    assert max(count(parts)) <= 20


def test_words_that_the_model_does_not_know():
    (found,) = reader().read(['a "red" zebra, a zebra (circle) 🙂 --'])
    assert found.unknown == ("zebra", "🙂")


def test_notes_say_what_is_left_out_and_what_is_unknown():
    long, zebra = notes_of([f"a {LONG}", "red zebra", "a circle"], ["{}"], Small())
    assert long == f"The text {f'a {LONG}'!r} is longer than the demo model reads: 'very red circle' is left out."
    assert zebra == "The demo model does not know 'zebra', in the text 'red zebra'."
    (named,) = notes_of(["very " * 500], ["{}"], Small("other"))
    assert "longer than the model 'other' reads" in named
    assert len(named) < 3 * SHOWN


def test_templates_count():
    text = "very " * 15 + "red"
    assert notes_of([text], ["{}"], Small()) == ()
    (note,) = notes_of([text], ["a {}", "a very very {}"], Small())
    assert "in 1 of 2 templates" in note


def test_an_embedder_that_does_not_say_has_no_notes():
    class Plain:
        model = ModelId("plain", "", "")

        def embed_texts(self, texts):
            return FakeEmbedder().embed_texts(texts)

    assert notes_of([LONG], ["{}"], Plain()) == ()
    np.testing.assert_array_equal(read_with(Plain())([LONG]), FakeEmbedder().embed_texts([LONG]))


def test_long_texts_are_cut_refused_or_averaged():
    embedder = Small()
    texts = ["a red circle", LONG + " " + LONG]
    np.testing.assert_array_equal(read_with(embedder)(texts), embedder.embed_texts(texts))
    with pytest.raises(InputError, match=r"leaves out .*; shorten it"):
        read_with(embedder, "error")(texts)
    rows = read_with(embedder, "average")(texts)
    mean = embedder.embed_texts(embedder.split_text(texts[1])).mean(axis=0)
    np.testing.assert_array_equal(rows[0], embedder.embed_texts(texts[:1])[0])
    np.testing.assert_allclose(rows[1], mean / np.linalg.norm(mean), atol=1e-6)
    with pytest.raises(InputError, match="choose one of error, cut, average"):
        check_long_text("trim")


def test_a_text_of_which_nothing_is_read_is_refused():
    with pytest.raises(InputError, match=r"reads nothing of the text '-- --'"):
        read_with(Small())(["red", "-- --"])


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u200b", "\xa0\u3000", "\x00\x1b"])
def test_an_empty_text_is_no_example(text):
    with pytest.raises(InputError, match="an empty text; write what to look for"):
        Example(text)
    with pytest.raises(InputError, match="an empty text"):
        MetaClass("bus", ["bus"], [text])


def test_the_fake_reads_as_it_says():
    fake, text = FakeEmbedder(), "word " * MOST_WORDS
    cut, whole = fake.read_texts([text + "more", text.strip()])
    assert (cut, whole) == (Reading("more"), Reading())
    np.testing.assert_array_equal(*fake.embed_texts([text + "more", text + "other"]))


def test_long_texts_are_shown_shortened():
    assert shown("a" * SHOWN) == "a" * SHOWN
    assert len(shown("a" * 5000)) <= SHOWN + 1
