"""Paths and keys of metadata that others wrote open nothing but images below the folders that they are allowed."""

import http.server
import os
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.errors import InputError, NotFound
from clipsieve.image_memory import ImageMemory
from clipsieve.importing import import_vectors
from clipsieve.index.collection import open_collection
from clipsieve.index.compact import compact
from clipsieve.index.export import export
from clipsieve.index.image_places import ImageAccess, is_relative, open_place
from clipsieve.index.records import Record
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.manifest import File, commit, read_manifest
from clipsieve.types import content_hash
from clipsieve.vector_sources import NpySource
from tests.inference.pictures import jpeg, write_tree

SECRET = b"the secret of the house"


@pytest.fixture
def home(tmp_path):
    """A machine: `theirs` is a folder that somebody else made, `photos` the operator's, the rest nobody's business."""
    write_tree(tmp_path, {"photos/a.jpg": jpeg(1), "private/b.jpg": jpeg(2), "private/secret.txt": SECRET})
    return tmp_path


def theirs(home, *paths, **columns):
    """A folder of clip-retrieval's with these in its metadata."""
    folder = home / "theirs"
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    n = len(paths or next(iter(columns.values())))
    np.save(folder / "img_emb" / "img_emb_0.npy", np.eye(n, 8, dtype=np.float16))
    found = ({"image_path": [str(path) for path in paths]} if paths else {}) | columns
    pq.write_table(pa.table(found), folder / "metadata" / "metadata_0.parquet")
    return folder


def imported(home, *paths, **columns):
    """A collection made of vectors and a table of others."""
    found = ({"image_path": [str(path) for path in paths]} if paths else {}) | columns
    n = len(next(iter(found.values())))
    np.save(home / "photos" / "v.npy", np.eye(n, 8, dtype=np.float32))
    pq.write_table(pa.table(found), home / "photos" / "v.parquet")
    import_vectors(NpySource(home / "photos" / "v.npy", home / "photos" / "v.parquet"), home / "theirs")
    return home / "theirs"


def refused(folder, match=r"--images DIR", *images):
    """Every item of the folder is, as a picture and in exports of each kind."""
    with open_collection(folder, access=ImageAccess.of(images)) as collection:
        ids = range(collection.count)
        for id in ids:
            with pytest.raises(NotFound, match=match):
                collection.image_bytes(id)
        records = [Record(id, key, {}) for id, key in zip(ids, collection.keys(ids), strict=True)]
        for kind in ("copy", "link", "tar"):
            out = folder.parent / "out" / kind
            done = export(records, out, kind, collection)
            assert (done.written, len(done.skipped)) == (0, len(records)), kind
            if out.is_dir():
                assert [path.name for path in out.iterdir()] in (["skipped.csv"], ["images.tar"])


@pytest.mark.parametrize("made", [theirs, imported])
def test_paths_of_others_lead_to_no_file_of_this_machine(home, made, monkeypatch):
    monkeypatch.chdir(home / "private")
    (home / "photos" / "link.jpg").symlink_to(home / "private" / "b.jpg")
    (home / "photos" / "links").symlink_to(home / "private")
    os.mkfifo(home / "photos" / "pipe.jpg")
    folder = made(
        home,
        *("/etc/passwd", "/proc/self/environ", "/proc/self/cwd/b.jpg", "/dev/zero", "/dev/stdin", "b.jpg"),
        *(home / "private" / "b.jpg", "../private/b.jpg", home / "photos" / "link.jpg", "links/b.jpg"),
        *(
            home / "photos" / "pipe.jpg",
            home / "photos" / ".." / "private" / "b.jpg",
            home / "photos",
            home / "photosX",
        ),
        *(
            f"file://{home}/private/b.jpg",
            f"simplecache::file://{home}/private/b.jpg",
            "a\0b.jpg",
            "x" * 5000,
            "~/b.jpg",
        ),
        *(r"\x2e\x2e/private/b.jpg", "..\\private\\b.jpg"),
    )
    refused(folder, r"--images DIR", home / "photos")


@pytest.mark.parametrize("made", [theirs, imported])
def test_what_the_operator_names_is_opened(home, made):
    if made is theirs:
        write_tree(home, {"theirs/own/c.jpg": jpeg(3)})
    paths = [home / "photos" / "a.jpg", "a.jpg", *(["own/c.jpg"] if made is theirs else [])]
    folder = made(home, *paths)
    with open_collection(folder) as collection, pytest.raises(NotFound, match="--images DIR"):
        collection.image_bytes(0)
    with open_collection(folder, access=ImageAccess.of([home / "photos"])) as collection:
        assert [collection.image_bytes(id) for id in (0, 1)] == [jpeg(1), jpeg(1)]
        assert collection.image_file(0) == home / "photos" / "a.jpg"
        if made is theirs:
            assert collection.image_bytes(2) == jpeg(3)
    with pytest.raises(InputError, match="--images"):
        ImageAccess.of([home / "nowhere"])


def test_what_is_no_image_is_not_given_out_whoever_allows_its_folder(home):
    folder = theirs(home, home / "private" / "secret.txt")
    with open_collection(folder, access=ImageAccess.of([home])) as collection:
        for read in (collection.image_bytes, collection.image_file):
            with pytest.raises(NotFound, match="no image"):
                read(0)
    cut = jpeg(1)[:300]  # its header alone would do for an image
    (home / "private" / "secret.txt").write_bytes(cut)
    with open_collection(folder, access=ImageAccess.of([home])) as collection, pytest.raises(NotFound, match="damaged"):
        collection.image_bytes(0)


def test_no_address_of_others_is_asked(home):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle(self):
            asked.append(self.client_address)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/a.jpg"
            refused(theirs(home, url, f"simplecache::{url}", url.replace("http", "HTTP"), f"blockcache::{url}"))
            assert not asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("made", [theirs, imported])
def test_keys_of_others_lead_nowhere(home, made):
    with tarfile.open(home / "private" / "a.tar", "w") as tar:
        tar.add(home / "private" / "b.jpg", "b.jpg")
    pq.write_table(pa.table({"image": [jpeg(2)]}), home / "private" / "t.parquet")
    private = home / "private"
    keys = ["../../etc/passwd", "etc/passwd", "/etc/passwd", f"{private}/b.jpg"[1:], "../private/b.jpg"]
    keys += [
        "../private/a.tar/b",
        f"{private}/a.tar/b",
        f"{private}/a.tar/b"[1:],
        f"{private}/t.parquet#0",
        "a.tar/../../x",
    ]
    refused(made(home, key=keys), r"--images DIR")


def test_what_was_read_is_found_again_after_compacting(home):
    with tarfile.open(home / "photos" / "t.tar", "w") as tar:
        for name in "bc":
            write_tree(home, {f"{name}.jpg": jpeg(ord(name))})
            tar.add(home / f"{name}.jpg", f"{name}.jpg")
    embed_collection(open_source(home / "photos"), FakeEmbedder(), home / "ours")
    with open_collection(home / "ours") as collection:
        before = {key: collection.image_bytes(id) for id, key in enumerate(collection.keys(range(3)))}
        collection.remove([2])
    compact(home / "ours")
    with open_collection(home / "ours") as collection:
        assert collection.manifest.shards[0].source is None
        for id, key in enumerate(collection.keys(range(2))):
            assert collection.image_bytes(id) == before[key]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "place", ["/etc/passwd", "/proc/self/environ", "/dev/zero", "pipe", "data", "file://data", "."]
)
def test_a_hostile_manifest_reads_nothing_but_images(home, place, known):
    """Its metadata passes for our own, right hash included."""
    embed_collection(open_source(home / "photos"), FakeEmbedder(), home / "ours")
    os.mkfifo(home / "pipe")
    (home / "data").write_bytes(SECRET)
    image_path = place if place.startswith("/") else f"file://{home}/data" if "://" in place else str(home / place)
    data = Path("/etc/passwd").read_bytes() if place == "/etc/passwd" else SECRET if "data" in place else b""
    manifest = read_manifest(home / "ours")
    (shard,) = manifest.shards
    path = home / "ours" / shard.files["metadata"].path
    table = pq.read_table(path)
    for name, value in (("image_path", image_path), ("content_hash", content_hash(data) if known else None)):
        table = table.set_column(table.column_names.index(name), name, pa.array([value], pa.string()))
    pq.write_table(table, path)
    file = File(shard.files["metadata"].path, path.stat().st_size, content_hash(path.read_bytes()))
    commit(home / "ours", replace(manifest, shards=(replace(shard, files={**shard.files, "metadata": file}),)))
    refused(home / "ours", "cannot be read")


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a/../../b", r"\x2e\x2e/a", r"a\..\b", "a\0b", r"\x2fa", "a.tar/../../x"]
)
def test_names_that_leave_their_folder(name):
    assert not is_relative(name)


@pytest.mark.parametrize("name", ["a.jpg", "a/b..c/d.jpg", "..a/b", "a b/ü.jpg"])
def test_names_that_stay(name):
    assert is_relative(name)


def test_opening_a_pipe_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        open_place(str(tmp_path / "pipe"))


def test_what_is_decoded_to_be_judged_is_reserved(home):
    folder = theirs(home, home / "photos" / "a.jpg")
    memory = ImageMemory(1000, wait_s=0)
    with (
        open_collection(folder, access=ImageAccess.of([home], memory)) as collection,
        pytest.raises(NotFound, match="--image-memory"),
    ):
        collection.image_bytes(0)
