import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipsieve import raster
from clipsieve.errors import InputError
from clipsieve.inference.decode import decode
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.pending import columns_of
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.perceptual import COLUMN, perceptual_hash
from clipsieve.shards import open_array, open_manifest, read_metadata
from clipsieve.writer import Writer
from tests.inference.pictures import encoded, jpeg, write_tree


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ([1, 2.5, None], [1, 2.5, None]),
        ([1, "a", None], ["1", "a", None]),
        ([True, 2], ["true", "2"]),
        ([2**70, 1], [str(2**70), "1"]),
        ([["a"], ["b", "c"]], [["a"], ["b", "c"]]),
        ([["a"], "b"], ['["a"]', "b"]),
        ([[{}], [{"x": 1}]], ["[{}]", '[{"x": 1}]']),
        ([[[1]], [[2]]], ["[[1]]", "[[2]]"]),
        ([None, None], [None, None]),
    ],
)
def test_any_column_can_be_stored(values, stored, tmp_path):
    columns = columns_of([{"c": value} for value in values])
    assert columns == {"c": stored}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")


def test_a_field_that_some_rows_lack_is_none_there_and_paths_are_left_out():
    assert columns_of([{"a": 1, "image_path": "/x"}, {"b": "y"}]) == {"a": [1, None], "b": [None, "y"]}


def test_thumbnails_are_small_webp_by_id(tmp_path):
    root = write_tree(tmp_path / "in", {"a.jpg": jpeg(1, (600, 300)), "b.jpg": b"", "c.jpg": jpeg(2, (20, 30))})
    embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out", thumbs=True)
    (shard,) = open_manifest(tmp_path / "out").shards
    stored = pq.read_table(tmp_path / "out" / shard.files["thumbs"].path).to_pylist()
    images = [Image.open(io.BytesIO(row["thumb"])) for row in stored]
    hashes = read_metadata(tmp_path / "out", shard)[COLUMN].to_pylist()
    assert hashes == [perceptual_hash(decode(data)) for data in (jpeg(1, (600, 300)), jpeg(2, (20, 30)))]
    assert [row["id"] for row in stored] == read_metadata(tmp_path / "out", shard)["id"].to_pylist()
    assert [(image.format, image.size) for image in images] == [("WEBP", (256, 128)), ("WEBP", (20, 30))]


class Interrupted(FakeEmbedder):
    """Stops the fourth batch, as Ctrl-C would."""

    def __init__(self):
        super().__init__()
        self.batches = 0

    def embed_tensors(self, batch):
        self.batches += len(batch) == 2
        if self.batches == 4:
            raise KeyboardInterrupt
        return super().embed_tensors(batch)


def test_ctrl_c_keeps_the_batches_that_are_whole(tmp_path):
    root = write_tree(tmp_path / "in", {f"{i:02}.jpg": jpeg(i) for i in range(12)})
    with pytest.raises(KeyboardInterrupt):
        embed_collection(open_source(root), Interrupted(), tmp_path / "out", batch_size=2)
    assert open_manifest(tmp_path / "out").rows == 6
    summary = embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out", batch_size=2)
    assert (summary.before, summary.embedded) == (6, 6)


def test_ctrl_c_while_progress_is_told_keeps_them_too(tmp_path):
    root = write_tree(tmp_path / "in", {f"{i:02}.jpg": jpeg(i) for i in range(12)})

    def stop(read, total, skipped):
        if read >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out", batch_size=2, progress=stop)
    assert open_manifest(tmp_path / "out").rows == 6


def test_ctrl_c_right_after_a_commit_writes_nothing_twice(tmp_path, monkeypatch):
    root = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(4)})
    append = Writer.append

    def interrupted(self, *given, **named):
        append(self, *given, **named)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out", batch_size=2, shard_size=2)
    assert open_manifest(tmp_path / "out").rows == 2
    assert embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out").embedded == 2


def test_parts_fill_one_folder_in_turn(tmp_path):
    root = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(7)})
    for part in (1, 0, 1):
        source = open_source(root, partition=part, partitions=2)
        summary = embed_collection(source, FakeEmbedder(), tmp_path / "out")
    assert (summary.before, summary.read) == (3, 0)
    assert open_manifest(tmp_path / "out").rows == 7
    with pytest.raises(InputError, match="cut into 2, not 3"):
        embed_collection(open_source(root, partitions=3), FakeEmbedder(), tmp_path / "out")


def test_metadata_says_what_was_read(tmp_path):
    root = write_tree(tmp_path / "in", {"a.jpg": jpeg(1), "a.json": b'{"width": "?", "tag": ["x"]}'})
    embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out")
    (shard,) = open_manifest(tmp_path / "out").shards
    (row,) = read_metadata(tmp_path / "out", shard).to_pylist()
    assert (row["width"], row["height"], row["size"]) == (64, 48, len(jpeg(1)))
    assert (row["meta.width"], row["tag"]) == ("?", ["x"])
    assert row["mtime"] == (root / "a.jpg").stat().st_mtime
    assert len(row["content_hash"]) == 64
    assert np.load(tmp_path / "out" / shard.files["img_emb"].path).dtype == np.float16


@pytest.mark.parametrize("large", [False, True])
def test_a_thumbnail_is_as_people_see_it_however_the_model_does(tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr(raster, "LARGE_PIXELS", 500)
        monkeypatch.setattr(raster, "REDUCED_PIXELS", 100)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGBA", (64, 48), (200, 10, 10, 0)), exif=exif)
    root = write_tree(tmp_path / "in", {"clear.png": data})
    embedder = FakeEmbedder().decoding_as("reference")
    embed_collection(open_source(root), embedder, tmp_path / "out", thumbs=True)
    (shard,) = open_manifest(tmp_path / "out").shards
    seen = encoded(Image.new("RGB", (16, 12) if large else (64, 48), (200, 10, 10)))
    expected = FakeEmbedder().embed_images([seen])
    np.testing.assert_allclose(open_array(tmp_path / "out", shard), expected, atol=1e-3)
    (row,) = pq.read_table(tmp_path / "out" / shard.files["thumbs"].path).to_pylist()
    thumb = Image.open(io.BytesIO(row["thumb"]))
    assert thumb.size == ((12, 16) if large else (48, 64))
    assert thumb.convert("RGB").getpixel((5, 5)) == (255, 255, 255)
