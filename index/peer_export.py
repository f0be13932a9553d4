"""A collection as a folder that clip-retrieval opens: dense rows, metadata, faiss indices, `indices_paths.json`.

img_emb/, text_emb/      float16, what its `index` reads
metadata/                Parquet, row k for vector k; removed items are left out of all of them
image.index, text.index  by inner product, as its `back` reads them: exact ones, whatever index the collection has
indices_paths.json       for its `back`
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve import shards
from clipsieve.durable import write_file
from clipsieve.errors import InputError
from clipsieve.index import cache, faiss_index
from clipsieve.index.opened import Opened
from clipsieve.output_path import require_path
from clipsieve.types import Int64
from clipsieve.writer import write_array

ROWS = 100_000
"""Rows in a part, whose vectors are in memory at a time."""

Progress = Callable[[int, int | None], None]


def export_peer(folder: Path, out: Path, progress: Progress | None = None) -> int:
    """Write the collection for clip-retrieval into `out`, a new or empty folder; the rows written.

    Captions are exported where every item has a vector of one: clip-retrieval knows no item without.

    InputError if `out` holds something; nothing is there until everything is.
    """
    unfinished = _begin(out)
    opened = Opened.of(folder)
    try:
        faiss = faiss_index.load_faiss()
        rows = opened.rows("image")
        names = {"image": "img_emb"}
        if "text" in opened.modalities and opened.rows("text").count == rows.count:
            names["text"] = "text_emb"
        indices = {name: faiss.IndexFlatIP(rows.dim) for name in names}
        done = 0
        for role in ("metadata", *names.values()):
            (unfinished / role).mkdir(parents=True)
        for part, (ids, table) in enumerate(_parts(opened)):
            for name, role in names.items():
                vectors = opened.rows(name).take(ids)
                with (unfinished / role / f"{role}_{part:06d}.npy").open("wb") as file:
                    write_array(file, vectors.astype(np.float16))
                indices[name].add(vectors)
            pq.write_table(table, unfinished / "metadata" / f"metadata_{part:06d}.parquet", compression="zstd")
            done += len(ids)
            if progress is not None:
                progress(done, opened.count)
        for name, index in indices.items():
            with (unfinished / f"{name}.index").open("wb") as file:
                faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    finally:
        opened.close()
    paths = json.dumps({folder.resolve().name: str(out.resolve())}, indent=1)
    write_file(unfinished / "indices_paths.json", lambda file: file.write(paths.encode()))
    _finish(unfinished, out)
    return done


def export_arrow(folder: Path, out: Path, progress: Progress | None = None) -> int:
    """Write the live items' metadata into `out`, a new or empty folder, as Arrow files 0000.arrow, ...; the rows."""
    unfinished = _begin(out)
    opened = Opened.of(folder)
    done = 0
    try:
        tables = [(shard, _schema(opened, shard.number)) for shard in opened.manifest.shards if shard.rows]
        schema = pa.unify_schemas([s for _, s in tables], promote_options="permissive")
        for part, (ids, table) in enumerate(_parts(opened)):
            missing = {f.name: pa.nulls(len(ids), f.type) for f in schema if f.name not in table.column_names}
            for name, nulls in missing.items():
                table = table.append_column(name, nulls)
            whole = table.select(schema.names).cast(schema)
            with pa.ipc.new_file(str(unfinished / f"{part:06d}.arrow"), schema) as file:
                file.write_table(whole)
            done += len(ids)
            if progress is not None:
                progress(done, opened.count)
    finally:
        opened.close()
    _finish(unfinished, out)
    return done


def _parts(opened: Opened) -> Iterator[tuple[Int64, pa.Table]]:
    """Live ids and their metadata, in the order of ids."""
    for shard in sorted((s for s in opened.manifest.shards if s.rows), key=lambda s: s.first_id):
        ids = shards.read_ids(opened.folder, shard)
        live = np.flatnonzero(~np.isin(ids, opened.removed))
        table = cache.read_table(opened.folder, shard, None)
        for at in range(0, len(live), ROWS):
            rows = live[at : at + ROWS]
            yield ids[rows], table.take(pa.array(rows))


def _schema(opened: Opened, number: int) -> pa.Schema:
    shard = next(s for s in opened.manifest.shards if s.number == number)
    return cache.read_table(opened.folder, shard, None).schema.remove_metadata()


def _begin(out: Path) -> Path:
    require_path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty; name a new folder to export into.")
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    return unfinished


def _finish(unfinished: Path, out: Path) -> None:
    if out.exists():
        out.rmdir()
    unfinished.replace(out)
