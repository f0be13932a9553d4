"""Encoded images, opened: which formats are read, what is refused by the header, and in which words.

The header is read first, and the memory that decoding takes is reserved before a pixel is decoded. Pillow's own
settings are left alone.
"""

import contextlib
import re
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from clipsieve import raster
from clipsieve.errors import InputError
from clipsieve.heif import open_image
from clipsieve.image_costs import decoding_bytes
from clipsieve.image_memory import ImageMemory
from clipsieve.raster import Raster, is_turned, reduction

MAX_PIXELS = 178_956_970
"""Largest image that is decoded unless told otherwise: where Pillow itself refuses, half a gigabyte of RGB."""

# Formats that start another program (EPS), that Pillow knows by name only, that are no pictures, or (IPTC) that hold a
# whole file of another format, of which their header says nothing.
_REFUSED = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
_COMMON = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_PNG = re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR(.{4})(.{4})", re.DOTALL)
_JPEG2000 = re.compile(rb"ihdr(.{4})(.{4})", re.DOTALL)
_JPEG = re.compile(rb"\xff[\xc0-\xc2]\x00\x11\x08(.{2})(.{2})", re.DOTALL)
_WITHIN = {"BLP": (_JPEG,), "ICNS": (_PNG, _JPEG2000)}
"""Formats that hold files of other formats, which may be larger than their own header says: where those say it."""


def readable_formats() -> list[str]:
    """Pillow's names of the formats that are read, the commonest first."""
    # Formats without an extension (MCIDAS, XVTHUMB, ...) claim files by so little that plain text can pass for one.
    Image.init()
    named = {format for format in Image.EXTENSION.values() if format in Image.OPEN} - _REFUSED
    return [*(f for f in _COMMON if f in named), *sorted(named - set(_COMMON))]


@contextlib.contextmanager
def open_raster(
    data: bytes, memory: ImageMemory, *, max_pixels: int = MAX_PIXELS, factor: int | None = 1, crops: bool = False
) -> Iterator[Raster]:
    """The image in `data`, while a `with` lasts, during which the memory that it takes stays reserved.

    factor  by which its sides are to be divided at least; None: as `Raster.for_model` does it
    crops   whether parts are to be cut out of it

    InputError says in a sentence why there is no image: empty, not an image, damaged, over `max_pixels`; later, when
    pixels are asked for, as well. TooLarge and Overloaded as `ImageMemory.hold` has them.
    """
    if not data:
        raise InputError("The file is empty (0 bytes); replace it.")
    with sentences(max_pixels):
        opened = open_image(data, readable_formats())
        width, height = _size(opened, data)
    with opened:
        if width * height > max_pixels:
            raise _too_large(f"{width} x {height} pixels", max_pixels)
        divided = reduction(width, height) if factor is None else factor
        turned = _may_be_turned(opened, data)
        cost = decoding_bytes(opened, divided, size=(width, height), turned=turned, crops=crops)
        with memory.hold(cost, f"The image of {width} x {height} pixels ({opened.format})"):
            yield Raster(opened, lambda: sentences(max_pixels))


def upright_size(data: bytes, memory: ImageMemory, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of an encoded image, upright, in pixels. The errors are those of `open_raster`."""
    with open_raster(data, memory, max_pixels=max_pixels, factor=8) as found:
        found.reduced(8)  # the whole file is read: one that is cut short has no size
        return found.size


def header_size(data: bytes, memory: ImageMemory) -> tuple[int, int]:
    """The same as the header says it, without decoding, save where a PNG's may stand behind its pixels."""
    with sentences(MAX_PIXELS), open_image(data, readable_formats()) as opened:
        if opened.format != "PNG":
            return raster.upright_size(opened)
        if not _may_be_turned(opened, data):
            return opened.size
    return upright_size(data, memory)


def require_image(data: bytes, memory: ImageMemory, *, whole: bool) -> None:
    """InputError in a sentence for bytes that are no image; else the errors of `open_raster`.

    whole  decode it; else the header will do
    """
    if whole:
        upright_size(data, memory)
        return
    with sentences(MAX_PIXELS), open_image(data, readable_formats()):
        pass


@contextlib.contextmanager
def sentences(max_pixels: int) -> Iterator[None]:
    """What Pillow's readers raise, which is nearly anything, as InputError; a MemoryError is no fault of the file."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise InputError(
            "The file is no image that Pillow reads here, or damaged at its beginning; convert it or leave it out."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("too many pixels for Pillow", max_pixels) from None
    except Exception as error:
        what = str(error).strip() or type(error).__name__
        raise InputError(f"The image is damaged or cut short ({what}); restore it from a copy.") from error


def _size(opened: Image.Image, data: bytes) -> tuple[int, int]:
    """Width and height of what will be decoded at most. InputError where nothing tells."""
    if opened.format == "FITS" and any("gzip" in str(tile[0]) for tile in getattr(opened, "tile", ())):
        raise InputError("The FITS image is packed with gzip, to a size that it does not say; unpack it.")
    sizes = [opened.size]
    tags = getattr(opened, "tag_v2", {})
    width, height = (tags.get(tag) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
    if width is not None and height is not None:  # of a TIFF; it is decoded whole, however little of it is seen
        sizes.append((int(width), int(height)))
    for pattern in _WITHIN.get(opened.format or "", ()):
        for found in pattern.finditer(data):
            numbers = [int.from_bytes(group, "big") for group in found.groups()]
            sizes.append((numbers[0], numbers[1]))
    return max(sizes, key=lambda size: size[0] * size[1])


def _may_be_turned(opened: Image.Image, data: bytes) -> bool:
    """Whether the image may be stored otherwise than upright, without decoding it."""
    # It may stand behind the pixels, and Pillow decodes those to look for it.
    if opened.format == "PNG" and "exif" not in opened.info:
        return any(chunk in data for chunk in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"))
    return is_turned(opened)


def _too_large(what: str, max_pixels: int) -> InputError:
    return InputError(
        f"The image has {what} and at most {max_pixels} are decoded (it may be a decompression bomb); scale it down, "
        "or raise the limit if you trust it."
    )
