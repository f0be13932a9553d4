"""A source, through an embedder, into a collection: committing shard by shard, resumable."""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from clipsieve.errors import ClipsieveError, CollectionError, InputError
from clipsieve.image_memory import ImageMemory
from clipsieve.inference.batches import embed_items
from clipsieve.inference.decode import MAX_PIXELS, decoder, decoding_of
from clipsieve.inference.embedder import StagedEmbedder
from clipsieve.inference.finding import Finder, settle
from clipsieve.inference.pending import TWICE, Embedded, Pending, read_of
from clipsieve.inference.probe import probe
from clipsieve.inference.reader import Source, input_of
from clipsieve.inference.turns import Keys, turns
from clipsieve.manifest import Manifest, read_manifest
from clipsieve.output_path import require_collection_path
from clipsieve.shards import read_metadata, read_skipped
from clipsieve.skips import commonest, current_skips
from clipsieve.types import ImageItem, Skipped


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What one run did. read = embedded + skipped.

    before        inputs that earlier runs had read already
    recovered     of `embedded`, those that earlier runs had skipped
    reasons       why inputs were skipped, the commonest first, and how often each
    not_read      files that were skipped, by extension
    ignored       files passed over that nobody means as images, see `reader.Source.ignored`
    seconds       from the first input to the last commit
    images_per_s  embedded / seconds
    captions_cut  captions that were embedded without their end, which is beyond the model's context
    captions_no_text  captions that are no text, which stay in the metadata
    left_out  columns of bytes that were left out, see `reader.Source.left_out`
    """

    read: int
    embedded: int
    skipped: int
    seconds: float
    images_per_s: float
    before: int = 0
    recovered: int = 0
    reasons: Sequence[tuple[str, int]] = ()
    not_read: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    captions_cut: int = 0
    captions_no_text: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


def embed_collection(
    source: Source,
    embedder: StagedEmbedder,
    out: str | os.PathLike[str],
    *,
    text: bool = True,
    batch_size: int = 256,
    workers: int | None = None,
    shard_size: int = 100_000,
    commit_seconds: float = 600.0,
    thumbs: bool = False,
    max_pixels: int = MAX_PIXELS,
    licence: str | None = None,
    progress: Callable[[int, int | None, int], None] | None = None,
    waiting: Callable[[str], object] | None = None,
    finder: Finder | None = None,
    image_memory: ImageMemory | None = None,
) -> RunSummary:
    """Embed what `source` yields into the folder `out`, or go on where a run that was stopped had got to.

    text            embed captions too, where the model has a text tower; they are stored either way
    workers         threads that decode; one per processor by default
    shard_size      inputs in a shard, and so in a commit, at most
    commit_seconds  commit earlier than that when this much time has passed, so that a kill costs no more
    thumbs          store a WebP of at most 256 pixels a side per item
    max_pixels      larger images are skipped, see `decode`
    licence         of the model, for the manifest of a new collection
    progress        called with (inputs read in all, their total or None, skipped in all) after each batch
    waiting         share the folder with others who embed other parts: its lock is held for each commit only. Called
                    with a sentence when that takes longer than a moment to get
    finder          store the regions of each image, too: the collection's are found by it from then on
    image_memory    from which decoding reserves; by default one of its own

    Every input ends as a row or in skipped/ with a sentence on why, and so does a second item of one key. What earlier
    runs skipped is tried again where that may end otherwise now: see `Skipped.limits`. ModelMismatch if `out` was made
    with another model. InputError if it holds another input, if this one changed meanwhile, or if there is nothing in
    it; CollectionError if none of it could be embedded.
    """
    if source.nothing is not None:
        raise InputError(source.nothing)
    if min(batch_size, shard_size, workers or 1) < 1:
        raise InputError(
            f"batch_size {batch_size}, shard_size {shard_size}, workers {workers}: each must be 1 or more."
        )
    require_collection_path(out)
    folder, seen = Path(out), probe(embedder)
    new = Manifest(model=embedder.model, dim=embedder.dim, licence=licence, probe=seen, decoding=decoding_of(embedder))
    keys = Keys(folder)
    require = partial(_require_same_input, folder, source)
    with turns(folder, new, keys, require, waiting) as turn:
        with turn() as writer:
            manifest = writer.manifest
            if manifest.probe is not None:
                manifest.probe.require(seen)
            if finder is not None:
                settle(writer, finder)
        items, cursor = _resume(folder, manifest, source)
        earlier = _worth_another_try(folder, manifest, source, decoder(max_pixels), keys.taken)
        skipped_before = manifest.progress(source.name, source.partition, source.partitions).skipped
        total = source.total  # asked once: a table's footer is read for it
        pending = Pending(turn, source, embedder, cursor, read_of(source, manifest), keys.taken)
        began = time.monotonic()
        read = skipped = captions_cut = captions_no_text = 0
        fresh = _once(items, keys.taken)

        def embedded(items: Iterable[ImageItem | Skipped]) -> Generator[Embedded, None, None]:
            how = (text, batch_size, workers, thumbs, max_pixels, finder, shard_size, image_memory)
            return embed_items(items, embedder, *how)

        def told(batch: Embedded) -> None:
            nonlocal read, skipped, captions_cut, captions_no_text
            captions_cut += batch.captions_cut
            captions_no_text += batch.captions_no_text
            read, skipped = read + batch.read, skipped + len(batch.skipped)
            if progress is not None:
                progress(cursor + read, total, skipped_before + skipped)

        commit_batches(embedded(fresh), pending, shard_size, commit_seconds, told)
        in_order = pending.embedded
        if earlier:
            tried = {skip.key for skip in earlier}
            pending.stand(set(tried))
            again = embedded(_once(source.again(tried), keys.taken))
            commit_batches(_news(again, set(earlier)), pending, shard_size, commit_seconds, lambda _: None)
        seconds = time.monotonic() - began
    if not pending.embedded and source.partitions == 1:
        require_images(folder, source.name)
    return RunSummary(
        pending.embedded + pending.skipped,
        pending.embedded,
        pending.skipped,
        seconds,
        pending.embedded / seconds if seconds else 0.0,
        cursor,
        pending.embedded - in_order,
        commonest(pending.reasons),
        dict(pending.kinds),
        source.ignored,
        captions_cut,
        captions_no_text,
        dict(source.left_out),
    )


def require_images(folder: Path, source: str) -> None:
    """CollectionError, with the commonest reason, if nothing of the source of this name was embedded into `folder`."""
    manifest, input = read_manifest(folder), input_of(source)
    if manifest.rows:
        return
    reasons = Counter(skip.reason for some in current_skips(folder, manifest).values() for skip in some)
    if not reasons:
        raise CollectionError(f"There is no image in {input!r}: its tars, tables or lists are empty; check the path.")
    (reason, count), *_ = commonest(reasons)
    raise CollectionError(
        f"None of the {reasons.total():,} inputs of {input!r} could be embedded, most often ({count:,}) because: "
        f"{reason} All reasons: clipsieve info {folder} --skipped"
    )


def _worth_another_try(
    folder: Path, manifest: Manifest, source: Source, decoder: str, taken: Container[str]
) -> list[Skipped]:
    """What earlier runs skipped of this part of the source, and what may not be skipped now."""
    here, limits = (source.name, source.partition), (None, decoder, source.limits or decoder)
    parts = {s.number for s in manifest.shards if s.source is None or (s.source.input, s.source.partition) == here}
    skips = current_skips(folder, manifest)
    return [s for number in parts for s in skips[number] if s.limits not in limits and s.key not in taken]


def _news(batches: Generator[Embedded, None, None], known: Container[Skipped]) -> Generator[Embedded, None, None]:
    """The batches without what was skipped before in the same way."""
    try:
        for batch in batches:
            yield dataclasses.replace(batch, skipped=[s for s in batch.skipped if s not in known])
    finally:
        batches.close()


def _require_same_input(folder: Path, source: Source, manifest: Manifest) -> None:
    """InputError unless all that was read is of `source`, cut into as many parts."""
    if any(s.added and s.input == source.name for s in manifest.sources):
        raise InputError(f"{folder} was given {source.name!r} with `clipsieve add`; go on with that.")
    read = [s for s in manifest.sources if not s.added]
    others = {s.input for s in read} - {source.name}
    if others:
        raise InputError(
            f"{folder} holds the input {min(others)!r} and not {source.name!r}; embed it into another folder, "
            "or add it with `clipsieve add`."
        )
    cut = {s.partitions for s in read if s.input == source.name} - {source.partitions}
    if cut:
        raise InputError(
            f"{folder} holds parts of {source.name!r} cut into {min(cut)}, not {source.partitions}; keep it so."
        )


def _resume(folder: Path, manifest: Manifest, source: Source) -> tuple[Iterator[ImageItem | Skipped], int]:
    """The inputs not yet read, and how many were. InputError if the folder's are not the first ones of `source`."""
    cursor = manifest.progress(source.name, source.partition, source.partitions).cursor
    if cursor == 0:
        return source.items(), 0
    items = source.items(cursor - 1)
    last = next(items, None)
    here = (source.name, source.partition, cursor)
    made = [
        shard
        for shard in manifest.shards
        if (s := shard.source) and not s.added and (s.input, s.partition, s.cursor) == here
    ]
    expected: list[str] = []
    for shard in made:  # none where it was compacted away; several where what it skipped was tried again
        expected += [s.key for s in read_skipped(folder, shard)]
        if shard.rows:
            expected.append(read_metadata(folder, shard, ["key"])["key"][-1].as_py())
    if made and (last is None or last.key not in expected):
        found = "it ends before that" if last is None else f"that is {last.key!r} now"
        raise InputError(
            f"The input {source.name!r} changed since it was embedded into {folder}: its number {cursor} "
            f"was {expected[-1]!r}, and {found}. Embed it into another folder, or add it with `clipsieve add`."
        )
    return items, cursor


def _once(items: Iterable[ImageItem | Skipped], taken: Container[str]) -> Iterator[ImageItem | Skipped]:
    """The items, each but the first of a key as a Skipped. Keys that are `taken` have their first already."""
    seen: set[str] = set()
    for item in items:
        if isinstance(item, ImageItem) and (item.key in taken or item.key in seen):
            yield Skipped(item.key, TWICE)
            continue
        if isinstance(item, ImageItem):
            seen.add(item.key)
        yield item


def commit_batches(
    batches: Generator[Embedded, None, None],
    pending: Pending,
    shard_size: int,
    commit_seconds: float,
    told: Callable[[Embedded], None],
) -> None:
    """Commit the batches, now and then as `embed_collection` says and at the end; `told` of each once it is taken.

    No batch may have more than `shard_size` inputs.
    """
    committed = time.monotonic()
    try:
        for batch in batches:
            if pending.read and pending.read + batch.read > shard_size:
                pending.commit()
                committed = time.monotonic()
            pending.take(batch)
            if pending.read >= shard_size or pending.heavy or time.monotonic() - committed >= commit_seconds:
                pending.commit()
                committed = time.monotonic()
            told(batch)
    except (KeyboardInterrupt, ClipsieveError):
        pending.commit()  # whole batches, in order: as good as any other commit
        raise
    finally:
        batches.close()
    pending.commit()
