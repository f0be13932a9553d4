"""Folders that clip-retrieval wrote, seen as collections: opened in place, for reading, with ids = rows.

They have no manifest. Their files `img_emb/img_emb_{P}.npy`, `text_emb/text_emb_{P}.npy` and
`metadata/metadata_{P}.parquet` belong together by P, and count in the lexicographic order of P, which is the order that
its own indices were built in (10 before 2 where P is not padded).
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clipsieve.arrays import UNREADABLE, map_array
from clipsieve.checked_tables import FAULTS, count_parquet_rows
from clipsieve.errors import CollectionDamaged
from clipsieve.manifest import File, Manifest, Shard

_KINDS = {"img_emb": ".npy", "text_emb": ".npy", "metadata": ".parquet"}


def is_foreign(folder: Path) -> bool:
    """True if the folder holds clip-retrieval's embeddings. Look for a manifest first: ours are laid out alike."""
    return bool(_parts(folder, "img_emb") or _parts(folder, "text_emb"))


def make_manifest(folder: Path) -> Manifest:
    """What the folder's manifest would say. Headers are read, vectors are not.

    CollectionDamaged if the files of one partition do not all exist or differ in rows.
    """
    found = {kind: _parts(folder, kind) for kind in _KINDS}
    present = {kind: parts for kind, parts in found.items() if parts}
    names = sorted(set().union(*present.values()))
    for kind, parts in present.items():
        for part in names:
            if part not in parts:
                raise CollectionDamaged(
                    f"{folder / kind} has no {kind}_{part}{_KINDS[kind]} beside its partners in "
                    f"{', '.join(sorted(set(present) - {kind}))}; restore it, or remove them all."
                )
    shards: list[Shard] = []
    formats: dict[tuple[str, int, str], Path] = {}
    next_id = 0
    for number, part in enumerate(names):
        paths = {kind: parts[part] for kind, parts in present.items()}
        rows = {}
        for kind, path in paths.items():
            if kind == "metadata":
                rows[kind] = _parquet_rows(path)
            else:
                array = _map(path)
                rows[kind] = len(array)
                formats[kind, array.shape[1], array.dtype.name] = path
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{paths[kind].name} {n}" for kind, n in rows.items())
            raise CollectionDamaged(f"Partition {part} of {folder} does not agree in rows ({counts}); write it again.")
        n = next(iter(rows.values()))
        files = {kind: File(f"{kind}/{path.name}", path.stat().st_size, "") for kind, path in paths.items()}
        shards.append(Shard(number, n, next_id if n else -1, next_id + n - 1 if n else -1, files))
        next_id += n
    # Captions may be float32 beside images in float16: a multilingual model's are written as they come.
    if len({dim for _, dim, _ in formats}) > 1 or len(formats) > len({kind for kind, _, _ in formats}):
        raise CollectionDamaged(f"The vectors in {folder} differ in dimension or type ({sorted(formats)}).")
    for (_, _, name), path in formats.items():
        if name not in ("float16", "float32"):
            raise CollectionDamaged(f"{path} holds {name}; vectors are float16 or float32, so write it again.")
    _, dim, dtype = min(formats)
    return Manifest(
        None,
        dim,
        dtype,
        next_id=next_id,
        next_shard=len(shards),
        shards=tuple(shards),
        decoding="reference",
        read_only=True,
    )


def complete(table: pa.Table, shard: Shard) -> pa.Table:
    """A foreign metadata table with `id`, `key` and `has_caption` put in front.

    The key is the row's own `key`, else its image_path, else its url, else file#row.
    """
    n = shard.rows
    name = Path(
        next(iter(shard.files[r].path for r in ("metadata", "img_emb", "text_emb") if r in shard.files), "")
    ).name
    keys: list[Any] = [None] * n
    for column in ("key", "image_path", "url"):
        if column in table.column_names:
            values = table[column].to_pylist()
            keys = [k if k is not None else v for k, v in zip(keys, values, strict=True)]
    captions = table["caption"].to_pylist() if "caption" in table.column_names else [None] * n
    made = {
        "id": pa.array(np.arange(shard.first_id, shard.first_id + n, dtype=np.int64)),
        "key": pa.array([f"{name}#{row}" if k is None else str(k) for row, k in enumerate(keys)], pa.string()),
        "has_caption": pa.array([isinstance(c, str) and bool(c.strip()) for c in captions], pa.bool_()),
    }
    kept = {c: table[c] for c in table.column_names if c not in made}
    return pa.table(made | kept)


def _parts(folder: Path, kind: str) -> dict[str, Path]:
    """P -> file, for the files of one kind."""
    pattern = re.compile(rf"{kind}_(\d+){re.escape(_KINDS[kind])}")
    matches = ((pattern.fullmatch(path.name), path) for path in (folder / kind).glob("*"))
    return {match[1]: path for match, path in matches if match}


def _map(path: Path) -> Any:
    try:
        array = map_array(path)
    except UNREADABLE as error:
        raise CollectionDamaged(f"{path} is not a readable .npy file ({error}); write it again.") from error
    if not array.dtype.isnative:
        raise CollectionDamaged(f"{path} holds {array.dtype}, in the other order of bytes; write it again in this one.")
    if array.ndim != 2:
        raise CollectionDamaged(f"{path} has shape {array.shape}; it must be (rows, dimensions).")
    return array


def _parquet_rows(path: Path) -> int:
    try:
        return count_parquet_rows(path)
    except FAULTS as error:
        raise CollectionDamaged(f"{path} is not readable Parquet ({error}); write it again.") from error
