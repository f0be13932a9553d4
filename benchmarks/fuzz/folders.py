"""Collections: their manifest, their shards, and the folders of clip-retrieval."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipsieve import shards as stored
from clipsieve.durable import append_line
from clipsieve.errors import ClipsieveError
from clipsieve.index.collection import Collection, open_collection
from clipsieve.index.metadata import NAME as CACHE
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.manifest import NAME, Manifest, commit, read_manifest
from clipsieve.types import Embeddings, MetaClass, Skipped
from clipsieve.whole import describe_file
from clipsieve.writer import open_writer

Read = Callable[[bytes], object]

FAKE = FakeEmbedder(8)
ROLES = ("img_emb", "text_emb", "metadata", "thumbs", "skipped", "removed")
KINDS = ("img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy", "metadata/metadata_0.parquet")


def manifest(folder: Path) -> Read:
    """A collection under another manifest, whose checksum is right."""
    made = make_collection(folder / "c")
    before = (made / NAME).read_bytes()

    def read(data: bytes) -> object:
        (made / CACHE).unlink(missing_ok=True)
        (made / NAME).write_bytes(_signed(data))
        try:
            return _asked(made)
        finally:
            (made / NAME).write_bytes(before)

    return read


def manifest_seeds() -> list[bytes]:
    """That of the collection."""
    return [_made(NAME)]


def shards(folder: Path) -> Read:
    """A collection with another file in the role that the input's first line names, which its manifest knows."""
    made = make_collection(folder / "c")
    whole = read_manifest(made)
    (shard,) = whole.shards

    def read(data: bytes) -> object:
        line, _, rest = data.partition(b"\n")
        role = line.decode("latin-1") if line.decode("latin-1") in ROLES else "metadata"
        path = made / (stored.REMOVED if role == "removed" else shard.files[role].path)
        before = path.read_bytes()
        path.write_bytes(rest)
        entry = describe_file(made, path)
        changed = dataclasses.replace(shard, files={**shard.files, role: entry})
        new = (
            dataclasses.replace(whole, removed=entry)
            if role == "removed"
            else dataclasses.replace(whole, shards=(changed,))
        )
        (made / CACHE).unlink(missing_ok=True)
        commit(made, new)
        try:
            return _asked(made)
        finally:
            path.write_bytes(before)

    return read


def shard_seeds() -> list[bytes]:
    """The collection's own files."""
    paths = {role: f"{role}/{role}_000000{stored.ROLES[role]}" for role in ROLES if role in stored.ROLES}
    paths["removed"] = stored.REMOVED
    return [role.encode() + b"\n" + _made(path) for role, path in paths.items()]


def foreign(folder: Path) -> Read:
    """A folder of clip-retrieval with another file of the kind that the input's first line names."""
    top = folder / "peer"

    def read(data: bytes) -> object:
        line, _, rest = data.partition(b"\n")
        name = line.decode("latin-1") if line.decode("latin-1") in KINDS else KINDS[0]
        shutil.rmtree(top, ignore_errors=True)
        for kind, whole in _peer().items():
            (top / kind).parent.mkdir(parents=True)
            (top / kind).write_bytes(rest if kind == name else whole)
        return _asked(top)

    return read


def foreign_seeds() -> list[bytes]:
    """The folder's files, of vectors as they are written by all versions."""
    return [kind.encode() + b"\n" + data for kind, data in _peer().items()]


def _peer() -> dict[str, bytes]:
    sink = io.BytesIO()
    np.save(sink, FAKE.embed_texts(["a", "b", "c"]).astype(np.float16))
    table = io.BytesIO()
    columns = {"image_path": ["a.jpg", "b.jpg", "c.jpg"], "caption": ["x", None, "z"], "n": [1, 2, None]}
    pq.write_table(pa.table(columns), table)
    return dict(zip(KINDS, (sink.getvalue(), sink.getvalue(), table.getvalue()), strict=True))


def _asked(folder: Path) -> object:
    """All that a collection says of itself, or why nothing."""
    with open_collection(folder, embedder=FAKE) as collection:
        return [_tried(ask, collection) for ask in _QUESTIONS]


def _tried(ask: Callable[[Collection], object], collection: Collection) -> object:
    try:
        return ask(collection)
    except ClipsieveError as error:
        return f"{type(error).__name__}: {error}"


_QUESTIONS: tuple[Callable[[Collection], object], ...] = (
    lambda c: c.search(MetaClass("a", ["a"], ["b"]), k=5).hits,
    lambda c: c.search(MetaClass("a", ["a"]), k=5, modality="text").hits,
    lambda c: [c.items([id]) for id in c.select("id >= 0").tolist()[:10]],
    lambda c: c.select("caption like '%a%' or n > 1").tolist(),
    lambda c: [c.thumbnail(id) for id in range(3)],
    lambda c: c.vectors([0, 1]).tolist(),
    lambda c: sorted(c.info()),
    lambda c: [stored.read_skipped(c.folder, shard) for shard in c.manifest.shards],
)


def make_collection(folder: Path) -> Path:
    """Four items with captions, numbers and small images; one removed, one skipped. The same bytes each time."""
    sink = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(sink, "PNG")
    keys, captions = ("a.jpg", "b.jpg", "c.jpg", "d.jpg"), ["a bus", None, "a cat", "x"]
    with open_writer(folder, Manifest(FAKE.model, FAKE.dim)) as writer:
        texts = Embeddings(FAKE.embed_texts([caption or "" for caption in captions]), keys, FAKE.model)
        writer.append(
            Embeddings(FAKE.embed_texts(keys), keys, FAKE.model),
            texts=texts,
            captions=captions,
            columns={"n": [1, 2, None, 4], "tags": [["x"], [], None, ["y", "z"]]},
            thumbs=[sink.getvalue(), None, sink.getvalue(), sink.getvalue()],
            skipped=[Skipped("e.jpg", "It is empty.")],
        )
    path = folder / stored.REMOVED  # by hand, since `remove` writes down the time
    append_line(path, {"ids": [3], "since": "2026-01-01T00:00:00+00:00", "gone": False}, 0)
    commit(folder, dataclasses.replace(read_manifest(folder), removed=describe_file(folder, path)))
    return folder


def _made(path: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return (make_collection(Path(folder) / "c") / path).read_bytes()


def _signed(data: bytes) -> bytes:
    """The JSON with the checksum that its values have."""
    try:
        value = json.loads(data)
        value.pop("checksum", None)
        text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        return json.dumps({**value, "checksum": hashlib.sha256(text).hexdigest()}).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return data
