"""What one request may ask for at most, where the bytes that it has do not bound what it costs."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clipsieve.back.gate import Shares
from clipsieve.errors import InputError, Overloaded, quoted
from clipsieve.index.templates import expand
from clipsieve.types import ClassSet, MetaClass

MOST_LETTERS = 10_000
"""Of a text to embed. Models read some hundreds, but a tokenizer goes through all, and all threads wait for it."""

MOST_EXAMPLES = 10_000
"""Of all classes of a question or a set."""
MOST_PROMPTS = 1_000_000
"""Texts that its templates make of them."""


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

    def __post_init__(self) -> None:
        if self.results < 1:
            raise InputError(f"--max-results {self.results}: give 1 or more.")


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


def check_set(classes: ClassSet) -> None:
    """InputError for a set that takes too long to embed, as `check_classes`, templates included."""
    check_classes(classes.classes, expand(classes.templates))


def check_classes(classes: Sequence[MetaClass], templates: Sequence[str] = ()) -> None:
    """InputError for too many examples, or templates that make too many texts of them, or a text that is too long."""
    examples = sum(len(one.positive) + len(one.negative) for one in classes)
    if examples > MOST_EXAMPLES:
        raise InputError(
            f"The classes have {examples:,} examples, and at most {MOST_EXAMPLES:,} are taken; leave some out."
        )
    if examples * len(templates) > MOST_PROMPTS:
        raise InputError(
            f"{examples:,} examples in {len(templates):,} templates are more than {MOST_PROMPTS:,} texts; take fewer."
        )
    for template in templates:
        check_text(template, "A template")
    for one in classes:
        for example in (*one.positive, *one.negative):
            check_text(example.text or "", f"An example of {quoted(one.name)}")
