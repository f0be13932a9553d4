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
from clipsieve.manifest import Manifest
from clipsieve.shards import open_manifest, read_removed
from clipsieve.writer import open_writer


def make_twin(folder: Path, into: Path) -> None:
    """Give `into` the shards of the collection `folder`, and what was removed from it; indices of `into` stay.

    InputError if `into` is `folder` itself; ModelMismatch or InputError if it holds another collection's vectors.
    """
    if into.exists() and into.samefile(folder):
        raise InputError(f"{into} is the collection itself; leave --into out to index it in place.")
    manifest = open_manifest(folder)
    if manifest.read_only:
        raise CollectionReadOnly(
            f"{folder} was not made by clipsieve; it can be searched as it is, but not indexed into another folder."
        )
    new = Manifest(model=manifest.model, dim=manifest.dim, dtype=manifest.dtype, licence=manifest.licence)
    with open_writer(into, new) as writer:
        known = {shard.number: shard for shard in manifest.shards}
        if any(known.get(shard.number) != shard for shard in writer.manifest.shards):
            raise InputError(f"{into} holds other vectors than {folder}; choose another folder for --into.")
        for shard in manifest.shards:
            for file in shard.files.values():
                _link(folder / file.path, into / file.path)
        mine = writer.manifest
        writer.commit(
            dataclasses.replace(manifest, indices=mine.indices, background=mine.background, removed=mine.removed)
        )
        writer.remove(
            sorted(set(read_removed(folder, manifest).tolist()) - set(read_removed(into, writer.manifest).tolist()))
        )


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
