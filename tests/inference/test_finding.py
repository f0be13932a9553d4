import numpy as np
import pytest

from clipsieve.errors import InputError, ModelMismatch
from clipsieve.image_files import open_raster
from clipsieve.inference import batches, pending
from clipsieve.inference.add import add_to_collection
from clipsieve.inference.decode import decode
from clipsieve.inference.detector import open_detector
from clipsieve.inference.fake import QUARTERS, FakeDetector, FakeEmbedder
from clipsieve.inference.finding import Finder, _pixels
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.opening import open_collection
from clipsieve.shards import open_array, open_manifest, read_ids, read_metadata
from clipsieve.stored_regions import read_regions, read_table
from clipsieve.whole import verify
from tests.inference.pictures import encoded, jpeg, picture


class Shy(FakeDetector):
    """Refuses every batch with an image of this width in it, or already the image itself."""

    def __init__(self, width, early=False):
        super().__init__()
        self.width, self.early = width, early

    def preprocess_image(self, image):
        if self.early and image.width == self.width:
            raise ValueError("no")
        return {**super().preprocess_image(image), "width": np.array(image.width)}

    def detect_tensors(self, batch):
        if any(one["width"] == self.width for one in batch):
            raise InputError("The detector gives no finite numbers.")
        return super().detect_tensors(batch)


def embed(photos, out, detector=None, crops=False, **how):
    embedder = FakeEmbedder()
    finder = None if detector is None else Finder(detector, embedder if crops else None)
    return embed_collection(open_source(photos), embedder, out, finder=finder, **how)


def stored(folder):
    """key -> (regions of the item as rows, its crops) over all shards."""
    found = {}
    for shard in open_manifest(folder).shards:
        regions = read_regions(folder, shard)
        for i, key in enumerate(read_metadata(folder, shard, ["key"])["key"].to_pylist()):
            rows = regions.item == i
            found[key] = regions.vectors[rows], regions.crops[rows] if regions.crops is not None else None
    return found


def test_each_image_has_the_regions_that_its_detector_finds(photos, tmp_path):
    detector, out = FakeDetector(regions=3), tmp_path / "out"
    embed(photos, out, detector, batch_size=3, shard_size=4)
    manifest = open_manifest(out)
    assert (manifest.detection.model, manifest.detection.most, manifest.detection.crops) == (detector.model, 3, False)
    assert len(manifest.shards) > 1
    for key, (vectors, _) in stored(out).items():
        expected = detector.detect([(photos / key).read_bytes()])
        np.testing.assert_array_equal(vectors, expected.vectors.astype(np.float16))
    table = read_table(out, manifest.shards[1])
    assert table["id"].to_pylist() == np.repeat(read_ids(out, manifest.shards[1]), 3).tolist()
    np.testing.assert_allclose([table[c][1].as_py() for c in ("x0", "y0", "x1", "y1")], QUARTERS[1])
    assert not verify(out, manifest)


def test_crops_are_embedded_as_images_of_their_own(photos, tmp_path):
    (photos / "turned.png").write_bytes(encoded(picture(77, (50, 70))))
    embed(photos, tmp_path / "out", FakeDetector(), crops=True, batch_size=4)
    embedder = FakeEmbedder()
    for key, (_, crops) in stored(tmp_path / "out").items():
        image = decode((photos / key).read_bytes())
        (w, h), (x, y) = image.size, (image.width // 2, image.height // 2)
        quarters = [(0, 0, x, y), (x, 0, w, y), (0, y, x, h), (x, y, w, h)]
        expected = embedder.embed_images([encoded(image.crop(box)) for box in quarters])
        np.testing.assert_array_equal(crops, expected.astype(np.float16))


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((0, 0, 1, 1), (0, 0, 100, 20)),
        ((0.101, 0.1, 0.499, 0.9), (10, 2, 50, 18)),
        ((0, 0.99, 0.001, 1), (0, 12, 8, 20)),
        ((0.5, 0.5, 0.51, 0.51), (47, 7, 55, 15)),
        ((1, 1, 1, 1), (92, 12, 100, 20)),
    ],
)
def test_a_crop_is_whole_pixels_and_no_thinner_than_eight(box, pixels):
    assert list(_pixels((100, 20), np.array([box], np.float32))) == [pixels]
    assert list(_pixels((3, 1), np.array([box], np.float32))) == [(0, 0, 3, 1)]


@pytest.mark.parametrize("early", [True, False])
def test_an_image_that_the_detector_refuses_keeps_its_vector_and_is_counted(photos, tmp_path, early):
    (photos / "05.jpg").write_bytes(jpeg(5, (99, 48)))
    summary = embed(photos, tmp_path / "out", Shy(99, early), batch_size=4)
    assert (summary.embedded, summary.skipped) == (10, 0)
    manifest, without = open_manifest(tmp_path / "out"), []
    for shard in manifest.shards:
        regions = read_regions(tmp_path / "out", shard)
        keys = read_metadata(tmp_path / "out", shard, ["key"])["key"].to_pylist()
        without += [keys[i] for i in regions.unseen]
        assert set(range(shard.rows)) - set(regions.item.tolist()) == set(regions.unseen.tolist())
    assert without == ["05.jpg"]


def test_many_regions_are_committed_before_they_fill_the_memory(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pending, "REGION_BYTES", 2 * 4 * (32 * 2 + 36))  # of two images
    embed(photos, tmp_path / "out", FakeDetector(), batch_size=1)
    assert {shard.rows for shard in open_manifest(tmp_path / "out").shards} == {2}


def test_a_second_detector_is_refused(photos, tmp_path):
    embed(photos, tmp_path / "out", FakeDetector())
    with pytest.raises(ModelMismatch, match="What is to find regions in"):
        embed(photos, tmp_path / "out", FakeDetector(name="other"))
    for finder in (Finder(FakeDetector(regions=2)), Finder(FakeDetector(), FakeEmbedder())):
        with pytest.raises(InputError, match="keeps 4 regions of an image without crops"):
            embed_collection(open_source(photos), FakeEmbedder(), tmp_path / "out", finder=finder)


@pytest.mark.slow
def test_what_is_added_follows_the_collection(photos, tmp_path):
    out, asked = tmp_path / "out", []

    def load_finder(detection, embedder):
        asked.append(detection)
        return Finder(FakeDetector(regions=detection.most), embedder if detection.crops else None)

    def add():
        return add_to_collection(open_source(photos), lambda _: FakeEmbedder(), out, load_finder=load_finder)

    embed(photos, out)
    (photos / "10.jpg").write_bytes(jpeg(10))
    assert add().embedded == 1
    assert (asked, open_manifest(out).detection) == ([], None)
    embed(photos, tmp_path / "with", FakeDetector(regions=2), crops=True)
    out = tmp_path / "with"
    (photos / "11.jpg").write_bytes(jpeg(11))
    add()
    assert asked == [open_manifest(out).detection]
    vectors, crops = stored(out)["11.jpg"]
    assert (len(vectors), len(crops)) == (2, 2)


def test_a_collection_may_get_a_detector_later(photos, tmp_path):
    out = tmp_path / "out"
    embed(photos, out)
    (photos / "10.jpg").write_bytes(jpeg(10))
    embed(photos, out, FakeDetector())
    first, second = open_manifest(out).shards
    assert "regions" not in first.files
    assert len(open_array(out, second, "region_emb")) == 4


def test_the_detector_sees_what_was_decoded_once(photos, tmp_path, monkeypatch):
    opened = []

    def counted(data, memory, **how):
        opened.append(data)
        return open_raster(data, memory, **how)

    monkeypatch.setattr(batches, "open_raster", counted)
    embed(photos, tmp_path / "out", FakeDetector())
    assert len(opened) == 10


@pytest.mark.slow
def test_what_is_stored_is_found_by_the_logits_of_a_real_detector(photos, tmp_path, owlv2_folder):
    detector = open_detector(f"local-dir:{owlv2_folder}", device="cpu", regions=8)
    embed(photos, tmp_path / "out", detector, batch_size=4)
    names = sorted(path.name for path in photos.glob("*.jpg"))
    regions = detector.detect([(photos / name).read_bytes() for name in names])
    questions = np.stack([*detector.embed_texts(["a red bus", "dog"]), detector.embed_example(jpeg(3))])
    logits = (regions.vectors @ questions.T + regions.shift[:, None]) * regions.scale[:, None]
    with open_collection(tmp_path / "out") as collection:
        hits = collection.regions.search(questions, 10)
        assert collection.keys(range(10)) == names
        for i, column in enumerate(logits.T):
            best = np.sort(column)[::-1][:10]
            np.testing.assert_allclose(hits.scores[i], best, rtol=2e-3, atol=2e-3 * np.abs(regions.scale).max())
            assert set(hits.items[i, :3].tolist()) <= set(regions.item[np.argsort(-column)[:5]].tolist())
