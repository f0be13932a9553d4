"""Whether a collection is whole, and what can be mended.

Everything that the manifest names is read and compared with its checksum; then what the files say is compared. Mending
drops what is derived (indices, groups, thumbnails, the cache), which can be made again, and sets damaged vectors and
metadata aside, which `clipsieve add` embeds again. What people wrote is never changed.
"""

import contextlib
import dataclasses
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve import shards
from clipsieve.durable import sift_lines, write_lines
from clipsieve.errors import ClipsieveError, CollectionReadOnly
from clipsieve.index.build import clean_indices
from clipsieve.index.metadata import NAME as CACHE
from clipsieve.index.stored import ROLES as VECTORS
from clipsieve.index.stored import covers
from clipsieve.manifest import File, Manifest, Shard
from clipsieve.marks import Marks
from clipsieve.stored_regions import ROLES as REGIONS
from clipsieve.stored_regions import read_regions, read_table
from clipsieve.whole import files_of, verify
from clipsieve.writer import Writer, open_writer

ASIDE = "aside"
OPTIONAL = ("thumbs", "skipped", *REGIONS)
"""Roles of files that a shard can do without."""
BLOCK = 65_536
TOLERANCE = 0.01
"""How far the length of a float16 row may be from 1: far above rounding, far below any other scale."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found.

    problems  a sentence each; none if the collection is whole
    files     how many files the manifest names
    bytes     their sizes in all
    rows      rows in all shards
    """

    problems: tuple[str, ...]
    files: int
    bytes: int
    rows: int


def check(folder: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None) -> Checked:
    """Read all of a collection and compare.

    progress  called with (bytes read, bytes to read)

    CollectionMissing or CollectionDamaged if there is no manifest to go by.
    """
    path = Path(folder)
    manifest = shards.open_manifest(path)
    files = files_of(manifest)
    bad = verify(path, manifest, progress)
    problems = list(bad.values())
    for shard in manifest.shards:
        if shard.rows and not any(file.path in bad for file in shard.files.values()):
            problems += [*_shard_problems(path, manifest, shard), *_region_problems(path, manifest, shard)]
    problems += [*_manifest_problems(path, manifest), *_marks_problems(path)]
    return Checked(tuple(problems), len(files), sum(f.size for f in files), manifest.rows)


def repair(folder: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Make the collection whole without what is damaged; a sentence for each thing done, none if nothing was to do.

    Damaged shards go to `aside/` in the folder. The errors are those of `check` and of `open_writer`.
    """
    path = Path(folder)
    if shards.open_manifest(path).read_only:
        raise CollectionReadOnly(f"{path} was not made by clipsieve; restore its files from a copy.")
    done = []
    with open_writer(path, damaged=True) as writer:
        manifest = writer.manifest
        bad = verify(path, manifest, progress)
        kept, aside = [], []
        for shard in manifest.shards:
            roles = {role for role, file in shard.files.items() if file.path in bad}
            if roles & set(REGIONS) or (not roles and list(_region_problems(path, manifest, shard))):
                roles |= set(REGIONS) & set(shard.files)  # none of them means anything alone
            if roles - set(OPTIONAL) or (shard.rows and not roles and list(_shard_problems(path, manifest, shard))):
                aside.append(shard)
                continue
            if roles:
                done.append(_dropped(shard, roles))
            files = {role: file for role, file in shard.files.items() if role not in roles}
            kept.append(dataclasses.replace(shard, files=files))
        left = dataclasses.replace(manifest, shards=tuple(kept))
        indices = tuple(
            index
            for index in manifest.indices
            if covers(left, index) and not any(file.path in bad for file in index.files.values())
        )
        done += [
            f"The {index.name} index was dropped; `clipsieve index {path}` makes it again."
            for index in manifest.indices
            if index not in indices
        ]
        done += [
            f"Shard {shard.number} with {shard.rows:,} images was set aside; `clipsieve add` embeds them again."
            for shard in aside
        ]
        for shard in aside:
            for file in shard.files.values():
                _set_aside(path, file)
        if done:
            writer.commit(dataclasses.replace(manifest, shards=tuple(kept), indices=indices))
        if manifest.removed is not None and manifest.removed.path in bad:
            done.append(_sift_removed(writer, manifest.removed))
        writer.clean()
        clean_indices(path, writer.manifest)
    (path / CACHE).unlink(missing_ok=True)  # derived: what it was made of may have been damaged
    return done


def _shard_problems(folder: Path, manifest: Manifest, shard: Shard) -> Iterator[str]:
    """What is wrong with a shard whose files are as they were written."""
    what = f"Shard {shard.number}"
    try:
        ids = shards.read_metadata(folder, shard, ["id"])["id"].to_numpy() if "metadata" in shard.files else None
        arrays = {role: shards.open_array(folder, shard, role) for role in VECTORS.values() if role in shard.files}
    except ClipsieveError as error:
        yield str(error)
        return
    if ids is not None and ((ids[1:] <= ids[:-1]).any() or ids[0] != shard.first_id or ids[-1] != shard.last_id):
        yield f"{what} has ids that do not ascend from {shard.first_id} to {shard.last_id}."
    if shard.last_id >= manifest.next_id:
        yield f"{what} has ids up to {shard.last_id}, but the next to be given is {manifest.next_id}."
    for role, array in arrays.items():
        yield from _array_problems(f"{what} has {{}} of {role}", array, manifest.dim)


def _region_problems(folder: Path, manifest: Manifest, shard: Shard) -> Iterator[str]:
    """What is wrong with the regions of a shard, if it has any, whose files are as they were written."""
    if "regions" not in shard.files:
        return
    what, detection = f"Shard {shard.number}", manifest.detection
    if detection is None:
        yield f"{what} has regions, and the manifest no detector."
        return
    try:
        regions, ids = read_regions(folder, shard), shards.read_ids(folder, shard)
        table = read_table(folder, shard)
    except (ClipsieveError, KeyError) as error:
        yield f"{what} has regions that cannot be read: {error}"
        return
    if not np.isin(table["id"].to_numpy(), ids).all():
        yield f"{what} has regions of items that are not in it."
    if not np.isfinite(regions.numbers).all() or not ((regions.boxes >= -1) & (regions.boxes <= 2)).all():
        yield f"{what} has regions whose boxes or numbers cannot be."
    yield from _array_problems(f"{what} has {{}} of region_emb", regions.vectors, detection.dim)
    if regions.crops is not None:
        yield from _array_problems(f"{what} has {{}} of crop_emb", regions.crops, manifest.dim)


def _array_problems(what: str, array: npt.NDArray[Any], dim: int) -> Iterator[str]:
    """`what` has a place for what there is of the array."""
    if array.shape[1] != dim:
        yield f"{what.format(f'rows of {array.shape[1]} dimensions')}; the manifest says {dim}."
        return
    odd = 0
    for start in range(0, len(array), BLOCK):
        rows = array[start : start + BLOCK].astype(np.float32)
        length = np.sqrt(np.einsum("ij,ij->i", rows, rows))  # (b,)
        odd += int((~(np.abs(length - 1) <= TOLERANCE)).sum())  # NaN is odd too
    if odd:
        yield f"{what.format(f'{odd:,} rows')} whose length is not 1."


def _dropped(shard: Shard, roles: set[str]) -> str:
    if not roles & set(REGIONS):
        return f"Shard {shard.number} goes without its {' and '.join(sorted(roles))}."
    left = sorted((roles - set(REGIONS)) | {"regions"})
    return f"Shard {shard.number} goes without its {' and '.join(left)}; `clipsieve regions` finds regions again."


def _manifest_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    spans = sorted((s.first_id, s.last_id, s.number) for s in manifest.shards if s.rows)
    for (_, last, one), (first, _, two) in itertools.pairwise(spans):
        if first <= last:
            yield f"Shards {one} and {two} have ids in common."
    there = {shard.number: shard.rows for shard in manifest.shards}
    for index in manifest.indices:
        lost = sorted(set(index.shards) - set(there))
        if lost:
            yield f"The {index.name} index covers shards that are gone ({', '.join(map(str, lost))}); index it again."
    try:
        removed = shards.read_removed(folder, manifest)
    except ClipsieveError as error:
        yield str(error)
        return
    if len(removed) and not 0 <= removed[0] <= removed[-1] < manifest.next_id:
        yield f"removed.jsonl names ids that were never given; the next to be given is {manifest.next_id}."


def _marks_problems(folder: Path) -> Iterator[str]:
    try:
        Marks(folder).standing()
    except ClipsieveError as error:
        yield str(error)


def _sift_removed(writer: Writer, removed: File) -> str:
    """Keep of the list of removed items the lines that are as they were written; a sentence about the rest."""
    path = writer.folder / removed.path
    good, bad = sift_lines(path, removed.size)
    kept = [line for line in good if 0 <= min(line["ids"]) <= max(line["ids"]) < writer.manifest.next_id]
    if path.exists():
        aside = writer.folder / ASIDE / removed.path
        aside.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, aside)
    write_lines(path, kept)
    writer.commit(dataclasses.replace(writer.manifest, removed=writer.file(path)))
    return (
        f"Of {removed.path}, {len(kept):,} lines were kept and {len(bad):,} damaged ones dropped; what was removed in "
        "those, and in lines missing at its end, is shown again."
    )


def _set_aside(folder: Path, file: File) -> None:
    """A second name for a file; the first one goes once no manifest names it."""
    there, to = folder / file.path, folder / ASIDE / file.path
    if there.exists() and not to.exists():
        to.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # a file system without links
            os.link(there, to)
            return
        shutil.copyfile(there, to)
