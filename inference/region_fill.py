"""Regions of images that were embedded before anybody looked for them."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from clipsieve.errors import ClipsieveError
from clipsieve.inference.decode import MAX_PIXELS
from clipsieve.inference.finding import BATCH, Finder, Looked, settle
from clipsieve.manifest import Manifest, Shard
from clipsieve.ordered import ordered_map, processors
from clipsieve.shards import read_ids, read_removed
from clipsieve.stored_regions import StoredRegions, join
from clipsieve.types import Int64
from clipsieve.writer import Writer, open_writer


@dataclass(slots=True)
class Filled:
    """What one run did.

    images   looked at
    regions  found in them
    unseen   id of each item that could not be looked at -> a sentence on why
    """

    images: int = 0
    regions: int = 0
    unseen: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0


def fill_regions(
    folder: str | os.PathLike[str],
    finder: Finder,
    read: Callable[[int], bytes],
    *,
    anew: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> Filled:
    """Look through the images of shards that have no regions; one commit for each shard, whose regions are in memory.

    read      the encoded image of an item, from several threads at once; its error says why there is none
    anew      let go of all regions that there are first
    progress  called with (images looked at, how many there are)

    Removed items are passed over. The errors are those of `open_writer` and of `finding.settle`.
    """
    began, done = time.monotonic(), Filled()
    with open_writer(folder) as writer:
        if anew:
            writer.drop_regions()
        settle(writer, finder)
        removed = read_removed(folder, writer.manifest)
        parts = lacking(writer.manifest)
        total = sum(shard.rows for shard in parts)
        passed = 0
        for shard in parts:
            found = []
            for batch in _batches(writer, shard, finder, read, max_pixels, removed, done):
                found.append(batch)
                done.regions += len(batch.item)
                passed += batch.items
                if progress is not None:
                    progress(passed, total)
            writer.add_regions(shard.number, join(found))
    done.seconds = time.monotonic() - began
    return done


def lacking(manifest: Manifest) -> list[Shard]:
    """The shards whose images were not looked at."""
    return [shard for shard in manifest.shards if shard.rows and "regions" not in shard.files]


def _batches(
    writer: Writer,
    shard: Shard,
    finder: Finder,
    read: Callable[[int], bytes],
    max_pixels: int,
    removed: Int64,
    done: Filled,
) -> Iterator[StoredRegions]:
    ids = read_ids(writer.folder, shard)
    live = ~np.isin(ids, removed)

    def look(at: int) -> Looked | str | None:
        """What the detector takes of an item, why there is nothing to take, or None for one that was removed."""
        if not live[at]:
            return None
        try:
            data = read(int(ids[at]))
            return finder.look_at(data, max_pixels)
        except ClipsieveError as error:
            return str(error)
        except MemoryError:
            raise
        except Exception as error:  # one odd image must not end a run over millions
            return f"It cannot be looked at ({str(error).strip() or type(error).__name__})."

    count = processors()
    with ThreadPoolExecutor(count, "clipsieve-decode") as decoders:
        looked = ordered_map(decoders, look, range(len(ids)), 2 * BATCH + count)
        try:
            for start in range(0, len(ids), BATCH):
                some = [next(looked) for _ in range(start, min(start + BATCH, len(ids)))]
                yield _find(finder, some, ids[start : start + BATCH], done)
        finally:
            looked.close()


def _find(finder: Finder, some: list[Looked | str | None], ids: Int64, done: Filled) -> StoredRegions:
    """The regions of all of some items, of which those without pixels have none."""
    at = np.array([i for i, one in enumerate(some) if isinstance(one, tuple)], dtype=np.int64)
    found = finder.find([one for one in some if isinstance(one, tuple)])
    done.images += len(at) - len(found.unseen)
    reasons = {i: one for i, one in enumerate(some) if isinstance(one, str)}
    reasons |= dict.fromkeys(at[found.unseen].tolist(), "The detector gives no finite numbers for it; leave it out.")
    done.unseen |= {int(ids[i]): reasons[i] for i in sorted(reasons)}
    unseen = np.array(sorted(reasons), dtype=np.int64)
    return dataclasses.replace(found, items=len(some), item=at[found.item], unseen=unseen)
