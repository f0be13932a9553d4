"""Collections to be served, and the application over them."""

import numpy as np

from clipsieve.back.app import create_app
from clipsieve.back.shelf import Options, Served, Shelf
from clipsieve.errors import InputError
from clipsieve.index.collection import open_collection
from clipsieve.index.examples import unit_rows
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.manifest import Manifest
from clipsieve.types import Embeddings
from clipsieve.writer import open_writer

DIM = 16
FAKE = FakeEmbedder(DIM)
NAMES = ("bus", "truck", "cat")


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


def serve(folders, fetch=None, **options):
    """A test client over collections by name, and the shelf."""
    shelf = Shelf([Served(n, open_collection(f, embedder=FAKE), options.get(n, Options())) for n, f in folders.items()])

    def nothing(url):
        raise InputError(f"{url} may not be asked for.")

    return create_app(shelf, fetch=fetch or nothing).test_client(), shelf
