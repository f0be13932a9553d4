"""What `search` and `filter` say of the boxes that a detector found."""

from pathlib import Path
from typing import TYPE_CHECKING

from clipsieve.command import say

if TYPE_CHECKING:
    from clipsieve.index.collection import Collection


def note_lacking(collection: "Collection") -> None:
    """A note on images that nobody looked for regions in. NotFound where there are no regions at all."""
    if lacking := collection.regions.lacking:
        say(
            f"Note: {lacking:,} images have not been looked through and cannot be found; "
            f"`clipsieve regions {Path(collection.folder)}` does it."
        )
