"""A collection's vectors and metadata in a second folder, so that an index can be made there instead of beside them.

Shards never change once they are written, so the second folder links to their files where the file system can, and
copies them where it cannot. It is a collection of its own; called again, it gets what was added to the first since.
"""

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path

from clipsieve.durable import TEMPORARY
from clipsieve.errors import CollectionReadOnly, InputError
from clipsieve.manifest import Manifest, Shard
from clipsieve.shards import open_manifest, read_removals, read_removed
from clipsieve.stored_regions import ROLES as REGIONS
from clipsieve.writer import open_writer


def make_twin(folder: Path, into: Path) -> None:
    """Give `into` the shards of the collection `folder`; indices of `into` stay.

    What was removed from `folder`, or restored, since the last time is removed or restored in `into`.

    InputError if `into` is `folder` itself; ModelMismatch or InputError if it holds another collection's vectors.
    """
    if into.exists() and into.samefile(folder):
        raise InputError(f"{into} is the collection itself; leave --into out to index it in place.")
    manifest = open_manifest(folder)
    if manifest.read_only:
        raise CollectionReadOnly(
            f"{folder} was not made by clipsieve; it can be searched as it is, but not indexed into another folder."
        )
    new = Manifest(
        model=manifest.model,
        dim=manifest.dim,
        dtype=manifest.dtype,
        licence=manifest.licence,
        decoding=manifest.decoding,
    )
    with open_writer(into, new) as writer:
        known = {shard.number: _images(shard) for shard in manifest.shards}
        if any(known.get(shard.number) != _images(shard) for shard in writer.manifest.shards):
            raise InputError(f"{into} holds other vectors than {folder}; choose another folder for --into.")
        had = {file for shard in writer.manifest.shards for file in shard.files.values()}
        for shard in manifest.shards:
            for file in shard.files.values():
                if file not in had:  # regions that were found anew have the name of the old ones
                    (into / file.path).unlink(missing_ok=True)
                _link(folder / file.path, into / file.path)
        mine = writer.manifest
        writer.commit(
            dataclasses.replace(
                manifest,
                indices=mine.indices,
                background=mine.background,
                removed=mine.removed,
                format_version=max(manifest.format_version, mine.format_version),
            )
        )
        gone, gone_there = (
            set(read_removed(at, of).tolist()) for at, of in ((folder, manifest), (into, writer.manifest))
        )
        lines = read_removals(folder, manifest)
        back = {id for line in lines if "restored" in line for id in line["ids"]} - gone
        writer.restore(sorted(back & gone_there))  # what was removed in the twin alone stays removed there
        writer.remove(sorted(gone - gone_there))


def _images(shard: Shard) -> Shard:
    """The shard without its regions, which come and go, and its metadata, in which files move."""
    kept = {role: f for role, f in shard.files.items() if role not in (*REGIONS, "metadata")}
    return dataclasses.replace(shard, files=kept)


def _link(file: Path, at: Path) -> None:
    if at.exists():
        return
    at.parent.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):  # another file system, or one without links
        os.link(file, at)
        return
    beside = at.with_name(f".{at.name}{TEMPORARY}")
    shutil.copyfile(file, beside)
    beside.replace(at)
