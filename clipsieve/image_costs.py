"""What decoding an image costs in memory, told from its header.

The costs are measured: `python -m benchmarks.decoding_memory` measures them again and compares.
"""

from PIL import Image

from clipsieve.raster import LARGE_PIXELS, STRIP_PIXELS, needs_converting

STORED_BYTES = 4
"""Of a pixel in Pillow's raster, save those of STORED_MODES."""
STORED_MODES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}

CODEC_BYTES = {
    "PCX": 0,
    "PNG": 0,
    "BMP": 0,
    "DIB": 0,
    "PPM": 0,
    "JPEG": 0,
    "MPO": 0,
    "TGA": 0,
    "QOI": 0,
    "GIF": 4,
    "TIFF": 8,
    "HEIF": 8,
    "AVIF": 12,
    "WEBP": 14,
    "JPEG2000": 24,
}
"""Bytes that a format's decoder takes for each pixel of the whole image, beside Pillow's raster."""

OTHER_CODEC_BYTES = 12
"""Of formats that are not in CODEC_BYTES."""

PROGRESSIVE_BYTES = 2
"""Of each channel of a pixel of a JPEG that comes in several scans: coefficients are held until the last has come."""

STRIP_BYTES = 45
"""Of each pixel of a strip that is converted."""

FIXED_BYTES = 2**20


def decoding_bytes(
    opened: Image.Image,
    factor: int,
    *,
    size: tuple[int, int] | None = None,
    turned: bool = False,
    crops: bool = False,
) -> int:
    """Bytes that an image takes while it is decoded and reduced by `factor`, at most, by its header.

    size    width and height, where they are not those that the header says
    turned  whether it may be stored otherwise than upright
    crops   whether parts are cut out of it, one at a time, by `Raster.crop`
    """
    width, height = size or opened.size
    pixels = width * height
    raster = STORED_MODES.get(opened.mode, STORED_BYTES) * pixels
    codec = CODEC_BYTES.get(opened.format or "", OTHER_CODEC_BYTES) * pixels
    if opened.format in ("JPEG", "MPO"):
        raster //= min(factor, 8) ** 2
        if "progressive" in opened.info or _has_several_scans(opened):
            codec += PROGRESSIVE_BYTES * len(opened.getbands()) * pixels
    made = STORED_BYTES * (min(pixels, LARGE_PIXELS) if crops else pixels // factor**2)
    converting = needs_converting(opened)
    results = (made if converting or crops or factor > 1 else 0) + (made if turned else 0)
    strips = STRIP_BYTES * min(pixels, STRIP_PIXELS) if converting else 0
    return raster + codec + results + strips + FIXED_BYTES


def _has_several_scans(opened: Image.Image) -> bool:
    """Whether a JPEG that is not progressive has its channels one after the other; so where that is not clear."""
    opened.fp.seek(0)  # type: ignore[attr-defined]  # the bytes that `heif.open_image` was given
    data: bytes = opened.fp.read()  # type: ignore[attr-defined]
    at = 2
    while data[at : at + 1] == b"\xff":
        marker = data[at + 1 : at + 2]
        if marker == b"\xda":
            return data[at + 4 : at + 5] != bytes([len(opened.getbands())])
        at += 1 if marker == b"\xff" else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return True
