"""What `search` and `filter` ask of the boxes that a detector found."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsieve.command import say
from clipsieve.errors import InputError
from clipsieve.parts import Parts

if TYPE_CHECKING:
    from clipsieve.index.collection import Collection
    from clipsieve.types import Int64


def load_detector(parts: Parts, collection: "Collection", device: str) -> Any:
    """The detector that found the collection's regions, announced; a note on images that it did not see.

    NotFound where none looked.
    """
    regions = collection.regions
    if regions.lacking:
        say(
            f"Note: {regions.lacking:,} images have not been looked through and cannot be found; "
            f"`clipsieve regions {Path(collection.folder)}` does it."
        )
    say(f"Loading the detector {regions.model.name}.")
    return parts.load_detector(regions.model.name, device=device, regions=None)


def counted(
    collection: "Collection", detector: Any, at_least: Sequence[str] | None, threshold: float, where: str | None
) -> "Int64 | None":
    """The ids of images that show what each --at-least says; None where there is none."""
    from clipsieve.types import MetaClass

    within = None
    for said in at_least or ():
        count, text = read_at_least(said)
        within = collection.with_at_least(
            count, MetaClass(text, [text]), detector, threshold=threshold, where=where, within=within
        )
    return within


def read_at_least(said: str) -> tuple[int, str]:
    """How many of what: "3 red circle" is 3 of the text "red circle"."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s+(\S.*?)\s*", said, re.DOTALL)
    if match is None or int(match[1]) < 1:
        raise InputError(f'--at-least is {said!r}; say how many of what, such as "3 red circle".')
    return int(match[1]), match[2]
