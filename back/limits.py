"""What one request may ask for at most, where the bytes that it has do not bound what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from clipsieve.errors import InputError
from clipsieve.types import MetaClass

MOST_LETTERS = 10_000
"""Of a text to embed. Models read some hundreds, but a tokenizer goes through all, and all threads wait for it."""

MOST_EXAMPLES = 10_000
"""Of all classes of a question or a set."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Most that one request of clip-retrieval's protocol may ask for.

    results   items of an answer, or ids of /metadata
    pictures  of those, items that come with a JPEG because they have no URL
    """

    results: int = 1_000_000
    pictures: int = 10_000


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
