"""What one request may ask for at most, where the bytes that it has do not bound what it costs."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clipsieve.back.gate import Shares
from clipsieve.errors import InputError, Overloaded
from clipsieve.types import MetaClass

MOST_LETTERS = 10_000
"""Of a text to embed. Models read some hundreds, but a tokenizer goes through all, and all threads wait for it."""

MOST_EXAMPLES = 10_000
"""Of all classes of a question or a set."""


SMALL_ANSWER = 10_000
PICTURE = 100
"""Rows of an answer that are not counted, and how many of them a picture weighs."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clip-retrieval's protocol may be asked for.

    results   most items of an answer, or ids of /metadata
    pictures  most of those that come with a JPEG because they have no URL
    rows      that are held in memory for large answers at once, of all requests; about 1 kB each
    """

    results: int = 1_000_000
    pictures: int = 10_000
    rows: int = 2_000_000


@contextlib.contextmanager
def holding(rows: Shares, client: str, count: int) -> Iterator[None]:
    """Hold so many rows while an answer is put together. Overloaded where others hold too many."""
    if count <= SMALL_ANSWER:
        yield
        return
    count = min(count, rows.most // 2)
    if not rows.take(client, count):
        raise Overloaded("Other large answers are being put together; ask again in a moment, or for fewer items.")
    try:
        yield
    finally:
        rows.give(client, count)


def check_text(text: str, what: str) -> None:
    """InputError for a text that is too long to embed. `what` names it."""
    if len(text) > MOST_LETTERS:
        raise InputError(f"{what} has {len(text):,} letters, and at most {MOST_LETTERS:,} are read; shorten it.")


def check_classes(classes: Sequence[MetaClass]) -> None:
    """InputError for too many examples, or one that is too long."""
    examples = sum(len(one.positive) + len(one.negative) for one in classes)
    if examples > MOST_EXAMPLES:
        raise InputError(
            f"The classes have {examples:,} examples, and at most {MOST_EXAMPLES:,} are taken; leave some out."
        )
    for one in classes:
        for example in (*one.positive, *one.negative):
            check_text(example.text or "", f"An example of {one.name!r}")
