import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipsieve.errors import Closed, InputError, Overloaded, TimedOut
from clipsieve.inference.batch_request import BatchOptions
from clipsieve.inference.batcher import batched
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.text_cache import CachedEmbedder
from clipsieve.protocols import TextEmbedder
from tests.inference.gates import PATIENCE, until
from tests.inference.pictures import encoded, picture

IMAGES = [encoded(picture(i, (6, 5))) for i in range(12)]
FAKE = FakeEmbedder()
ROWS = FAKE.embed_images(IMAGES)
TEXTS = [f"text {i}" for i in range(12)]


class Slow(FakeEmbedder):
    """A FakeEmbedder whose model, or whose preprocessing of all but the first `free` images, waits to be let go."""

    def __init__(self, model=False, free=None):
        super().__init__()
        self.calls = []
        self.prepared = []
        self.model_may, self.preprocess_may = threading.Event(), threading.Event()
        if not model:
            self.model_may.set()
        self.free = free
        if free is None:
            self.preprocess_may.set()

    def preprocess(self, data):
        self.prepared.append(data)
        assert len(self.prepared) <= (self.free or 0) or self.preprocess_may.wait(PATIENCE)
        return super().preprocess(data)

    def embed_tensors(self, batch):
        self.calls.append(len(batch))
        assert self.model_may.wait(PATIENCE)
        return super().embed_tensors(batch)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 11), st.integers(1, 3), st.booleans()), min_size=1, max_size=4),
        min_size=2,
        max_size=8,
    )
)
def test_interleaved_requests_of_few_rows_get_their_own(plans):
    together = threading.Barrier(len(plans))
    texts = FAKE.embed_texts(TEXTS)

    def ask(plan):
        together.wait(PATIENCE)
        for first, count, of_images in plan:
            chosen = [(first + i) % 12 for i in range(count)]
            if of_images:
                np.testing.assert_array_equal(embedder.embed_images([IMAGES[i] for i in chosen]), ROWS[chosen])
            else:
                np.testing.assert_array_equal(embedder.embed_texts([TEXTS[i] for i in chosen]), texts[chosen])

    with batched(FAKE, BatchOptions(max_batch=4)) as embedder, ThreadPoolExecutor(len(plans)) as pool:
        list(pool.map(ask, plans))
        kinds = embedder.statistics().kinds
    for kind, of_images in (("image", True), ("text", False)):
        asked = [count for plan in plans for _, count, images in plan if images is of_images]
        assert (kinds[kind].succeeded.count, kinds[kind].rows) == (len(asked), sum(asked))


def test_a_model_without_texts_stays_one():
    class Images:
        model, dim, lanes = FAKE.model, FAKE.dim, 1
        preprocess, preprocess_image = FAKE.preprocess, FAKE.preprocess_image
        embed_images, embed_tensors = FAKE.embed_images, FAKE.embed_tensors
        pixels, from_pixels = FAKE.pixels, FAKE.from_pixels

    with batched(Images()) as embedder:
        assert not isinstance(embedder, TextEmbedder)
        assert set(embedder.statistics().kinds) == {"image"}


def test_images_are_decoded_side_by_side_and_while_the_model_is_busy():
    slow = Slow(model=True)
    with batched(slow, BatchOptions(workers=2)) as embedder, ThreadPoolExecutor(3) as pool:
        first = pool.submit(embedder.embed_images, IMAGES[:1])
        until(lambda: slow.calls == [1])
        slow.preprocess_may.clear()
        others = [pool.submit(embedder.embed_images, [IMAGES[i]]) for i in (1, 2)]
        until(lambda: len(slow.prepared) == 3)  # both are at it
        slow.preprocess_may.set()
        until(lambda: all(len(heap) == 2 for heap in embedder._queue._heaps.values()) and embedder._queue._heaps)
        slow.model_may.set()
        found = [future.result(PATIENCE) for future in (first, *others)]
    np.testing.assert_array_equal(np.concatenate(found), ROWS[:3])
    assert slow.calls == [1, 2]


def test_of_many_images_the_first_batch_runs_before_all_are_decoded():
    slow = Slow(free=2)
    with batched(slow, BatchOptions(max_batch=2)) as embedder, ThreadPoolExecutor(1) as pool:
        future = pool.submit(embedder.embed_images, IMAGES)
        until(lambda: slow.calls == [2])
        slow.preprocess_may.set()
        np.testing.assert_array_equal(future.result(PATIENCE), ROWS)


def test_many_images_do_not_keep_others_from_the_decoders():
    slow = Slow(free=0)
    with batched(slow, BatchOptions(max_batch=2, workers=1)) as embedder, ThreadPoolExecutor(2) as pool:
        many = pool.submit(embedder.embed_images, IMAGES[:11])
        until(lambda: slow.prepared)
        one = pool.submit(embedder.embed_images, IMAGES[11:])
        until(lambda: embedder.statistics().waiting == 12)
        slow.preprocess_may.set()
        np.testing.assert_array_equal(one.result(PATIENCE), ROWS[11:])
        np.testing.assert_array_equal(many.result(PATIENCE), ROWS[:11])
    assert slow.prepared.index(IMAGES[11]) < 10


def test_a_bad_image_fails_alone_and_is_named_by_its_place_in_its_request():
    slow = Slow(model=True)
    with batched(slow, BatchOptions(max_batch=2)) as embedder, ThreadPoolExecutor(4) as pool:
        first = pool.submit(embedder.embed_images, IMAGES[:1])
        until(lambda: slow.calls)
        bad = pool.submit(embedder.embed_images, [*IMAGES[:5], b"no image", *IMAGES, b""])
        good = pool.submit(embedder.embed_images, IMAGES[1:4])
        with pytest.raises(InputError, match=r"^Image 5 cannot be embedded: The file is no image"):
            bad.result(PATIENCE)
        slow.model_may.set()
        np.testing.assert_array_equal(first.result(PATIENCE), ROWS[:1])
        np.testing.assert_array_equal(good.result(PATIENCE), ROWS[1:4])
        images = embedder.statistics().kinds["image"]
    assert (images.succeeded.count, images.failed.count, images.wasted.count) == (2, 1, 0)
    assert sum(slow.calls) == 4  # nothing of the bad one was run


def test_time_runs_while_images_are_decoded():
    slow = Slow(free=0)
    with batched(slow, BatchOptions(workers=1)) as embedder:
        with pytest.raises(TimedOut, match=r"within 0\.02 s"):
            embedder.embed_images(IMAGES, timeout=0.02)
        slow.preprocess_may.set()
        np.testing.assert_array_equal(embedder.embed_images(IMAGES[:1]), ROWS[:1])
    assert slow.prepared == [IMAGES[0], IMAGES[0]]  # the rest was not begun


def test_too_much_is_refused_before_it_is_decoded():
    slow = Slow(model=True)
    with batched(slow, BatchOptions(queue_limit=1)) as embedder, ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(embedder.embed_images, IMAGES[:1])]
        until(lambda: slow.calls)
        futures.append(pool.submit(embedder.embed_images, IMAGES[1:2]))
        until(lambda: embedder.statistics().waiting == 1)
        with pytest.raises(Overloaded):
            embedder.embed_images([IMAGES[2]])
        with pytest.raises(Overloaded):
            embedder.embed_texts(["a text"])
        assert IMAGES[2] not in slow.prepared
        slow.model_may.set()
        for i, future in enumerate(futures):
            np.testing.assert_array_equal(future.result(PATIENCE), ROWS[i : i + 1])


def test_priority_reaches_the_queue():
    slow, order = Slow(model=True), []
    with batched(slow, BatchOptions(max_batch=1)) as embedder, ThreadPoolExecutor(3) as pool:

        def ask(i, priority):
            embedder.embed_images([IMAGES[i]], priority=priority)
            order.append(i)

        futures = [pool.submit(ask, 0, 0)]
        until(lambda: slow.calls)
        for i, priority in ((1, 1), (2, 0)):
            futures.append(pool.submit(ask, i, priority))
            until(lambda i=i: sum(map(len, embedder._queue._heaps.values())) == i)
        slow.model_may.set()
        for future in futures:
            future.result(PATIENCE)
    assert order.index(2) < order.index(1)


def test_given_tensors_of_several_shapes_run_apart():
    class Shapes(FakeEmbedder):
        def embed_tensors(self, batch):
            np.stack([one["pixels"] for one in batch])
            return super().embed_tensors([{"hash": one["pixels"].ravel().astype(np.uint32)} for one in batch])

    given = [{"pixels": np.full(shape, i)} for i, shape in enumerate([(2, 3), (3, 2), (2, 3), (6,)])]
    with batched(Shapes()) as embedder:
        rows = embedder.embed_tensors(given)
        np.testing.assert_array_equal(rows, np.concatenate([embedder.embed_tensors([one]) for one in given]))


def test_texts_and_tokens_do_not_share_a_batch():
    with batched(FAKE) as embedder, ThreadPoolExecutor(8) as pool:
        tokens = [pool.submit(embedder.embed_tokens, embedder.tokenize([text])) for text in TEXTS]
        texts = [pool.submit(embedder.embed_texts, [text]) for text in TEXTS]
        expected = FAKE.embed_texts(TEXTS)
        for futures in (tokens, texts):
            np.testing.assert_array_equal(np.concatenate([f.result(PATIENCE) for f in futures]), expected)


def test_who_gives_a_name_is_counted_by_it_too():
    slow = Slow(model=True)
    with batched(slow, BatchOptions(max_batch=8)) as embedder, ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(embedder.embed_images, IMAGES[:1], name="a")]
        until(lambda: slow.calls)
        futures += [pool.submit(embedder.embed_images, IMAGES[1:3], name=name) for name in ("a", "b", None)]
        until(lambda: sum(map(len, embedder._queue._heaps.values())) == 6)
        slow.model_may.set()
        for future in futures:
            future.result(PATIENCE)
        with pytest.raises(InputError):
            embedder.embed_images([b"no image"], name="b")
        found = embedder.statistics()
    assert (found.kinds["image"].rows, found.kinds["text"].rows, set(found.names)) == (7, 0, {"a", "b"})
    a, b = found.names["a"], found.names["b"]
    assert (a.succeeded.count, a.rows, {n: t.count for n, t in a.executions.items()}) == (2, 3, {1: 1, 6: 1})
    assert (b.succeeded.count, b.failed.count, b.rows) == (1, 1, 2)
    assert {n: t.count for n, t in b.executions.items()} == {6: 1}


def test_preparing_is_told_for_each_image_and_each_batch_of_texts():
    ticks = itertools.count()
    told = []
    with batched(FAKE, clock=lambda: next(ticks), prepared=lambda kind, ns: told.append((kind, ns))) as embedder:
        np.testing.assert_array_equal(embedder.embed_texts(TEXTS), FAKE.embed_texts(TEXTS))
        np.testing.assert_array_equal(embedder.embed_images(IMAGES[:3]), ROWS[:3])
    assert [kind for kind, _ in told] == ["text", "image", "image", "image"]
    assert all(ns >= 1 for _, ns in told)


def test_closing_ends_the_threads_and_refuses_what_comes():
    before = set(threading.enumerate())
    with batched(FAKE) as embedder:
        embedder.embed_images(IMAGES)
        assert not any(thread.daemon for thread in set(threading.enumerate()) - before)
    assert set(threading.enumerate()) <= before
    with pytest.raises(Closed):
        embedder.embed_images(IMAGES)
    with pytest.raises(Closed):
        embedder.embed_texts(TEXTS)
    embedder.close()


@pytest.mark.slow
def test_a_real_model_gives_each_thread_its_own(open_clip_folder):
    from clipsieve.inference.embedder import TorchEmbedder, load_embedder

    real = load_embedder(f"local-dir:{open_clip_folder}", device="cpu")
    assert isinstance(real, TorchEmbedder)
    with batched(real, BatchOptions(max_batch=5)) as embedder, ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda data: embedder.embed_images([data]), IMAGES))
        texts = list(pool.map(lambda text: embedder.embed_texts([text]), TEXTS))
        raw = embedder.embed_texts(TEXTS, raw=True)
    np.testing.assert_allclose(raw, real.features_of_tokens(real.tokenize(TEXTS)), rtol=1e-4, atol=1e-5)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert (abs(lengths - 1) > 0.01).all()
    np.testing.assert_allclose(raw / lengths, real.embed_texts(TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.concatenate(images), real.embed_images(IMAGES), atol=1e-5)
    np.testing.assert_allclose(np.concatenate(texts), real.embed_texts(TEXTS), atol=1e-5)


def test_images_are_decoded_as_they_are_asked_for():
    clear = [encoded(Image.new("RGBA", (6, 5), (i, 2, 3, 0))) for i in range(3)]
    reference = FAKE.decoding_as("reference")
    with batched(FakeEmbedder()) as one:
        cached = CachedEmbedder(one)
        for other in (one.decoding_as("reference"), cached.decoding_as("reference")):
            assert np.array_equal(other.embed_images(clear), reference.embed_images(clear))
        assert np.array_equal(cached.decoding_as("own").embed_images(clear), FAKE.embed_images(clear))
    assert not np.array_equal(reference.embed_images(clear), FAKE.embed_images(clear))
