"""Small pictures: JPEGs of items for answers, made once, and what a browser is shown; never of image bombs."""

import base64
import contextlib
import io
import threading

import numpy as np
from PIL import ExifTags, Image, ImageOps

from clipsieve.errors import InputError, NotFound
from clipsieve.heif import open_image
from clipsieve.index.collection import Collection

SIDE = 512
"""Pixels of the longer side."""

MOST_BYTES = 64 * 2**20
MOST_PIXELS = 89_478_485
"""Of an image that is decoded here, where Pillow begins to warn: 270 MB of RGB, and each thread may have one."""

_LYING = frozenset({5, 6, 7, 8})
"""EXIF's orientations that swap width and height."""

_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_SHOWN = frozenset({"GIF", "JPEG", "PNG", "WEBP"})
"""Formats that every browser shows."""

_PROGRAMS = frozenset({"EPS", "WMF"})
"""Formats that Pillow has another program draw."""


class Pictures:
    """Pictures of one collection's items; the least recently shown are forgotten first. Safe to use from threads."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._made: dict[int, str | None] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, id: int) -> str | None:
        """The item as a JPEG of at most SIDE pixels, in base64; None where it cannot be read."""
        with self._lock:
            if id in self._made:
                picture = self._made.pop(id)
                self._made[id] = picture
                return picture
        try:
            picture = small_jpeg(self._collection.thumbnail(id))
        except NotFound:
            picture = None
        with self._lock:
            if id not in self._made:
                self._made[id] = picture
                self._bytes += len(picture or "")
            while self._bytes > MOST_BYTES:
                self._bytes -= len(self._made.pop(next(iter(self._made))) or "")
        return picture


def refuse_bombs(data: bytes) -> None:
    """InputError for an encoded image of more than MOST_PIXELS, or that another program would draw, by its header.

    What is no image is for the decoder to say.
    """
    try:
        with open_image(data) as opened:
            format, pixels = opened.format, opened.width * opened.height
            size = f"{opened.width} x {opened.height}"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        format, pixels, size = None, MOST_PIXELS + 1, "far too many"
    except MemoryError:
        raise
    except Exception:  # Pillow's readers raise nearly anything
        return
    if format in _PROGRAMS:
        raise InputError(f"Images in {format} are not read; send a JPEG or PNG.")
    if pixels > MOST_PIXELS:
        raise InputError(f"The image has {size} pixels, and at most {MOST_PIXELS:,} are decoded; send a smaller one.")


def upright_size(data: bytes) -> tuple[int, int]:
    """Width and height of an encoded image, turned upright by its EXIF. InputError if it cannot be decoded."""
    refuse_bombs(data)
    try:
        with open_image(data) as opened:
            opened.load()
            width, height = opened.size
            turned = _orientation(opened) in _LYING
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything
        raise InputError(f"The image cannot be decoded ({error}); send another one.") from error
    return (height, width) if turned else (width, height)


def _orientation(image: Image.Image) -> int | None:
    try:
        found: int | None = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF must not cost the picture; it stays as it was stored
        return None
    return found


def _is_turned(image: Image.Image) -> bool:
    return _orientation(image) not in (None, 1)


def shrink(data: bytes, side: int) -> Image.Image:
    """An encoded image of at most `side` pixels: RGB, turned upright by its EXIF, transparency laid on white.

    InputError if it cannot be decoded.
    """
    refuse_bombs(data)
    try:
        with open_image(data) as opened:
            opened.draft("RGB", (side, side))
            made = _flat(ImageOps.exif_transpose(opened) if _is_turned(opened) else opened)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything
        raise InputError(f"The image cannot be decoded ({error}); send another one.") from error
    made.thumbnail((side, side))
    return made


def _flat(image: Image.Image) -> Image.Image:
    if image.mode in _ALPHA or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if image.mode.startswith("I;16"):  # of which convert() would keep the darkest 256 levels
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def small_webp(data: bytes, side: int) -> bytes:
    """An encoded image as a WebP, as `shrink` has it; as it is where a browser shows it so. Errors as there."""
    refuse_bombs(data)
    with contextlib.suppress(Exception), open_image(data) as opened:
        if opened.format in _SHOWN and max(opened.size) <= side and not _is_turned(opened):
            return data
    return encoded(shrink(data, side), "WEBP", quality=80, method=2)


def small_jpeg(data: bytes) -> str | None:
    """An encoded image as base64 of a JPEG of at most SIDE pixels; None if it cannot be decoded."""
    try:
        return base64.b64encode(encoded(shrink(data, SIDE), "JPEG", quality=85)).decode()
    except InputError:
        return None


def encoded(image: Image.Image, format: str, **options: int) -> bytes:
    """The image in a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
