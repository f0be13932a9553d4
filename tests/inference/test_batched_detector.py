"""A detector for many threads: what is asked together goes through it together, and nobody gets another's boxes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from clipsieve.errors import Closed, InputError
from clipsieve.inference.batch_request import BatchOptions
from clipsieve.inference.batched_detector import BatchedDetector
from clipsieve.inference.decode import decode
from clipsieve.inference.detector import open_detector
from clipsieve.inference.fake import FakeDetector
from tests.contracts.detector import DetectorContract, same
from tests.inference.gates import PATIENCE, until
from tests.inference.pictures import jpeg


class Gated(FakeDetector):
    """It waits to be let go before each pass, keeps how many images that one had, and sees nothing in some."""

    def __init__(self, blank=(), bad=()):
        super().__init__(8)
        self.passes, self.go = [], threading.Semaphore(0)
        self._blank, self._bad = ([self._tensors(data) for data in some] for some in (blank, bad))

    def _tensors(self, data):
        return self.preprocess_image(decode(data))["hash"].tobytes()

    def detect_tensors(self, batch):
        if not batch:
            return super().detect_tensors(batch)
        self.passes.append(len(batch))
        assert self.go.acquire(timeout=PATIENCE)
        if any(one["hash"].tobytes() in self._bad for one in batch):
            raise InputError("The detector gives no finite numbers.")
        found = super().detect_tensors(batch)
        seen = np.array([batch[i]["hash"].tobytes() not in self._blank for i in found.item])
        columns = ("vectors", "boxes", "item", "objectness", "shift", "scale")
        return replace(found, **{name: np.ascontiguousarray(getattr(found, name)[seen]) for name in columns})


class TestBatchedFake(DetectorContract):
    @pytest.fixture
    def detector(self):
        batched = BatchedDetector(FakeDetector())
        yield batched
        batched.close()


@pytest.mark.slow
class TestBatchedMini(DetectorContract):
    @pytest.fixture
    def detector(self):
        batched = BatchedDetector(open_detector("mini", device="cpu", regions=300))
        yield batched
        batched.close()


def test_images_of_many_threads_go_through_in_one_pass():
    images = [jpeg(i) for i in range(9)]
    model = Gated(blank=[images[3]])
    detector = BatchedDetector(model, BatchOptions(max_batch=4))
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(detector.detect, [images[0]])
        until(lambda: model.passes == [1])
        asked = []
        for n, image in enumerate(images[1:], start=1):
            asked.append(pool.submit(detector.detect, [image]))
            until(lambda n=n: detector.statistics().waiting == n)
        model.go.release(100)
        plain = FakeDetector(8)
        for image, found in zip(images, [first, *asked], strict=True):
            alone = plain.detect([image] if image is not images[3] else [])
            same(found.result(PATIENCE), alone)
    # How many are ready when a pass begins is the machine's affair; none has more than it may.
    assert (model.passes[0], sum(model.passes)) == (1, 9)
    assert 1 < max(model.passes) <= 4
    several = detector.detect([images[2], images[3], images[4]])
    assert np.unique(several.item).tolist() == [0, 2]
    detector.close()
    with pytest.raises(Closed):
        detector.detect([images[0]])


def test_a_bad_image_fails_alone():
    images = [jpeg(i) for i in range(6)]
    model = Gated(bad=[images[4]])
    detector = BatchedDetector(model)
    with ThreadPoolExecutor(7) as pool:
        first = pool.submit(detector.detect, [images[0]])
        until(lambda: model.passes == [1])
        broken = pool.submit(detector.detect, [b"no image"])
        with pytest.raises(InputError, match="Image 0 cannot be searched"):
            broken.result(PATIENCE)
        asked = [pool.submit(detector.detect, [image]) for image in images[1:]]
        until(lambda: detector.statistics().waiting == 5)
        model.go.release(100)
        for i, found in enumerate([first, *asked]):
            if i == 4:
                with pytest.raises(InputError, match="no finite numbers"):
                    found.result(PATIENCE)
            else:
                same(found.result(PATIENCE), FakeDetector(8).detect([images[i]]))
    detector.close()
