"""What every detector does. A new one subclasses this and names a fixture or makes itself."""

import numpy as np
import pytest

from clipsieve.errors import InputError
from clipsieve.inference.decode import decode
from clipsieve.protocols import Detector
from clipsieve.types import Regions
from tests.inference.pictures import encoded, picture


def images(n):
    return [encoded(picture(i, (70 + 10 * i, 50))) for i in range(n)]


def same(regions, other, atol=1e-4):
    np.testing.assert_array_equal(regions.item, other.item)
    for name in ("vectors", "boxes", "objectness", "shift", "scale"):
        np.testing.assert_allclose(getattr(regions, name), getattr(other, name), atol=atol, rtol=atol)


def of_image(regions, i):
    rows = regions.item == i
    names = ("vectors", "boxes", "objectness", "shift", "scale")
    found = {name: getattr(regions, name)[rows] for name in names}
    return Regions(item=np.zeros(rows.sum(), np.int64), model=regions.model, **found)


class DetectorContract:
    """Subclass it as `class TestMine(DetectorContract)` with a fixture `detector`."""

    @pytest.fixture
    def detector(self):
        raise NotImplementedError

    def test_it_is_one(self, detector):
        assert isinstance(detector, Detector)
        assert detector.model.name
        assert detector.model.weights
        assert detector.embed_texts(["a"]).shape == (1, detector.dim)

    def test_regions_come_by_image_and_falling_objectness(self, detector):
        regions = detector.detect(images(3))
        assert regions.model == detector.model
        assert regions.vectors.shape == (len(regions.item), detector.dim)
        assert sorted(set(regions.item.tolist())) == [0, 1, 2]
        assert (np.diff(regions.item) >= 0).all()
        within = np.diff(regions.item) == 0
        assert (np.diff(regions.objectness)[within] <= 0).all()

    def test_boxes_lie_in_the_image_and_have_an_area(self, detector):
        boxes = detector.detect(images(3)).boxes
        assert boxes.min() >= 0
        assert boxes.max() <= 1
        assert (boxes[:, :2] < boxes[:, 2:]).all()

    def test_an_image_does_not_depend_on_its_neighbours(self, detector):
        together = detector.detect(images(3))
        for i, data in enumerate(images(3)):
            same(detector.detect([data]), of_image(together, i))

    def test_no_images(self, detector):
        regions = detector.detect([])
        assert regions.vectors.shape == (0, detector.dim)
        assert regions.boxes.shape == (0, 4)

    def test_a_broken_image_is_named_by_its_position(self, detector):
        with pytest.raises(InputError, match="Image 1 "):
            detector.detect([*images(1), b"no image"])

    def test_text_rows_are_unit_float32_in_order(self, detector):
        texts = ["a red bus", "a dog", "", "two red truck " * 200]
        rows = detector.embed_texts(texts)
        assert rows.shape == (4, detector.dim)
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(detector.embed_texts(texts[::-1])[::-1], rows, atol=1e-5)
        assert not np.allclose(rows[0], rows[1], atol=1e-5)
        assert detector.embed_texts([]).shape == (0, detector.dim)

    def test_an_example_is_a_unit_vector(self, detector):
        (data,) = images(1)
        for box in (None, (0, 0, 0.5, 0.5), (0.2, 0.2, 1, 1)):
            vector = detector.embed_example(data, box)
            assert vector.shape == (detector.dim,)
            assert vector.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-5)

    def test_what_cannot_be_an_example(self, detector):
        (data,) = images(1)
        with pytest.raises(InputError):
            detector.embed_example(b"no image")
        for box in ((0.5, 0, 0.5, 1), (0, 0, 2, 1), (float("nan"), 0, 1, 1)):
            with pytest.raises(InputError, match="box is"):
                detector.embed_example(data, box)


class StagedDetectorContract(DetectorContract):
    """The same for one in two steps."""

    def test_two_steps_are_one(self, detector):
        tensors = [detector.preprocess_image(decode(data)) for data in images(2)]
        same(detector.detect_tensors(tensors), detector.detect(images(2)), atol=1e-6)
        assert len(detector.detect_tensors([]).item) == 0
        assert detector.lanes >= 1
