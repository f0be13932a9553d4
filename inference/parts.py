"""What sources made of several files have in common."""

from collections.abc import Callable, Container, Generator, Sequence
from typing import TypeVar

from clipsieve.errors import InputError
from clipsieve.inference.paths import Place, readable
from clipsieve.path_text import to_text
from clipsieve.types import FileState, ImageItem, Skipped

T = TypeVar("T")
Part = tuple[str, Place]
"""A file and how it is called."""
Items = Generator[ImageItem | Skipped, None, int]


def read_parts(
    parts: Sequence[Part], read: Callable[[str, Place, int], Generator[T | Skipped, None, int]], start: int
) -> Generator[T | Skipped, None, int]:
    """The items of each (name, file) in turn, from number `start` on; returns how many there are in all.

    read(name, place, start) yields a file's items from its own number `start` on and returns how many it has in all.
    A file that cannot be opened counts as one item, a Skipped.
    """
    passed = 0
    for name, place in parts:
        before = max(0, start - passed)
        try:
            passed += yield from read(to_text(name), place, before)
        except Exception as error:  # what fsspec, tarfile and Arrow raise on opening is open-ended
            what = " ".join(readable(str(error)).split()) or type(error).__name__  # tarfile writes several lines
            if before == 0:
                reason = f"The file cannot be read ({what}); restore it or check its permissions."
                yield Skipped(to_text(name), str(error) if isinstance(error, InputError) else reason)
            passed += 1
    return passed


def states(parts: Sequence[Part]) -> dict[str, FileState]:
    """See `reader.Source.states`."""
    found = ((to_text(place.url), place.state()) for _, place in parts)
    return {path: state for path, state in found if state is not None}


def narrowed(parts: Sequence[Part], paths: Container[str]) -> list[Part]:
    """The parts that lie at these paths."""
    return [(name, place) for name, place in parts if to_text(place.url) in paths]
