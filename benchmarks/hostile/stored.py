"""Folders of others that read this machine's files, Arrow that ends the process, and files spoilt while served."""

from __future__ import annotations

import functools
import io
import json
import os
import sqlite3
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.hostile.attack import Attacks
from benchmarks.hostile.lab import Lab, clipsieve, exported, jpeg, require

ATTACKS = Attacks()
SECRET = b"the secret of the house"

PATHS: dict[str, str] = {
    "/etc/passwd": "/etc/passwd",
    "a process's variables": "/proc/self/environ",
    "a file beside the folder": "../secret.txt",
    "a picture beside the folder": "../secret.jpg",
    "a link out of the folder": "link.jpg",
    "a loopback address": "http://127.0.0.1:{port}/metrics",
    "a file address": "file:///etc/passwd",
    "a device": "/dev/zero",
}


def serve(base: Path) -> Mapping[str, Path]:
    """Folders of clip-retrieval whose images lie where they should not."""
    top = base / "foreign"
    top.mkdir()
    (top / "secret.txt").write_bytes(SECRET)
    (top / "secret.jpg").write_bytes(jpeg("green", (50, 50)))
    folder = top / "theirs"
    vectors = np.eye(len(PATHS), 256, dtype=np.float32)
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", vectors.astype(np.float16))
    (folder / "link.jpg").symlink_to(top / "secret.jpg")
    paths = [path.replace("{port}", "9") for path in PATHS.values()]
    pq.write_table(
        pa.table({"image_path": paths, "caption": ["x"] * len(paths)}), folder / "metadata" / "metadata_0.parquet"
    )
    return {"theirs": folder}


@ATTACKS.add(13, {name: i for i, name in enumerate(PATHS)})
def a_foreign_path_as_a_picture(lab: Lab, folder: Path, id: int) -> str:
    answer = lab.service.ask(f"/api/v1/items/{id}/image?collection=theirs")
    require(answer.status != 200, f"200 with {len(answer.body)} bytes")
    require(b"root:" not in answer.body and SECRET not in answer.body, f"{answer.body[:100]!r}")
    return answer.refused()


@ATTACKS.add(13, {"copies": "copy", "tars": "webdataset", "Parquet": "datasets", "links": "link"})
def foreign_paths_in_an_export(lab: Lab, folder: Path, kind: str) -> str:
    theirs = serve(folder)["theirs"]
    words = ["filter", theirs, "red", "-k", "20", "--threshold", "-1", "--as", kind, "--out", "out", "--model", "mini"]
    done = clipsieve(*words, cwd=folder)
    data = b"".join(path.read_bytes() for path in exported(folder / "out") if not path.is_symlink())
    linked = (
        [str(path.readlink()) for path in (folder / "out").rglob("*") if path.is_symlink()]
        if (folder / "out").exists()
        else []
    )
    bad = [what for what in (b"root:", SECRET, b"PATH=", jpeg("green", (50, 50))) if what in data]
    require(not bad and not linked, f"exit code {done.code}; written: {[b[:20] for b in bad]}, links {linked}")
    require(done.code is not None and "Traceback" not in done.err, f"{done.code}: {done.err[-200:]}")
    return done.said


def _patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


def _ipc(new: Any, table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


OFFSETS = struct.pack("<iiii", 0, 777, 1554, 2331)
BROKEN = {"far": struct.pack("<iiii", 0, 777, 1554, 2**30), "negative": struct.pack("<iiii", 0, -777, -2**31, 2331),
          "huge": struct.pack("<iiii", 0, 777, 2**31 - 1, 2**31 - 1)}  # fmt: skip


def _arrow(broken: bytes, new: Any = pa.ipc.new_file) -> bytes:
    vectors = pa.array([[1.0, 0.0]] * 3, pa.list_(pa.float32()))
    return _patched(_ipc(new, pa.table({"caption": ["x" * 777] * 3, "vector": vectors})), OFFSETS, broken)


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    **{f"Arrow, {name}": ("t.arrow", functools.partial(_arrow, broken)) for name, broken in BROKEN.items()},
    "an Arrow stream": ("t.arrow", lambda: _arrow(BROKEN["far"], pa.ipc.new_stream)),
    "Arrow cut short": ("t.arrow", lambda: _arrow(OFFSETS)[:-300]),
    "npy of more rows": ("t.npy", lambda: _patched(_npy(), b"(3, 4)", b"(9, 4)")),
    "npy of objects": ("t.npy", lambda: _patched(_npy(), b"'<f4'", b"'|O' ")),
    "npy of a broken head": ("t.npy", lambda: _patched(_npy(), b"'<f4'", b"\0<f4(")),
    "Parquet of a broken page": ("t.parquet", lambda: _parquet()),
}


@ATTACKS.add(14, FILES)
def a_broken_file_is_imported(lab: Lab, folder: Path, given: tuple[str, Callable[[], bytes]]) -> str:
    name, make = given
    (folder / name).write_bytes(make())
    return clipsieve("import", name, "c.clip", cwd=folder).refused()


@ATTACKS.add(14, BROKEN)
def broken_arrow_beside_an_index(lab: Lab, folder: Path, broken: bytes) -> str:
    import faiss

    rows = np.eye(3, 256, dtype=np.float32)
    index = faiss.IndexFlatIP(256)
    index.add(rows)
    (folder / "peer" / "metadata").mkdir(parents=True)
    faiss.write_index(index, str(folder / "peer" / "image.index"))
    (folder / "peer" / "metadata" / "0.arrow").write_bytes(_arrow(broken))
    return clipsieve("search", "peer", "red", "--model", "mini", "--json", cwd=folder).refused()


def _npy() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.ones((3, 4), np.float32))
    return sink.getvalue()


def _parquet() -> bytes:
    sink = io.BytesIO()
    vectors = pa.array([[1.0, 0.0]] * 300, pa.list_(pa.float32()))
    pq.write_table(pa.table({"caption": [f"x{i}" for i in range(300)], "vector": vectors}), sink, use_dictionary=False)
    data = bytearray(sink.getvalue())
    data[40:400] = b"\xff" * 360
    return bytes(data)


@ATTACKS.add(15, {"other bytes": "overwritten", "cut short": "truncated", "metadata": "metadata"})
def files_changed_in_place_while_served(lab: Lab, folder: Path, name: str) -> str:
    collection = lab.service.folder / name
    require(lab.service.search(name).status == 200, "it is not served")
    role = "metadata" if name == "metadata" else "img_emb"
    (path,) = (collection / role).iterdir()
    size = path.stat().st_size
    with path.open("r+b") as file:
        if name == "truncated":
            file.truncate(size // 2)
        else:
            file.seek(size // 2)
            file.write(os.urandom(size // 2))
    question = {"text": "blue", "modality": "image", "num_images": 3, "indice_name": name}
    answers = [lab.service.search(name), lab.service.ask("/knn-service", question)]
    for answer in answers:
        require(answer.status not in (0, 200), f"{answer.status}: {answer.body[:150]!r}")
    return answers[0].refused()


def _drop(path: Path, tables: int | None) -> None:
    with sqlite3.connect(path) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in names if tables is None else names[-tables:]:
            connection.execute(f'DROP TABLE "{table}"')


@ATTACKS.add(16, {"emptied": "emptied", "without tables": "dropped", "without its last table": "half-dropped"})
def the_cache_is_spoilt_in_place(lab: Lab, folder: Path, name: str) -> str:
    require(lab.service.search(name, where="id >= 0").status == 200, "it is not served")
    path = lab.service.folder / name / "cache.sqlite"
    if name == "emptied":
        os.truncate(path, 0)
    else:
        _drop(path, None if name == "dropped" else 1)
    for answer in (
        lab.service.search(name, where="id >= 0"),
        lab.service.ask("/metadata", {"ids": [0], "indice_name": name}),
        lab.service.ask(f"/api/v1/items/0?collection={name}"),
    ):
        require(answer.status == 200, f"{answer.status}: {answer.body[:150]!r}")
    return json.dumps(lab.service.search(name).json)[:100]
