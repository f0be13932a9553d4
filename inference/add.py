"""What is new or changed in an input, into a collection that exists."""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from clipsieve.errors import InputError
from clipsieve.image_memory import ImageMemory
from clipsieve.inference.batches import embed_items
from clipsieve.inference.decode import MAX_PIXELS, decoder
from clipsieve.inference.embedder import StagedEmbedder
from clipsieve.inference.finding import Finder, settle
from clipsieve.inference.known import Known
from clipsieve.inference.moves import MemberMoves, follow_moves
from clipsieve.inference.pending import TWICE, Embedded, Pending, read_of
from clipsieve.inference.probe import probe
from clipsieve.inference.reader import Source
from clipsieve.inference.run import commit_batches
from clipsieve.manifest import Detection
from clipsieve.protocols import DecodesImages
from clipsieve.skips import commonest
from clipsieve.types import ImageItem, Skipped
from clipsieve.writer import Writer, open_writer


@dataclass(slots=True)
class Added:
    """What one run did: read = same + moved + removed + embedded + skipped.

    read      inputs that the source holds
    same      known already, taken or skipped; files that nobody wrote to since were not even opened
    moved     known already, at another path than before: their items have the new one now
    removed   somebody had them removed; they stay so
    embedded  new items, of which `changed` took the place of an older one
    skipped   could not be used; listed in skipped/
    reasons   why, the commonest first, and how often each
    not_read  files that were skipped, by extension
    ignored   files passed over that nobody means as images, see `reader.Source.ignored`
    unused    of `same`, those that were skipped before
    captions_cut  captions that were embedded without their end, which is beyond the model's context
    captions_no_text  captions that are no text, which stay in the metadata
    left_out  columns of bytes that were left out, see `reader.Source.left_out`
    """

    read: int = 0
    same: int = 0
    moved: int = 0
    removed: int = 0
    embedded: int = 0
    changed: int = 0
    skipped: int = 0
    captions_cut: int = 0
    captions_no_text: int = 0
    seconds: float = 0.0
    reasons: Sequence[tuple[str, int]] = field(default=(), compare=False)
    not_read: Mapping[str, int] = field(default_factory=dict, compare=False)
    ignored: Mapping[str, int] = field(default_factory=dict, compare=False)
    left_out: Mapping[str, int] = field(default_factory=dict, compare=False)
    unused: int = field(default=0, compare=False)


def add_to_collection(
    source: Source,
    load: Callable[[str], StagedEmbedder],
    folder: str | os.PathLike[str],
    *,
    text: bool = True,
    batch_size: int = 256,
    workers: int | None = None,
    shard_size: int = 100_000,
    commit_seconds: float = 600.0,
    thumbs: bool | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int | None, int], None] | None = None,
    load_finder: Callable[[Detection, StagedEmbedder], Finder] | None = None,
    image_memory: ImageMemory | None = None,
) -> Added:
    """Embed what `source` holds and the collection does not; a changed image takes the place of the one before.

    load         makes the embedder of the collection's model name; only called if there is something to embed
    thumbs       store small images; by default if the collection has some
    progress     called with (inputs read, their total or None, skipped) as they are passed over or embedded
    load_finder  makes the finder of a collection that has regions, given how it finds them and its embedder; without
                 one, what is new has none

    The other arguments are those of `run.embed_collection`. A file is the same while its path, size and time of last
    change are, or else its content; an item whose file moved follows it (`inference.moves`). What lies in a tar or a
    table is the same while its content is. Stopped, the next run finds out what is left. An image whose key belongs to
    an item from elsewhere is skipped and listed. The errors are those of `open_writer`, and InputError
    for a collection that does not say which model made it.
    """
    if min(batch_size, shard_size, workers or 1) < 1:
        raise InputError(
            f"batch_size {batch_size}, shard_size {shard_size}, workers {workers}: each must be 1 or more."
        )
    if source.nothing is not None:
        raise InputError(source.nothing)
    began = time.monotonic()
    with open_writer(folder) as writer:
        model = writer.manifest.model
        if model is None:
            raise InputError(f"{folder} does not say which model made it, so that nothing can be added to it.")
        known = Known(Path(folder), writer.manifest, decoder(max_pixels))
        news = _News(source, known, follow_moves(source, known, writer).live, progress)
        items = iter(news)
        first = next(items, None)
        if first is not None:
            embedder = load(model.name)
            if isinstance(embedder, DecodesImages):
                embedder = cast(StagedEmbedder, embedder.decoding_as(writer.manifest.decoding))
            _require_same(writer, embedder)
            if thumbs is None:
                thumbs = any("thumbs" in shard.files for shard in writer.manifest.shards)
            before = read_of(source, writer.manifest)
            detection = writer.manifest.detection
            finder = None if detection is None or load_finder is None else load_finder(detection, embedder)
            if finder is not None:
                settle(writer, finder)
            pending = Pending(
                lambda: nullcontext(writer), source, embedder, None, before, (), news.replaces, known.open
            )
            batches = embed_items(
                itertools.chain([first], items),
                embedder,
                text,
                batch_size,
                workers,
                thumbs,
                max_pixels,
                finder,
                shard_size,
                image_memory,
            )
            commit_batches(batches, pending, shard_size, commit_seconds, news.take)
            news.count.reasons, news.count.not_read = commonest(pending.reasons), dict(pending.kinds)
        if news.members.places:
            writer.move(news.members.places)
        if news.elsewhere:
            writer.note_input(source.name)
    news.count.ignored, news.count.left_out = source.ignored, dict(source.left_out)
    news.count.seconds = time.monotonic() - began
    return news.count


def follow(source: Source, folder: str | os.PathLike[str]) -> int:
    """Let items whose files moved within, or into, `source` have the new paths; how many did. Nothing is embedded."""
    with open_writer(folder) as writer:
        return len(follow_moves(source, Known(Path(folder), writer.manifest, decoder()), writer).live)


class _News:
    """Iterates over what is new or changed in a source, and counts the rest. `replaces` grows with what changed."""

    def __init__(
        self,
        source: Source,
        known: Known,
        moved: frozenset[str],
        progress: Callable[[int, int | None, int], None] | None = None,
    ) -> None:
        self.count = Added()
        self.replaces: dict[str, int] = {}
        self.members = MemberMoves(known)
        self.elsewhere = False  # whether tars or tables hold known images, perhaps of another input
        self._source = source
        self._known = known
        self._moved = moved
        self._progress = progress
        self._total = source.total  # asked once: a table's footer is read for it

    def take(self, batch: Embedded) -> None:
        self.count.embedded += len(batch.rows)
        self.count.changed += sum(row.key in self.replaces for row in batch.rows)
        self.count.skipped += len(batch.skipped)
        self.count.captions_cut += batch.captions_cut
        self.count.captions_no_text += batch.captions_no_text
        self.tell()

    def tell(self) -> None:
        if self._progress is not None:
            count = self.count
            done = count.same + count.moved + count.removed
            self._progress(done + count.embedded + count.skipped, self._total, count.skipped)

    def __iter__(self) -> Iterator[ImageItem | Skipped]:
        seen: set[str] = set()
        for item in self._source.items(pass_over=self._pass_over):
            self.count.read += 1
            one = self._news(item, seen)
            if one is not None:
                yield one
        self.tell()

    def _pass_over(self, key: str, path: str, size: int, mtime: float) -> bool:
        if not self._known.same_file(key, path, size, mtime):
            return False
        self.count.read += 1
        self._pass(key)
        return True

    def _pass(self, key: str, *, unused: bool = False) -> None:
        if key in self._moved:
            self.count.moved += 1
        else:
            self.count.same += 1
            self.count.unused += unused
        self.tell()

    def _news(self, item: ImageItem | Skipped, seen: set[str]) -> ImageItem | Skipped | None:
        """The item if it is news, a Skipped in its place if it cannot be taken, None if it is none."""
        one = item
        if isinstance(item, ImageItem):
            standing = self._known.standing(item, self._source.name)
            if item.key in seen:
                one = Skipped(item.key, TWICE)
            elif standing == "taken":
                other = self._known.where(item.key)
                one = Skipped(item.key, f"Its key is that of another item, read from {other}; rename one of them.")
            elif standing == "removed":
                self.count.removed += 1
                self.tell()
                return None
            elif standing in ("same", "in vain"):
                seen.add(item.key)
                self.elsewhere |= standing == "same" and not (item.meta.get("image_path") or item.meta.get("url"))
                self._pass(item.key, unused=standing == "in vain")
                return None
            elif standing == "new" and (before := self.members.find(item)) is not None:
                seen.add(item.key)
                self.elsewhere = True
                if before.live:
                    self.count.moved += 1
                else:
                    self.count.removed += 1
                self.tell()
                return None
            elif standing == "changed":
                self.replaces[item.key] = self._known.id_of(item.key)
            seen.add(item.key)
        if isinstance(one, Skipped) and self._known.skipped_before(one):
            self._pass(one.key, unused=True)
            return None
        return one


def _require_same(writer: Writer, embedder: StagedEmbedder) -> None:
    if writer.manifest.model is not None:
        writer.manifest.model.require(embedder.model, f"What is to be added to {writer.folder}")
    if writer.manifest.probe is not None:
        writer.manifest.probe.require(probe(embedder))
