"""The folder's writer for one commit at a time: always the same for who works alone, in turn for those who share.

Those who share a folder embed without its lock, each another part of one input, on any number of hosts. For a commit
they wait for the lock, read the manifest anew, and take ids and the shard's number from that.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from clipsieve.errors import CollectionChanged
from clipsieve.manifest import Manifest, read_manifest
from clipsieve.shards import read_metadata
from clipsieve.writer import Writer, open_writer

Turn = Callable[[], AbstractContextManager[Writer]]


class Keys:
    """Keys of a folder's items, as far as it was looked at."""

    def __init__(self, folder: Path) -> None:
        self.taken: set[str] = set()
        self._folder = folder
        self._shards: set[int] = set()

    def look(self, manifest: Manifest) -> None:
        """Read the keys of shards that were not looked at yet."""
        for shard in manifest.shards:
            if shard.rows and shard.number not in self._shards:
                self.taken.update(read_metadata(self._folder, shard, ["key"])["key"].to_pylist())
                self._shards.add(shard.number)

    def pass_over(self, manifest: Manifest) -> None:
        """Take all shards as looked at."""
        self._shards.update(shard.number for shard in manifest.shards)


@contextlib.contextmanager
def turns(
    folder: Path,
    new: Manifest,
    keys: Keys,
    require: Callable[[Manifest], object],
    waiting: Callable[[str], object] | None,
) -> Iterator[Turn]:
    """What gives the writer for the length of a commit.

    new      see `open_writer`
    keys     are those of all items that others committed, within a turn
    require  raises if the manifest is none that may be added to; asked in each turn
    waiting  the folder is shared, see `lock.writer_lock`; None holds the folder's lock for the whole block
    """
    with _writers(folder, new, waiting) as next_writer:

        @contextlib.contextmanager
        def turn() -> Iterator[Writer]:
            with contextlib.suppress(CollectionChanged):  # under the lock it is looked at again
                keys.look(read_manifest(folder))  # most of it, while nobody has to wait
            with next_writer() as writer:
                require(writer.manifest)
                keys.look(writer.manifest)
                yield writer
                keys.pass_over(writer.manifest)  # what is new in it was written here

        yield turn


@contextlib.contextmanager
def _writers(folder: Path, new: Manifest, waiting: Callable[[str], object] | None) -> Iterator[Turn]:
    with open_writer(folder, new, waiting=waiting) as writer:
        if waiting is None:
            yield lambda: contextlib.nullcontext(writer)
            return
    # It was whole a moment ago, and looking at each file of a large one takes long over a network.
    yield lambda: open_writer(folder, new, damaged=True, waiting=waiting)
