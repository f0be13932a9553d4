import csv
import dataclasses
import io
import json
import math
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipsieve.errors import CollectionDamaged, InputError, NotFound
from clipsieve.index import zips
from clipsieve.index.collection import Collection, open_collection
from clipsieve.index.export import As, export
from clipsieve.index.records import Record, Tally, hit_records, label_records, safe_name, suffix_of
from clipsieve.index.zips import write_yolo
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.manifest import commit, read_manifest
from clipsieve.types import ClassSet, Example, Hit, MetaClass
from clipsieve.whole import describe_file

FAKE = FakeEmbedder(8)


def picture(number: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (number * 20 % 256, 90, 10)).save(file, kind)
    return file.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for number, name in enumerate(["a.png", "sub/b.png", "sub/deep/c.PNG", "d e.jpg", "é.png"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, "JPEG" if name.endswith("jpg") else "PNG"))
    (folder / "a.txt").write_text("a caption")
    return folder


def commit_as_it_is(folder: Path) -> None:
    """Have the manifest say of the thumbnails what they are now."""
    manifest = read_manifest(folder)
    (shard,) = manifest.shards
    file = describe_file(folder, folder / shard.files["thumbs"].path)
    commit(
        folder,
        dataclasses.replace(manifest, shards=(dataclasses.replace(shard, files={**shard.files, "thumbs": file}),)),
    )


def collect(source: Path | str, out: Path, **options: object) -> Collection:
    embed_collection(open_source(source), FAKE, out, workers=1, **options)
    return open_collection(out, embedder=FAKE)


@pytest.fixture
def photos(source: Path, tmp_path: Path) -> Iterator[Collection]:
    with collect(source, tmp_path / "c") as collection:
        yield collection


def records(collection: Collection) -> list[Record]:
    return list(hit_records(collection.filter(MetaClass("all", ["anything"], threshold=-1.0))))


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def test_copies_keep_their_paths_and_nothing_is_overwritten(photos: Collection, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export(records(photos), out, "copy", photos)
    assert (done.written, done.skipped) == (5, ())
    assert files(out) == {"a.png", "sub/b.png", "sub/deep/c.PNG", "d e.jpg", "é.png"}
    assert all((out / name).read_bytes() == (source / name).read_bytes() for name in files(out))
    assert export(records(photos), out, "copy", photos).written == 5  # again: they are there
    assert len(files(out)) == 5
    (out / "a.png").write_bytes(b"mine")
    export(records(photos), out, "copy", photos)
    assert (out / "a.png").read_bytes() == b"mine"
    assert len(files(out)) == 6


def test_a_lost_or_changed_original_is_listed(photos: Collection, source: Path, tmp_path: Path) -> None:
    (source / "a.png").unlink()
    (source / "é.png").write_bytes(picture(11))
    done = export(records(photos), tmp_path / "out", "copy", photos)
    assert done.written == 3
    reasons = {s.key: s.reason for s in done.skipped}
    assert "there is no" in reasons["a.png"]
    assert "changed" in reasons["é.png"]
    with (tmp_path / "out" / "skipped.csv").open(encoding="utf-8") as file:
        assert {row["key"]: row["reason"] for row in csv.DictReader(file)} == reasons


def test_links(photos: Collection, source: Path, tmp_path: Path) -> None:
    done = export(records(photos), tmp_path / "out", "link", photos)
    assert done.written == 5
    assert (tmp_path / "out" / "sub" / "b.png").readlink() == source / "sub" / "b.png"
    assert export(records(photos), tmp_path / "out", "link", photos).written == 5


def test_lists(photos: Collection, source: Path, tmp_path: Path) -> None:
    found = records(photos)
    export(found, tmp_path / "l.txt", "list", photos)
    assert (tmp_path / "l.txt").read_text().splitlines() == [str(source / r.key) for r in found]
    export(found, tmp_path / "folder", "list", photos)
    with (tmp_path / "folder" / "list.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [r.key for r in found]
    assert set(rows[0]) == {"id", "key", "image", "score", "margin", "positive", "negative"}
    export(found, tmp_path / "l.parquet", "list", photos, note="all")
    table = pq.read_table(tmp_path / "l.parquet")
    assert table["margin"].to_pylist() == [None] * 5
    assert table.schema.metadata[b"note"] == b"all"
    export(found, tmp_path / "l.jsonl", "list", photos)
    lines = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert [(line["id"], line["score"]) for line in lines] == [(str(r.id), r.found["score"]) for r in found]
    with pytest.raises(InputError, match="exists"):
        export(found, tmp_path / "l.txt", "list", photos)
    with pytest.raises(InputError, match=r"\.csv"):
        export(found, tmp_path / "l.doc", "list", photos)


def test_webdataset_comes_back(photos: Collection, tmp_path: Path) -> None:
    done = export(records(photos), tmp_path / "out", "webdataset", photos, note="all")
    assert done.written == 5
    with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
        names = tar.getnames()
        assert {n.rpartition(".")[2] for n in names} == {"png", "jpg", "json", "txt"}
        member = tar.extractfile(next(n for n in names if n.endswith(".json")))
        assert member is not None
        assert json.load(member)["note"] == "all"
    with collect(tmp_path / "out", tmp_path / "again") as again:
        assert again.count == 5
        assert again.items([0])[0]["caption"] == "a caption"
        assert again.image_bytes(0) == photos.image_bytes(0)  # found inside the tar
        (tmp_path / "out" / "000000.tar").unlink()
        with pytest.raises(NotFound, match=r"000000\.tar"):
            again.image_bytes(1)
    (tmp_path / "out" / "1.tar").touch()
    with pytest.raises(InputError, match="empty folder"):
        export(records(photos), tmp_path / "out", "webdataset", photos)


def test_one_tar_has_the_samples_of_many(photos: Collection, tmp_path: Path) -> None:
    assert export(records(photos), tmp_path / "one.tar", "tar", photos).written == 5
    export(records(photos), tmp_path / "out", "webdataset", photos)

    def members(path: Path) -> dict[str, bytes]:
        with tarfile.open(path) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}

    assert members(tmp_path / "one.tar") == members(tmp_path / "out" / "000000.tar")


def test_datasets_comes_back(photos: Collection, tmp_path: Path) -> None:
    done = export(records(photos), tmp_path / "out", "datasets", photos)
    assert done.written == 5
    schema = pq.read_schema(tmp_path / "out" / "train-00000.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert set(features) == set(schema.names)
    assert features["id"] == {"dtype": "int64", "_type": "Value"}
    with collect(tmp_path / "out", tmp_path / "again") as again:
        assert again.count == 5
        assert again.image_bytes(3) == photos.image_bytes(3)  # found in the table's row


def test_labels_as_folders_and_coco(photos: Collection, tmp_path: Path) -> None:
    classes = ClassSet([MetaClass("cat/dog", ["x"]), MetaClass("other", ["y"])])
    counts = photos.label(classes, tmp_path / "labels.parquet")
    found = list(label_records(tmp_path / "labels.parquet"))
    assert len(found) == 5
    export(found, tmp_path / "folders", "folders", photos)
    assert {p.name: sum(q.is_file() for q in p.rglob("*")) for p in (tmp_path / "folders").iterdir()} == {
        name.replace("/", "_"): n for name, n in counts.items() if name and n
    }
    export(found, tmp_path / "coco.json", "coco", photos, note="hash")
    coco = json.loads((tmp_path / "coco.json").read_text())
    names = {c["id"]: c["name"] for c in coco["categories"]}
    by_image = {a["image_id"]: names[a["category_id"]] for a in coco["annotations"]}
    assert by_image == {r.id: r.found["label"] for r in found}
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (6, 4)
    assert coco["annotations"][0]["bbox"] == [0, 0, 6, 4]


def labelled(collection: Collection) -> list[Record]:
    return [Record(r.id, r.key, {"label": None if r.id == 4 else f'"{r.id % 2}"'}) for r in records(collection)]


@pytest.mark.parametrize("kind", ["yolo", "yolo-images"])
def test_yolo(photos: Collection, source: Path, tmp_path: Path, kind: As) -> None:
    assert export(labelled(photos), tmp_path / "y.zip", kind, photos, note="asked\nso").written == 5
    with zipfile.ZipFile(tmp_path / "y.zip") as found:
        assert found.testzip() is None
        read = {name: found.read(name) for name in found.namelist()}
    numbers = {"a": 0, "d e": 1, "sub/b": 0, "sub/deep/c": 1}
    boxes = {f"labels/{name}.txt": f"{number} 0.5 0.5 1 1\n".encode() for name, number in numbers.items()}
    boxes["labels/é.txt"] = b""
    assert {name: data for name, data in read.items() if name.startswith("labels/")} == boxes
    images = {f"images/{name}": (source / name).read_bytes() for name in files(source) if name != "a.txt"}
    assert {n: d for n, d in read.items() if n.startswith("images/")} == (images if kind == "yolo-images" else {})
    described = '# asked so\npath: .\ntrain: images\nval: images\nnames:\n  0: "\\"0\\""\n  1: "\\"1\\""\n'
    assert read["data.yaml"].decode() == described


def test_no_two_images_of_a_zip_share_a_label(tmp_path: Path) -> None:
    tally = Tally()
    same: list[Any] = [(Record(i, key, {"label": "x"}), {}, b"") for i, key in enumerate(["a.jpg", "A.png", "b/a.jpg"])]
    with (tmp_path / "y.zip").open("wb") as file:
        write_yolo(file, same, tally, "")
    with zipfile.ZipFile(tmp_path / "y.zip") as found:
        assert [n for n in found.namelist() if "images" in n] == ["images/a.jpg", "images/A~1.png", "images/b/a.jpg"]
        assert "labels/A~1.txt" in found.namelist()


def test_a_zip_takes_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "MOST_ITEMS", 2)
    many: Any = ((Record(i, f"{i}.jpg", {}), {}, None) for i in range(3))
    with (tmp_path / "y.zip").open("wb") as file, pytest.raises(InputError, match="another format"):
        write_yolo(file, many, Tally(), "")


def test_folders_in_a_zip(photos: Collection, source: Path, tmp_path: Path) -> None:
    (source / "sub" / "b.png").unlink()
    done = export(labelled(photos), tmp_path / "f.zip", "zip", photos)
    assert (done.written, [s.key for s in done.skipped]) == (4, ["sub/b.png"])
    with zipfile.ZipFile(tmp_path / "f.zip") as found:
        assert set(found.namelist()) == {"_0_/a.png", "_1_/sub/deep/c.PNG", "_1_/d e.jpg", "(none)/é.png"}
        assert found.read("_1_/d e.jpg") == (source / "d e.jpg").read_bytes()


def test_thumbnails_stand_in_for_what_is_gone(source: Path, tmp_path: Path) -> None:
    with collect(source, tmp_path / "t", thumbs=True) as photos:
        assert photos.image_bytes(0) == (source / "a.png").read_bytes()
        assert Image.open(io.BytesIO(photos.thumbnail(0))).format == "WEBP"
        (source / "a.png").unlink()
        assert Image.open(io.BytesIO(photos.image_bytes(0))).format == "WEBP"
        with pytest.raises(NotFound, match=r"a\.png"):
            photos.image_bytes(0, thumbnails=False)


@pytest.mark.parametrize("data", [b"PAR1 and nothing else", None])
def test_a_damaged_file_of_thumbnails_is_said(data: bytes | None, source: Path, tmp_path: Path) -> None:
    with collect(source, tmp_path / "t", thumbs=True):
        thumbs = next((tmp_path / "t" / "thumbs").iterdir())
        page = pa.table({"thumb": pa.array([b"<script>alert(1)</script>"] * 5, pa.binary())})
        pq.write_table(page, tmp_path / "page.parquet")
        other = (tmp_path / "page.parquet").read_bytes() if data is None else data
        thumbs.write_bytes(other)
        commit_as_it_is(tmp_path / "t")
    with open_collection(tmp_path / "t", embedder=FAKE) as photos:
        with pytest.raises(CollectionDamaged, match=r"thumbnail of item 0.*clipsieve check"):
            photos.thumbnail(0)
        assert photos.image_bytes(0) == (source / "a.png").read_bytes()
        (source / "a.png").unlink()
        with pytest.raises(NotFound, match="thumbnail"):
            photos.image_bytes(0)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_images_in_tars_with_odd_names(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / f"one{suffix}", "w:gz" if suffix.endswith("gz") else "w") as tar:
        for name, content in (("x/1.seg.png", picture(1)), ("x/1.json", b"{}"), (".hidden.png", picture(2))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for place in (
        tmp_path / "tars",
        str(tmp_path / "tars" / f"{{one,one}}{suffix}"),
        tmp_path / "tars" / f"one{suffix}",
    ):
        out = tmp_path / f"c{len(str(place))}"
        with collect(place, out) as photos:
            assert [photos.image_bytes(i) for i in (0, 1)] == [picture(1), picture(2)]


def test_a_kind_that_is_not_known(photos: Collection, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="webdataset"):
        export([], tmp_path / "x", "rar", photos)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        export([], tmp_path / "file", "copy", photos)


@pytest.mark.parametrize(
    "kind", ["copy", "link", "list", "webdataset", "datasets", "folders", "coco", "tar", "zip", "yolo"]
)
def test_nothing_to_export(photos: Collection, tmp_path: Path, kind: As) -> None:
    assert export([], tmp_path / "out", kind, photos).written == 0


def test_records_of_hits() -> None:
    hit = Hit(1, "k", 0.5, math.inf, Example(image=7))
    (record,) = hit_records([hit])
    assert record == Record(1, "k", {"score": 0.5, "margin": None, "positive": "item 7", "negative": None})


@given(st.text(max_size=300))
def test_a_safe_name_stays_inside(key: str) -> None:
    name = safe_name(key)
    assert name
    assert not name.startswith("/")
    assert ".." not in name.split("/")
    assert all(0 < len(part.encode()) <= 204 for part in name.split("/"))
    assert not any(c in name for c in '\\<>:"|?*\0\n')
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("a/b.jpg", "a/b.jpg"),
        ("https://x.org/p/q.jpg?s=1", "x.org/p/q.jpg"),
        ("t.parquet#3", "t.parquet#3"),
        ("con.txt", "_con.txt"),
        ("...", "_"),
    ],
)
def test_safe_names(key: str, name: str) -> None:
    assert safe_name(key) == name


def test_suffixes_go_by_the_bytes() -> None:
    assert [suffix_of(picture(1, kind)) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")] == [
        ".png",
        ".jpg",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
    ]
    assert suffix_of(np.zeros(20, np.uint8).tobytes()) == ".bin"
