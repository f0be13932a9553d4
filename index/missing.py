"""Which items' files are no longer there."""

import os
from pathlib import Path

import numpy as np

from clipsieve.errors import InputError
from clipsieve.manifest import Manifest
from clipsieve.shards import read_metadata
from clipsieve.types import Int64


def missing_files(folder: Path, manifest: Manifest, removed: Int64) -> Int64:
    """The ids of items whose file on this machine is gone, int64 (r,), ascending; `removed` ones left out.

    Items that were read from archives, tables or addresses are not looked for. InputError if no file at all is there:
    that is a disk which is not mounted rather than thousands of deletions.
    """
    gone: list[int] = []
    looked = 0
    for shard in manifest.shards:
        table = read_metadata(folder, shard, ["id", "image_path"]) if shard.rows else None
        if table is None or "image_path" not in table.column_names:
            continue
        ids: Int64 = table["id"].to_numpy()
        live = ~np.isin(ids, removed)
        paths = table["image_path"].to_pylist()
        for id, path in ((int(ids[i]), paths[i]) for i in np.flatnonzero(live)):
            if path is None or "://" in path:
                continue
            looked += 1
            if not os.path.lexists(path):
                gone.append(id)
    if looked and len(gone) == looked:
        raise InputError(
            f"None of the {looked:,} files that {folder} was made of is there; is a disk not mounted? To remove all of "
            'them nevertheless, use --where "id >= 0".'
        )
    return np.array(sorted(gone), dtype=np.int64)
