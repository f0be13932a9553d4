"""Items of a source to batches with their vectors: decoded ahead in threads, embedded in the model's lanes."""

import io
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from clipsieve.blas import one_thread_each
from clipsieve.errors import InputError
from clipsieve.image_files import open_raster
from clipsieve.image_memory import ImageMemory
from clipsieve.inference.checkpoint import Tensors
from clipsieve.inference.decode import decoder, view_of
from clipsieve.inference.embedder import StagedEmbedder
from clipsieve.inference.finding import BATCH, Finder, Looked
from clipsieve.inference.pending import Embedded, Row
from clipsieve.ordered import ordered_map, processors
from clipsieve.perceptual import COLUMN as PERCEPTUAL
from clipsieve.perceptual import perceptual_hash
from clipsieve.protocols import TextEmbedder
from clipsieve.reading import read_texts
from clipsieve.types import Float32, ImageItem, Skipped, content_hash

THUMB_SIDE = 256
READ_AHEAD_BYTES = 512 * 2**20
"""Encoded images that may wait for a decoder at a time; large photographs would fill the memory otherwise."""


def embed_items(
    items: Iterable[ImageItem | Skipped],
    embedder: StagedEmbedder,
    text: bool,
    batch_size: int,
    workers: int | None,
    thumbs: bool,
    max_pixels: int,
    finder: Finder | None = None,
    most: int | None = None,
    image_memory: ImageMemory | None = None,
) -> Generator[Embedded, None, None]:
    """The items in batches, in order: decoded ahead in threads, embedded in the embedder's lanes.

    batch_size  images in a batch at most
    most        inputs in a batch at most, skipped ones included; twice as many as images by default
    image_memory  from which decoding reserves; by default one of its own
    """
    memory = image_memory or ImageMemory()
    texts = embedder if text and isinstance(embedder, TextEmbedder) else None
    if finder is not None:
        batch_size = min(batch_size, BATCH)
    most = 2 * batch_size if most is None else min(most, 2 * batch_size)

    def prepare(item: ImageItem | Skipped) -> Prepared | Skipped:
        return item if isinstance(item, Skipped) else _prepare(item, embedder, thumbs, max_pixels, finder, memory)

    def embed(inputs: list[Prepared | Skipped]) -> Embedded:
        return _embed_batch(inputs, embedder, texts, finder)

    def weigh(item: ImageItem | Skipped) -> int:
        return len(item.data) if isinstance(item, ImageItem) else 0

    count = workers or processors()
    with (
        one_thread_each(),  # numpy's products in all decoders at once would wait for each other, spinning
        ThreadPoolExecutor(count, "clipsieve-decode") as decoders,
        # One more than can be at work: it brings the next batch together meanwhile. Not with a detector, which would
        # be at work on one batch while the embedder is on the next, each with a thread for every processor.
        ThreadPoolExecutor(embedder.lanes + (finder is None), "clipsieve-embed") as lanes,
    ):
        ahead = 2 * batch_size + count
        prepared = ordered_map(decoders, prepare, items, ahead, weigh=weigh, limit=READ_AHEAD_BYTES)
        try:
            yield from ordered_map(lanes, embed, _batches(prepared, batch_size, most), embedder.lanes + 2)
        finally:
            prepared.close()  # cancels what is queued, or leaving would wait for it


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that was decoded: what is stored of it, and what the embedder and the detector take of it.

    looked  None where there is no detector, or it cannot take the image
    """

    row: Row
    tensors: Tensors
    looked: Looked | None = None


def _look(finder: Finder, image: Image.Image, data: bytes) -> Looked | None:
    """None counts as unseen: the image's own vector is there all the same."""
    try:
        return finder.look(image, data)
    except MemoryError:
        raise
    except Exception:
        return None


def _prepare(
    item: ImageItem,
    embedder: StagedEmbedder,
    thumbs: bool,
    max_pixels: int,
    finder: Finder | None,
    memory: ImageMemory,
) -> Prepared | Skipped:
    looked = thumb = None
    try:
        with open_raster(item.data, memory, max_pixels=max_pixels, factor=None) as raster:
            view = view_of(embedder)
            image = raster.for_model(view, last=view == "own")
            tensors = embedder.preprocess_image(image)
            if view != "own":  # boxes, small pictures and hashes are of the upright one
                del image  # first, so that there is one at a time
                image = raster.for_model()
            hashed = perceptual_hash(image)
            if finder is not None:
                looked = _look(finder, image, item.data)
            if thumbs:
                thumb = _thumb(image)
            width, height = raster.size
    except InputError as error:
        return Skipped(item.key, str(error), content_hash(item.data), decoder(max_pixels))
    except MemoryError:  # of the machine, which is no matter of this image: the run ends, and can be gone on with
        raise
    except Exception as error:  # one odd image must not end a run over millions
        what = str(error).strip() or type(error).__name__
        reason = f"The image cannot be brought into the model's shape ({what}); leave it out."
        return Skipped(item.key, reason, content_hash(item.data), decoder(max_pixels))
    columns: dict[str, Any] = {"width": width, "height": height, "size": len(item.data)}
    columns["content_hash"] = content_hash(item.data)
    columns[PERCEPTUAL] = hashed
    row = Row(item.key, item.caption, {**columns, **item.meta}, thumb)
    return Prepared(row, tensors, looked)


def _thumb(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMB_SIDE, THUMB_SIDE), reducing_gap=2.0)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=75, method=2)
    return file.getvalue()


def _batches(prepared: Iterable[Prepared | Skipped], size: int, most: int) -> Iterator[list[Prepared | Skipped]]:
    """Lists with `size` images each, and whatever was skipped between them; at most `most` inputs in all."""
    batch: list[Prepared | Skipped] = []
    images = 0
    for one in prepared:
        batch.append(one)
        images += not isinstance(one, Skipped)
        if images == size or len(batch) == most:
            yield batch
            batch, images = [], 0
    if batch:
        yield batch


def _embed_batch(
    inputs: list[Prepared | Skipped], embedder: StagedEmbedder, texts: TextEmbedder | None, finder: Finder | None
) -> Embedded:
    try:
        vectors = embedder.embed_tensors([one.tensors for one in inputs if not isinstance(one, Skipped)])
    except InputError:  # one of them has no vector; the others must not suffer for it
        inputs, vectors = _embed_singly(inputs, embedder)
    images = [one for one in inputs if not isinstance(one, Skipped)]
    captions = [one.row.caption or "" for one in images]
    return Embedded(
        [one.row for one in images],
        vectors,
        texts.embed_texts(captions) if texts is not None and any(captions) else None,
        [one for one in inputs if isinstance(one, Skipped)],
        None if finder is None else finder.find([one.looked for one in images]),
        0 if texts is None else sum(bool(one.left_out) for one in read_texts(texts, captions)),
    )


def _embed_singly(
    inputs: list[Prepared | Skipped], embedder: StagedEmbedder
) -> tuple[list[Prepared | Skipped], Float32]:
    outcomes: list[Prepared | Skipped] = []
    vectors = [np.zeros((0, embedder.dim), np.float32)]
    for one in inputs:
        outcome = one
        if not isinstance(one, Skipped):
            try:
                vectors.append(embedder.embed_tensors([one.tensors]))
            except InputError as error:
                outcome = Skipped(one.row.key, str(error), one.row.columns["content_hash"])
        outcomes.append(outcome)
    return outcomes, np.concatenate(vectors)
