"""Small JPEGs of items for answers, made once."""

import base64
import io
import threading

from PIL import ExifTags, Image

from clipsieve.errors import InputError, NotFound
from clipsieve.index.collection import Collection

SIDE = 512
"""Pixels of the longer side."""

MOST_BYTES = 64 * 2**20
MOST_PIXELS = 89_478_485
"""Of an image that is decoded here, where Pillow begins to warn: 270 MB of RGB, and each thread may have one."""

_LYING = frozenset({5, 6, 7, 8})
"""EXIF's orientations that swap width and height."""

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
        with Image.open(io.BytesIO(data)) as opened:
            format, pixels = opened.format, opened.width * opened.height
            size = f"{opened.width} x {opened.height}"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        format, pixels, size = None, MOST_PIXELS + 1, "far too many"
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
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            width, height = opened.size
            turned = _orientation(opened) in _LYING
    except Exception as error:  # Pillow's readers raise nearly anything
        raise InputError(f"The image cannot be decoded ({error}); send another one.") from error
    return (height, width) if turned else (width, height)


def _orientation(image: Image.Image) -> int | None:
    try:
        found: int | None = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF must not cost the picture; it stays as it was stored
        return None
    return found


def small_jpeg(data: bytes) -> str | None:
    """An encoded image as base64 of a JPEG of at most SIDE pixels; None if it cannot be decoded."""
    try:
        refuse_bombs(data)
        with Image.open(io.BytesIO(data)) as opened:
            opened.draft("RGB", (SIDE, SIDE))
            image = opened.convert("RGB")
    except (OSError, ValueError):
        return None
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return base64.b64encode(file.getvalue()).decode()
