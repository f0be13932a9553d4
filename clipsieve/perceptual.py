"""A small picture of each item, by which copies of an image are known again: `perceptual_hash` in the metadata.

384 bytes: luminance at 16 x 16, then Cb and Cr at 8 x 8, each a byte, row by row. Vectors tell what an image shows;
this tells whether two files are of one picture. `index/witness.py` compares.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

COLUMN = "perceptual_hash"
"""The metadata column. It is for machines alone: rows that people or other programs get are without it."""

SIDE = 16
BYTES = SIDE * SIDE + 2 * (SIDE // 2) ** 2

SAMPLES = 4
"""Pixels along each side of a cell that are looked at, where there are more: all would cost as much as scaling does."""


def perceptual_hash(image: Image.Image) -> bytes:
    """That of an upright RGB image."""
    most = SAMPLES * SIDE
    if max(image.size) > 2 * most:
        image = image.resize((min(image.width, most), min(image.height, most)), Image.Resampling.NEAREST)
    small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    colours = small.reduce(2).convert("YCbCr").tobytes()
    return small.convert("L").tobytes() + colours[1::3] + colours[2::3]


def hash_of_thumbnail(data: bytes) -> bytes | None:
    """That of a small encoded picture; None where it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return perceptual_hash(opened.convert("RGB"))
    except (OSError, ValueError):
        return None


def hashes_as_array(hashes: list[bytes | None]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Of n items: the bytes, uint8 (n, BYTES), zeros where there are none, and which have some, bool (n,)."""
    known = np.array([isinstance(one, bytes) and len(one) == BYTES for one in hashes], dtype=np.bool_)
    made = np.zeros((len(hashes), BYTES), np.uint8)
    if known.any():
        joined = b"".join(one for one, there in zip(hashes, known, strict=True) if there and one is not None)
        made[known] = np.frombuffer(joined, np.uint8).reshape(-1, BYTES)
    return made, known
