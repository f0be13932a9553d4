"""What a model reads of texts, found by its tokenizer alone."""

import re
import threading
import unicodedata
from collections.abc import Callable, Sequence

from clipsieve.kept import Kept
from clipsieve.reading import Reading

KEPT, KEPT_LETTERS = 4096, 4096
"""Texts whose readings are kept, and how long such a text is at most: some tens of MB."""

MUCH = 20
"""Letters of a word that are read before it counts as cut within, and not as left out."""

Count = Callable[[Sequence[str]], list[int]]
"""n texts -> how many token ids each has before it is cut, its ends included."""

Unknown = Callable[[Sequence[str]], list[bool]]
"""n words -> whether the tokenizer has no token of its own for each, so that it reads it as it reads any other such."""

_WORD = re.compile(r"\S+")


def locked(unknown: Unknown | None, lock: threading.Lock) -> Unknown | None:
    """The same for many threads, one at a time."""
    if unknown is None:
        return None

    def ask(words: Sequence[str]) -> list[bool]:
        with lock:
            return unknown(words)

    return ask


class TextReader:
    """Says what a model reads of texts. Safe in many threads where `count` and `unknown` are.

    context  token ids that the model reads of a text, its ends included; None where that is not known
    """

    def __init__(self, count: Count, context: int | None, unknown: Unknown | None = None) -> None:
        self._count, self._context, self._unknown = count, context, unknown
        self._ends = count([""])[0]
        self._kept: Kept[Reading] = Kept(KEPT, lambda _: 1)

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """What is read of each text. They are counted once and then remembered."""
        known = {text: reading for text in texts if (reading := self._kept.find(text)) is not None}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        for text, count in zip(new, self._count(new) if new else (), strict=True):
            known[text] = reading = self._read(text, count)
            if len(text) <= KEPT_LETTERS:
                self._kept.put(text, reading)
        return [known[text] for text in texts]

    def split(self, text: str) -> list[str]:
        """The text in parts that are read whole, cut between words where a word is not longer than the context."""
        parts = []
        while text:
            end = self._fitting(text)
            parts.append(text[:end])
            text = text[end:].lstrip()
        return parts

    def _read(self, text: str, count: int) -> Reading:
        long = self._context is not None and count > self._context
        left_out = text[self._fitting(text) :].lstrip() if long else ""
        return Reading(left_out, self._unknown_words(text), count <= self._ends)

    def _fitting(self, text: str) -> int:
        """How many of its first letters are read, up to the end of a word; at least one.

        Doubled until they are too many and then halved, so that a long text does not cost more than its beginning.
        """
        assert self._context is not None
        fits, over = 0, min(4 * self._context, len(text))
        while self._count([text[:over]])[0] <= self._context:
            fits = over
            if over == len(text):
                return over
            over = min(2 * over, len(text))
        while over - fits > 1:
            middle = (fits + over) // 2
            if self._count([text[:middle]])[0] <= self._context:
                fits = middle
            else:
                over = middle
        words = [match.end() for match in _WORD.finditer(text, 0, fits + 1) if match.end() <= fits]
        return max(words[-1] if words and fits - words[-1] < MUCH else fits, 1)

    def _unknown_words(self, text: str) -> tuple[str, ...]:
        if self._unknown is None:
            return ()
        words = list(dict.fromkeys(word for word in (_bare(w) for w in _WORD.findall(text)) if word))
        return tuple(word for word, unknown in zip(words, self._unknown(words), strict=True) if unknown)


def _bare(word: str) -> str:
    """A word without the punctuation around it; "" where it is nothing else."""
    start, end = 0, len(word)
    while start < end and unicodedata.category(word[start])[0] in "PC":
        start += 1
    while start < end and unicodedata.category(word[end - 1])[0] in "PC":
        end -= 1
    return word[start:end]
