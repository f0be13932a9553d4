"""Three fixed images and texts that tell whether a model is still the one that made a collection."""

import functools
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipsieve.manifest import Probe
from clipsieve.protocols import ImageEmbedder, TextEmbedder

TEXTS = ("a photo of a red bus", "Two dogs, asleep on a sofa: one is brown!", "1984")


def probe(embedder: ImageEmbedder) -> Probe:
    """What the model makes of the fixed images and, if it has a text tower, of TEXTS; for the manifest."""
    texts = embedder.embed_texts(TEXTS) if isinstance(embedder, TextEmbedder) else None
    return Probe(embedder.embed_images(probe_images()), texts)


@functools.cache
def probe_images() -> tuple[bytes, ...]:
    """Three PNGs, the same pixels on every machine.

    None is square, so that another crop shows; stripes finer than any model's input make another resize show.
    """
    y, x = np.mgrid[0:480, 0:640]
    ramp = np.stack([x * 255 // 639, y * 255 // 479, 255 - x * 255 // 639], axis=-1)
    rings = ((x - 200) ** 2 + (y - 260) ** 2) // 1500 % 2 * 200 + (x // 3 % 2) * 55
    blocks = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (16, 12, 3)).repeat(40, axis=0).repeat(40, axis=1)
    rings_rgb = np.stack([rings, rings // 2, 255 - rings], axis=-1)
    return _png(ramp), _png(rings_rgb), _png(blocks)


def _png(pixels: npt.NDArray[np.int64]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
