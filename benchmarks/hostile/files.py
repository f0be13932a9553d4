"""Files: outputs that are addresses, photos that moved, what is passed over, names of any bytes, sizes of shards."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.hostile.attack import Attacks
from benchmarks.hostile.lab import Lab, clipsieve, exported, jpeg, require, rows, skipped

ATTACKS = Attacks()


@ATTACKS.add(
    1,
    {
        "inference to s3": ["inference", "IMAGES", "s3://bucket/x", "--model", "mini"],
        "inference to hf": ["inference", "IMAGES", "hf://datasets/a/b", "--model", "mini"],
        "inference in the peer's words": [
            "inference",
            "--input_dataset",
            "IMAGES",
            "--output_folder",
            "gs://b/x",
            "--clip_model",
            "mini",
        ],
        "add to s3": ["add", "s3://bucket/x", "IMAGES"],
        "index to s3": ["index", "--embeddings_folder", "DEMO", "--index_folder", "s3://bucket/i"],
        "filter to s3": ["filter", "DEMO", "red", "-k", "2", "--out", "s3://bucket/out"],
        "filter of tars to https": [
            "filter",
            "DEMO",
            "red",
            "-k",
            "2",
            "--as",
            "webdataset",
            "--out",
            "https://x.org/out",
        ],
        "search to gs": ["search", "DEMO", "red", "--out", "gs://bucket/hits.csv"],
        "label to memory": ["label", "DEMO", "--set", "SET", "--out", "memory://l.parquet"],
        "export to s3": ["export", "DEMO", "--clip-retrieval", "s3://bucket/x"],
        "import to s3": ["import", "VECTORS", "s3://bucket/x"],
        "demo to s3": ["demo", "--out", "s3://bucket/demo", "--count", "24"],
        "state in s3": ["search", "DEMO", "red", "--state", "s3://bucket/state"],
    },
)
def output_is_an_address(lab: Lab, folder: Path, words: list[str]) -> str:
    (folder / "set.json").write_text(json.dumps({"classes": [{"name": "a", "positive": ["red"]}]}))
    np.save(folder / "v.npy", np.eye(3, dtype=np.float32))
    known: dict[str, Any] = {"IMAGES": lab.images, "DEMO": lab.demo, "SET": "set.json", "VECTORS": "v.npy"}
    before = {path.name for path in folder.iterdir()}
    done = clipsieve(*(known.get(word, word) for word in words), cwd=folder)
    made = {path.name for path in folder.iterdir()} - before
    require(not made, f"it makes {', '.join(sorted(made))} here, exit code {done.code}")
    return done.refused("://")


@ATTACKS.add(2, {"renamed": "new", "into a subfolder": "old/deeper/x"})
def moved_photos_are_followed(lab: Lab, folder: Path, to: str) -> str:
    _moved(folder, to)
    done = clipsieve("add", "c.clip", folder / to.split("/")[0], "--json", cwd=folder)
    require(done.code == 0, f"add: {done.err[-200:]}")
    found = rows(folder / "c.clip")
    require([row["id"] for row in found] == [0, 1, 2], f"the ids are {[row['id'] for row in found]}")
    out = clipsieve("filter", "c.clip", "red", "-k", 3, "--out", "out", cwd=folder)
    require(out.code == 0 and len(_images(folder / "out")) == 3, f"filter: {out.code} {out.said[-200:]}")
    return out.said


@ATTACKS.add(2, {"copies": "copy", "links": "link", "tars": "webdataset"})
def an_export_of_photos_that_are_gone(lab: Lab, folder: Path, kind: str) -> str:
    _moved(folder, "new")
    done = clipsieve("filter", "c.clip", "red", "-k", 3, "--out", "out", "--as", kind, cwd=folder)
    require(done.code == 1, f"exit code {done.code}: {done.said[-200:]}")
    require("Traceback" not in done.err and done.err.strip(), f"it says: {done.err[-200:]}")
    return done.err


@ATTACKS.add(2, {"add": "add", "watch": "watch"})
def photos_that_were_removed_as_missing_come_back(lab: Lab, folder: Path, command: str) -> str:
    _moved(folder, "new")
    first = clipsieve("remove", "c.clip", "--missing", cwd=folder)
    if first.code:  # the guard against an unplugged disk: its advice is followed, where it names a command
        require("id >= 0" not in first.err, f"it advises what bars the photos for good: {first.err[-200:]}")
    words = ["add", "c.clip", "new"] if command == "add" else ["watch", "c.clip", "new", "--once"]
    clipsieve(*words, cwd=folder)
    out = clipsieve("filter", "c.clip", "red", "-k", 3, "--out", "out", cwd=folder)
    require(len(_images(folder / "out")) == 3, f"{out.code} {out.said[-200:]}")
    return out.said


@ATTACKS.add(2, {"by ids": ["--ids", "1"], "the last": ["--last"]})
def a_removal_is_undone(lab: Lab, folder: Path, words: list[str]) -> str:
    _photos(folder / "old")
    clipsieve("inference", "old", "c.clip", "--model", "mini", cwd=folder)
    clipsieve("remove", "c.clip", "--ids", "1", cwd=folder)
    done = clipsieve("restore", "c.clip", *words, cwd=folder)
    require(done.code == 0, f"exit code {done.code}: {done.err[-200:]}")
    hits = clipsieve("search", "c.clip", "red", "--json", cwd=folder).json["hits"]
    require({hit["id"] for hit in hits} == {"0", "1", "2"}, f"then there are {[hit['id'] for hit in hits]}")
    return done.said


Make = Callable[[Path], object]


def _tar(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as made:
        for name in names:
            (path.parent / name).write_bytes(jpeg("blue"))
            made.add(path.parent / name, name)
            (path.parent / name).unlink()


def _link_in_tar(path: Path) -> None:
    with tarfile.open(path, "w") as made:
        link = tarfile.TarInfo("linked.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "a.jpg"
        made.addfile(link)


def _table(path: Path, **columns: Any) -> None:
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


READ: dict[str, tuple[Make, int]] = {
    "no suffix": (lambda f: (f / "noext").write_bytes(jpeg("blue")), 2),
    "MPO": (lambda f: (f / "b.mpo").write_bytes(jpeg("blue", kind="MPO", save_all=True)), 2),
    "AVIF": (lambda f: (f / "b.avif").write_bytes(jpeg("blue", kind="AVIF")), 2),
    "another image's suffix": (lambda f: (f / "b.png").write_bytes(jpeg("blue")), 2),
    "a tar beside": (lambda f: _tar(f / "t.tar", "x.jpg"), 2),
    "a tar in a subfolder": (lambda f: _tar(f / "data" / "deep" / "t.tar", "x.jpg"), 2),
    "a Parquet with images beside": (lambda f: _table(f / "t.parquet", image=[jpeg("blue")]), 2),
    "a Parquet in a subfolder": (lambda f: _table(f / "data" / "t.parquet", image=[jpeg("blue")]), 2),
}
TOLD: dict[str, tuple[Make, str]] = {
    "HEIC that is none": (lambda f: (f / "b.HEIC").write_bytes(os.urandom(200)), "heic"),
    "SVG": (lambda f: (f / "b.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "svg"),
    "RAW": (lambda f: (f / "b.CR2").write_bytes(b"II*\0" + os.urandom(200)), "cr2"),
    "an image under a text's suffix": (lambda f: (f / "b.txt").write_bytes(jpeg("blue")), "txt"),
    "a pipe called a tar": (lambda f: os.mkfifo(f / "t.tar"), "pipe"),
    "a pipe called a table": (lambda f: os.mkfifo(f / "t.parquet"), "table"),
    "a link in a tar": (lambda f: _link_in_tar(f / "t.tar"), "link"),
    "a table of URLs beside": (lambda f: _table(f / "t.parquet", url=["http://127.0.0.1/x.jpg"]), "table"),
    "img2dataset's table": (
        lambda f: _table(f / "00000.parquet", key=["a"], url=["http://x/y"], status=["success"]),
        "table",
    ),
}


@ATTACKS.add(3, READ)
def images_are_read_whatever_lies_beside(lab: Lab, folder: Path, given: tuple[Make, int]) -> str:
    done = _mixed(folder, given[0])
    require(
        done["embedded"] == given[1], f"{done['embedded']} of {given[1]} images embedded, {done['skipped']} skipped"
    )
    return f"{done['embedded']} embedded"


@ATTACKS.add(3, TOLD)
def what_is_not_read_is_told(lab: Lab, folder: Path, given: tuple[Make, str]) -> str:
    done = _mixed(folder, given[0])
    listed = [f"{row['key']} {row['reason']}" for row in skipped(folder / "c.clip")]
    require(done["embedded"] == 1, f"{done['embedded']} embedded, {listed}")
    said = json.dumps({k: v for k, v in done.items() if k not in ("folder",)}).lower()
    require(given[1] in said, f"--json says nothing of it: {said}")
    require(listed or given[1] == "txt", "skipped/ does not list it")  # a text may lie beside images: it is counted
    return said


def _mixed(folder: Path, make: Make) -> dict[str, Any]:
    (folder / "p").mkdir()
    (folder / "p" / "a.jpg").write_bytes(jpeg())
    make(folder / "p")
    return clipsieve("inference", "p", "c.clip", "--model", "mini", "--json", cwd=folder).json


NOTHING: dict[str, Make] = {
    "an empty folder": lambda f: None,
    "texts alone": lambda f: (f / "a.txt").write_text("a bus"),
    "all damaged": lambda f: (f / "a.jpg").write_bytes(b"\xff\xd8 cut short"),
    "an empty file": lambda f: (f / "a.jpg").write_bytes(b""),
    "an empty tar": lambda f: _tar(f / "a.tar"),
    "a table without rows": lambda f: _table(f / "a.parquet", image=np.array([], "S1").tolist()),
}


@ATTACKS.add(3, NOTHING)
def no_image_at_all(lab: Lab, folder: Path, make: Make) -> str:
    (folder / "p").mkdir()
    make(folder / "p")
    return clipsieve("inference", "p", "c.clip", "--model", "mini", cwd=folder).refused()


@ATTACKS.add(3, {"the demo": "."})
def a_collection_as_input(lab: Lab, folder: Path, _: str) -> str:
    return clipsieve("inference", lab.demo, "c.clip", "--model", "mini", cwd=folder).refused("collection")


@ATTACKS.add(3, {"the commonest": "empty"})
def reasons_of_skips_are_listed(lab: Lab, folder: Path, word: str) -> str:
    (folder / "p").mkdir()
    for name, data in {"a.jpg": jpeg(), "b.jpg": b"", "c.jpg": b"", "d.jpg": b"x"}.items():
        (folder / "p" / name).write_bytes(data)
    done = clipsieve("inference", "p", "c.clip", "--model", "mini", cwd=folder)
    require(word in done.said, f"the summary does not say why: {done.said[-200:]}")
    listed = clipsieve("info", "c.clip", "--skipped", cwd=folder)
    require(listed.code == 0 and "b.jpg" in listed.out, f"info --skipped: {listed.said[-200:]}")
    return listed.out


LATIN, JAPANESE = b"caf\xe9.jpg", b"\x93\xfa\x96{.jpg"


@ATTACKS.add(9, {"Latin-1": LATIN, "Shift-JIS": JAPANESE, "in a folder": b"d\xff/x.jpg", "a backslash": b"a\\xe9.jpg"})
def a_name_of_any_bytes_is_exported(lab: Lab, folder: Path, name: bytes) -> str:
    data = _named(folder, name)
    done = clipsieve("filter", "c.clip", "red", "-k", 1, "--out", "out", cwd=folder)
    found = [path.read_bytes() for path in _images(folder / "out")]
    require(done.code == 0 and found == [data], f"{done.code}, {len(found)} exported: {done.said[-200:]}")
    return done.said


@ATTACKS.add(9, {"Latin-1": LATIN, "Shift-JIS": JAPANESE})
def a_name_of_any_bytes_is_asked_with(lab: Lab, folder: Path, name: bytes) -> str:
    _named(folder, name)
    path = "p/" + os.fsdecode(name)
    hits = clipsieve("search", "c.clip", "--image", path, "-k", 1, "--json", cwd=folder)
    require(hits.code == 0 and hits.json["hits"], f"{hits.code} {hits.said[-200:]}")
    key = hits.json["hits"][0]["key"]
    require("\\x" in key, f"its key is {key!r}")
    again = clipsieve("search", "c.clip", "--image", f"p/{key}", "-k", 1, "--json", cwd=folder)
    require(again.code == 0, f"--image does not read {key!r} back: {again.said[-200:]}")
    return str(key)


@ATTACKS.add(10, {"a batch of 256": "256", "a batch of 4": "4", "a batch of 7": "7"})
def a_shard_is_not_larger_than_asked(lab: Lab, folder: Path, batch: str) -> str:
    words = ["--model", "mini", "--shard-size", "5", "--batch-size", batch]
    clipsieve("inference", lab.images, "c.clip", *words, cwd=folder)
    return _largest(folder / "c.clip", 5)


@ATTACKS.add(10, {"in the peer's words": "--write_batch_size"})
def nor_when_clip_retrieval_asks(lab: Lab, folder: Path, option: str) -> str:
    words = ["--input_dataset", lab.images, "--output_folder", "c.clip", "--clip_model", "mini", option, "5"]
    done = clipsieve("inference", *words, cwd=folder)
    require(done.code == 0, done.said)
    return _largest(folder / "c.clip", 5)


@ATTACKS.add(10, {"import": "import", "add": "add"})
def nor_by_other_commands(lab: Lab, folder: Path, command: str) -> str:
    if command == "import":
        np.save(folder / "v.npy", np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32))
        clipsieve("import", "v.npy", "c.clip", "--shard-size", "5", cwd=folder)
    else:
        _photos(folder / "first")
        clipsieve("inference", "first", "c.clip", "--model", "mini", cwd=folder)
        clipsieve("add", "c.clip", lab.images, "--shard-size", "5", cwd=folder)
    return _largest(folder / "c.clip", 5)


def _largest(collection: Path, most: int) -> str:
    sizes = [len(np.load(path, mmap_mode="r")) for path in sorted((collection / "img_emb").glob("*.npy"))]
    require(sizes and max(sizes) <= most, f"shards of {sizes} rows")
    return f"shards of {sizes} rows"


def _photos(folder: Path) -> None:
    folder.mkdir(parents=True)
    for color in ("red", "green", "blue"):
        (folder / f"{color}.jpg").write_bytes(jpeg(color))


def _moved(folder: Path, to: str) -> None:
    _photos(folder / "old")
    done = clipsieve("inference", "old", "c.clip", "--model", "mini", cwd=folder)
    require(done.code == 0, done.said)
    (folder / "aside").mkdir()
    shutil.move(folder / "old", folder / "aside" / "x")
    (folder / to).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder / "aside" / "x", folder / to)


def _named(folder: Path, name: bytes) -> bytes:
    path = folder / "p" / os.fsdecode(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(jpeg())
    done = clipsieve("inference", "p", "c.clip", "--model", "mini", cwd=folder)
    require(done.code == 0, done.said)
    return path.read_bytes()


def _images(folder: Path) -> list[Path]:
    return [path for path in exported(folder) if path.suffix in (".jpg", ".tar")]
