"""Which items' files are no longer there."""

import errno
import os
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clipsieve.errors import InputError
from clipsieve.manifest import Manifest
from clipsieve.path_text import stored_path, to_text
from clipsieve.shards import read_metadata
from clipsieve.types import Int64


class Looked(NamedTuple):
    """What became of the files of items.

    gone    the ids of those that are no longer there, int64 (r,), ascending
    there   how many are
    within  how many were not looked for: they were read from archives, tables or addresses
    """

    gone: Int64
    there: int
    within: int = 0


def missing_files(folder: Path, manifest: Manifest, removed: Int64) -> Looked:
    """Which items' files on this machine are gone; `removed` ones left out.

    Items that were read from archives, tables or addresses are not looked for, only counted. InputError if no file
    at all is there: that is a disk which is not mounted rather than thousands of deletions.
    """
    looked = look_for_files(folder, manifest, removed)
    if len(looked.gone) and not looked.there:
        raise InputError(
            f"None of the {len(looked.gone):,} files that {folder} was made of is there, so nothing is removed; is a "
            f"disk not mounted? If they were moved, say where they are: clipsieve add {folder} FOLDER"
        )
    return looked


def look_for_files(
    folder: Path, manifest: Manifest, removed: Int64, below: str = "", seen: Container[str] = ()
) -> Looked:
    """Look for the files of all items but the `removed` ones.

    below  an absolute folder, as Python has it: look for those below it alone
    seen   paths that are known to be there
    """
    start = to_text(below.rstrip(os.sep) + os.sep) if below else ""
    gone: list[int] = []
    there = within = 0
    for shard in manifest.shards:
        if not shard.rows:
            continue
        table = read_metadata(folder, shard, ["id", "image_path"])
        ids: Int64 = table["id"].to_numpy()
        live = ~np.isin(ids, removed)
        paths = table["image_path"].to_pylist() if "image_path" in table.column_names else [None] * len(ids)
        for id, path in ((int(ids[i]), paths[i]) for i in np.flatnonzero(live)):
            if path is None or "://" in path:
                within += 1
            elif not path.startswith(start):
                continue
            elif path in seen or _is_there(path):
                there += 1
            else:
                gone.append(id)
    return Looked(np.array(sorted(gone), dtype=np.int64), there, within)


def _is_there(path: str) -> bool:
    """False only where the file is known to be gone, and not where it cannot be looked at."""
    try:
        os.lstat(stored_path(path))
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR)
    return True
