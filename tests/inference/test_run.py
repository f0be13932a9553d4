"""From a source to a folder: everything counted, nothing lost, resumable at any point."""

import io
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipsieve.errors import InputError, ModelMismatch
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.shards import open_array, open_manifest, read_caption_mask, read_metadata, read_skipped
from clipsieve.whole import verify
from tests.inference.pictures import encoded, jpeg, picture, write_tree


def rows(folder):
    """key -> metadata row with its vector, over all shards."""
    found = {}
    for shard in open_manifest(folder).shards:
        if shard.rows:
            vectors = open_array(folder, shard)
            for row, vector in zip(read_metadata(folder, shard).to_pylist(), vectors, strict=True):
                assert row["key"] not in found
                found[row["key"]] = {**row, "vector": np.array(vector)}
    return found


def skips(folder):
    return {s.key: s.reason for shard in open_manifest(folder).shards for s in read_skipped(folder, shard)}


def bomb():
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    import struct
    import zlib

    body = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + encoded(picture(0))[33:]


def odd_files():
    """(files that become rows, files that are skipped -> a word of the reason, files that are no images)."""
    turned = Image.Exif()
    turned[0x0112] = 6
    palette = picture(3).quantize(16)
    sixteen = Image.fromarray((np.arange(64 * 48).reshape(48, 64) * 20).astype(np.uint16))
    good = {
        "plain.jpg": jpeg(1),
        "UPPER.JPEG": jpeg(2),
        "turned.jpg": encoded(picture(4), "JPEG", exif=turned),
        "cmyk.jpg": encoded(picture(5).convert("CMYK"), "JPEG"),
        "grey-alpha.png": encoded(picture(6).convert("LA")),
        "palette.png": encoded(palette, transparency=3),
        "sixteen-bit.png": encoded(sixteen),
        "one-bit.png": encoded(picture(7).convert("1")),
        "tiny.png": encoded(picture(8, (1, 1))),
        "long.png": encoded(picture(9, (2000, 1))),
        "moving.gif": encoded(picture(10), "GIF", save_all=True, append_images=[picture(11)]),
        "floats.tiff": encoded(Image.fromarray(np.linspace(0, 1, 3072, dtype=np.float32).reshape(48, 64)), "TIFF"),
        "picture.bmp": encoded(picture(12), "BMP"),
        "picture.webp": encoded(picture(13), "WEBP"),
        "wrong-ending.png": jpeg(14),
        "with space and ünïcode.jpg": jpeg(15),
        "-leading-dash.jpg": jpeg(16),
        "new\nline.jpg": jpeg(17),
        "deep/er/still/in.jpg": jpeg(18),
    }
    bad = {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"no image at all", "no image"),
        "cut.jpg": (jpeg(19, (400, 300))[:900], "cut short"),
        "cut.png": (encoded(picture(20, (300, 300)))[:-4000], "cut short"),
        "page.png": (b"<!doctype html><title>404</title>", "no image"),
        "bomb.png": (bomb(), "too many pixels"),
    }
    bad |= {"vector.svg": (b"<svg/>", "convert it"), "clip.mp4": (b"\0" * 64, "a video")}
    ignored = {"notes.md": b"#"}
    return good, bad, ignored


def test_a_folder_of_odd_files_ends_with_exact_counts_and_reasons(tmp_path):
    good, bad, ignored = odd_files()
    root = write_tree(tmp_path / "in", {**good, **{name: data for name, (data, _) in bad.items()}, **ignored})
    (root / "loop").symlink_to(root)
    (root / "nowhere.jpg").symlink_to(root / "missing.jpg")
    (root / "folder.jpg").mkdir()
    calls = []
    summary = embed_collection(
        open_source(root), FakeEmbedder(), tmp_path / "out", batch_size=4, progress=lambda *a: calls.append(a)
    )
    found, skipped = rows(tmp_path / "out"), skips(tmp_path / "out")
    assert set(found) == set(good)
    assert set(skipped) == {*bad, "nowhere.jpg"}
    for name, (_, word) in bad.items():
        assert word in skipped[name], skipped[name]
        assert skipped[name].endswith(".")
    assert (summary.read, summary.embedded, summary.skipped) == (len(good) + len(bad) + 1, len(good), len(bad) + 1)
    assert calls[-1] == (summary.read, summary.read, summary.skipped)
    for name, row in found.items():
        expected = FakeEmbedder().embed_images([good[name]])[0].astype(np.float16)
        np.testing.assert_array_equal(row["vector"], expected)
        assert row["image_path"] == str(root / name)
    assert (found["turned.jpg"]["width"], found["turned.jpg"]["height"]) == (48, 64)
    assert sorted(row["id"] for row in found.values()) == list(range(len(good)))
    assert verify(tmp_path / "out", open_manifest(tmp_path / "out")) == {}


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 5))
def test_batches_shards_and_threads_change_nothing(tmp_path_factory, batch, shard, workers):
    root = tmp_path_factory.mktemp("in")
    write_tree(root, {f"{i:02}.jpg": jpeg(i, (8, 8)) if i % 5 else b"" for i in range(23)})
    out = tmp_path_factory.mktemp("out") / "c"
    summary = embed_collection(
        open_source(root), FakeEmbedder(), out, batch_size=batch, shard_size=shard, workers=workers
    )
    assert (summary.read, summary.embedded, summary.skipped) == (23, 18, 5)
    found = rows(out)
    assert [found[key]["id"] for key in sorted(found)] == list(range(18))
    assert list(skips(out)) == [f"{i:02}.jpg" for i in range(0, 23, 5)]
    assert all(s.rows + len(read_skipped(out, s)) <= shard for s in open_manifest(out).shards)


@pytest.mark.parametrize("waiting", [None, print], ids=["inference", "inference.worker"])
def test_a_shard_is_never_larger_than_asked_whatever_the_batch(tmp_path, waiting):
    root = write_tree(tmp_path / "in", {f"{i:02}.jpg": jpeg(i, (8, 8)) for i in range(23)})
    embed_collection(
        open_source(root), FakeEmbedder(), tmp_path / "out", batch_size=256, shard_size=10, waiting=waiting
    )
    assert [s.rows for s in open_manifest(tmp_path / "out").shards] == [10, 10, 3]


def test_captions_are_embedded_and_missing_ones_masked(tmp_path):
    root = write_tree(tmp_path / "in", {"a.jpg": jpeg(1), "a.txt": b"a red bus", "b.jpg": jpeg(2)})
    embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out", thumbs=True)
    (shard,) = open_manifest(tmp_path / "out").shards
    assert read_caption_mask(tmp_path / "out", shard).tolist() == [True, False]
    texts = open_array(tmp_path / "out", shard, "text_emb")
    expected = FakeEmbedder().embed_texts(["a red bus"])[0].astype(np.float16)
    np.testing.assert_array_equal(texts[0], expected)
    assert "thumbs" in shard.files


def test_a_second_run_has_nothing_to_do_and_grown_input_goes_on(tmp_path):
    root = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(5)})
    first = embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out")
    again = embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out")
    assert (first.read, again.read, again.before) == (5, 0, 5)
    write_tree(root, {"5.jpg": jpeg(5)})
    more = embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out")
    assert (more.read, more.before) == (1, 5)
    assert {key: row["id"] for key, row in rows(tmp_path / "out").items()} == {f"{i}.jpg": i for i in range(6)}


def test_what_does_not_belong_together_is_refused(tmp_path):
    root = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(3)})
    other = write_tree(tmp_path / "other", {"x.jpg": jpeg(9)})
    embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out")
    with pytest.raises(ModelMismatch, match="fake2"):
        embed_collection(open_source(root), FakeEmbedder(name="fake2"), tmp_path / "out")
    with pytest.raises(InputError, match="holds the input"):
        embed_collection(open_source(other), FakeEmbedder(), tmp_path / "out")
    (root / "2.jpg").unlink()
    with pytest.raises(InputError, match="changed since"):
        embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out")
    with pytest.raises(InputError, match="batch_size 0"):
        embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out", batch_size=0)
    assert len(rows(tmp_path / "out")) == 3


def test_a_key_is_given_once(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"key": ["a", "b", "a"], "image": [jpeg(1), jpeg(2), jpeg(3)]}), tmp_path / "t.parquet")
    summary = embed_collection(open_source(tmp_path / "t.parquet"), FakeEmbedder(), tmp_path / "out")
    assert (summary.embedded, summary.skipped) == (2, 1)
    assert "key" in skips(tmp_path / "out")["a"]


class Ragged(FakeEmbedder):
    """Has no vector for one picture."""

    def embed_tensors(self, batch):
        if any(one["hash"].tolist() == self.preprocess(jpeg(2))["hash"].tolist() for one in batch):
            raise InputError("A vector is not finite; use another precision.")
        return super().embed_tensors(batch)


def test_an_image_without_a_vector_does_not_cost_its_batch(tmp_path):
    root = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(5)})
    summary = embed_collection(open_source(root), Ragged(), tmp_path / "out")
    assert (summary.embedded, summary.skipped) == (4, 1)
    assert skips(tmp_path / "out") == {"2.jpg": "A vector is not finite; use another precision."}


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """SIGKILL at moments spread over the run, until one run ends by itself."""
    root = write_tree(tmp_path / "in", {f"{i:03}.jpg": jpeg(i, (16, 16)) if i % 7 else b"" for i in range(300)})
    program = textwrap.dedent("""
        import sys
        from clipsieve.inference.fake import FakeEmbedder
        from clipsieve.inference.reader import open_source
        from clipsieve.inference.run import embed_collection
        def tell(read, total, skipped):
            print(read, flush=True)
        embed_collection(open_source(sys.argv[1]), FakeEmbedder(), sys.argv[2], batch_size=5, shard_size=10,
                         progress=tell)
        print("end", flush=True)
    """)
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(root), str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        told = [line for _, line in zip(range(9), lines, strict=False)]
        if "end\n" not in told:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        if "end\n" in told:
            break
        manifest = open_manifest(tmp_path / "out")
        assert verify(tmp_path / "out", manifest) == {}
    assert kills >= 3
    found = rows(tmp_path / "out")
    assert sorted(found) == [f"{i:03}.jpg" for i in range(300) if i % 7]
    assert sorted(row["id"] for row in found.values()) == sorted(range(len(found)))
    progress = open_manifest(tmp_path / "out").progress(open_source(root).name)
    assert (progress.read, progress.embedded, progress.skipped) == (300, 257, 43)
    for key, row in list(found.items())[::40]:
        image = Image.open(io.BytesIO((root / key).read_bytes()))
        assert (row["width"], row["height"]) == image.size
