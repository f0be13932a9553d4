"""Small pictures: JPEGs of items for answers, made once, and what a browser is shown; never of image bombs."""

import base64
import contextlib
import io
import threading
from collections.abc import Iterator

from PIL import Image

from clipsieve import image_files
from clipsieve.errors import InputError, NotFound, TooLarge
from clipsieve.heif import open_image
from clipsieve.image_memory import ImageMemory
from clipsieve.index.collection import Collection
from clipsieve.raster import is_turned

SIDE = 512
"""Pixels of the longer side."""

MOST_BYTES = 64 * 2**20
MOST_PIXELS = 89_478_485
"""Of an image that is decoded here, where Pillow begins to warn. What it takes is reserved, see `image_memory`."""

_SHOWN = frozenset({"GIF", "JPEG", "PNG", "WEBP"})
"""Formats that every browser shows."""

_PROGRAMS = frozenset({"EPS", "WMF"})
"""Formats that Pillow has another program draw."""


class Pictures:
    """Pictures of one collection's items; the least recently shown are forgotten first. Safe to use from threads."""

    def __init__(self, collection: Collection, memory: ImageMemory) -> None:
        self._collection = collection
        self._memory = memory
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
            picture = small_jpeg(self._collection.thumbnail(id), self._memory)
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


def upright_size(data: bytes, memory: ImageMemory) -> tuple[int, int]:
    """Width and height of an encoded image, turned upright by its EXIF. InputError if it cannot be decoded."""
    refuse_bombs(data)
    with _decoding():
        return image_files.upright_size(data, memory, max_pixels=MOST_PIXELS)


def shrink(data: bytes, side: int, memory: ImageMemory) -> Image.Image:
    """An encoded image of at most `side` pixels: RGB, turned upright by its EXIF, transparency laid on white.

    InputError if it cannot be decoded; TooLarge and Overloaded as `ImageMemory.hold` has them.
    """
    refuse_bombs(data)
    with _decoding():
        factor = _factor(data, side)
        with image_files.open_raster(data, memory, max_pixels=MOST_PIXELS, factor=factor) as raster:
            made = raster.reduced(factor)
    made.thumbnail((side, side))
    return made


def _factor(data: bytes, side: int) -> int:
    """By which power of 2 an image's sides can be divided so that the longer one keeps twice `side` at least."""
    try:
        with open_image(data) as opened:
            longer = max(opened.size)
    except MemoryError:
        raise
    except Exception:  # Pillow's readers raise nearly anything; whoever decodes says so
        return 1
    return 1 << max(0, (longer // (2 * side)).bit_length() - 1)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"The image cannot be decoded ({error}); send another one.") from error


def small_webp(data: bytes, side: int, memory: ImageMemory) -> bytes:
    """An encoded image as a WebP, as `shrink` has it; as it is where a browser shows it so. Errors as there."""
    refuse_bombs(data)
    if _is_shown(data, side):
        return data
    return encoded(shrink(data, side, memory), "WEBP", quality=80, method=2)


def _is_shown(data: bytes, side: int) -> bool:
    """Whether a browser shows the file as it is, upright and no larger than `side`."""
    try:
        with open_image(data) as opened:
            return opened.format in _SHOWN and max(opened.size) <= side and not is_turned(opened)
    except MemoryError:
        raise
    except Exception:  # Pillow's readers raise nearly anything; whoever decodes says so
        return False


def small_jpeg(data: bytes, memory: ImageMemory) -> str | None:
    """An encoded image as base64 of a JPEG of at most SIDE pixels; None if it cannot be decoded, whenever it is asked.

    Overloaded as `ImageMemory.hold` has it.
    """
    try:
        return base64.b64encode(encoded(shrink(data, SIDE, memory), "JPEG", quality=85)).decode()
    except (InputError, TooLarge):
        return None


def encoded(image: Image.Image, format: str, **options: int) -> bytes:
    """The image in a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
