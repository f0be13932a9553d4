"""Collections to be served, and the application over them."""

import numpy as np

from clipsieve.back.app import create_app
from clipsieve.back.shelf import Options, Served, Shelf
from clipsieve.errors import InputError
from clipsieve.index.collection import open_collection
from clipsieve.index.examples import unit_rows
from clipsieve.inference.decode import decode
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.manifest import Manifest
from clipsieve.types import Embeddings, Regions
from clipsieve.writer import open_writer

DIM = 16
FAKE = FakeEmbedder(DIM)
NAMES = ("bus", "truck", "cat")


class FakeDetector:
    """Finds in every image what it is told: texts, each in a box of fractions of the upright image.

    A class of the same text scores nearly 1 there, other ones next to nothing.
    """

    model, dim = FAKE.model, FAKE.dim
    shift, scale = -0.75, 16.0

    def __init__(self, *seen):
        self.seen, self.texts, self.images = seen, [], 0

    def detect(self, images):
        for data in images:
            decode(data)
        self.images += len(images)
        n = len(images) * len(self.seen)
        texts = [text for text, _ in self.seen] * len(images)
        boxes = np.array([box for _, box in self.seen] * len(images), np.float32).reshape(n, 4)
        item = np.repeat(np.arange(len(images)), len(self.seen))
        shift, scale = np.full(n, self.shift, np.float32), np.full(n, self.scale, np.float32)
        return Regions(FAKE.embed_texts(texts), boxes, item, np.zeros(n, np.float32), shift, scale, self.model)

    def embed_texts(self, texts):
        self.texts += texts
        return FAKE.embed_texts(texts)

    def embed_example(self, image, box=None):
        raise NotImplementedError


def vectors(count, seed=0):
    """Around the texts' vectors, in turn."""
    noise = np.random.default_rng(seed).normal(size=(count, DIM))
    return unit_rows((FAKE.embed_texts(NAMES)[np.arange(count) % 3] + 0.2 * noise).astype(np.float32))


def add_items(folder, count, seed=0, **columns):
    """Write a collection, or add to it: items with captions and whatever columns are given."""
    with open_writer(folder, Manifest(FAKE.model, DIM)) as writer:
        first = writer.manifest.next_id
        keys = tuple(f"{i}.jpg" for i in range(first, first + count))
        captions = [f"a {NAMES[i % 3]}" for i in range(count)]
        texts = Embeddings(FAKE.embed_texts(captions), keys, FAKE.model)
        images = Embeddings(vectors(count, seed), keys, FAKE.model)
        writer.append(images, texts=texts, captions=captions, columns=columns)
    return folder


def serve(folders, fetch=None, detector=None, **options):
    """A test client over collections by name, and the shelf; `detector` gives the one of their regions."""
    shelf = Shelf([Served(n, open_collection(f, embedder=FAKE), options.get(n, Options())) for n, f in folders.items()])

    def nothing(url):
        raise InputError(f"{url} may not be asked for.")

    return create_app(shelf, fetch=fetch or nothing, detector=detector).test_client(), shelf
