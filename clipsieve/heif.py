"""Opening encoded images with Pillow, and HEIC with pillow-heif, which Pillow does not read by itself.

The plugin is called for HEIC alone and not registered with Pillow: that would change what `Image.open` reads in the
whole process, a program that uses clipsieve as a library included.
"""

import importlib.util
import io
import re

from PIL import Image

from clipsieve.errors import InputError

SUFFIXES = (".heic", ".heif", ".hif", ".heics", ".heifs")

MOST_ICON_PIXELS = 2**20
"""Of an image in an .ico file, whose sides have 256 pixels at most."""

_PNG = re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR(.{4})(.{4})", re.DOTALL)

_BRANDS = frozenset(
    {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2", b"msf2"}
)


def is_heif(head: bytes) -> bool:
    """Whether an encoded image is HEIC or HEIF, by its first 64 bytes. AVIF, which Pillow reads, is not."""
    size = int.from_bytes(head[:4], "big")
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(size, len(head)) - 3, 4))}
    return head[4:8] == b"ftyp" and bool(brands & _BRANDS) and not brands & {b"avif", b"avis"}


def has_heif() -> bool:
    """Whether pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def open_image(data: bytes, formats: list[str] | None = None) -> Image.Image:
    """As `Image.open` of the bytes: the header is read, and the pixels once they are asked for.

    formats  Pillow's that are tried; all by default

    InputError for HEIC where pillow-heif is not installed, and for icons that are bombs; else what Pillow's readers
    raise, which is nearly anything.
    """
    _check_icon(data)
    if not is_heif(data[:64]):
        return Image.open(io.BytesIO(data), formats=formats)
    if not has_heif():
        raise InputError("HEIC is read with pillow-heif, which is not installed here; install it, or convert to JPEG.")
    from pillow_heif.as_plugin import HeifImageFile

    opened: Image.Image = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    return opened


def _check_icon(data: bytes) -> None:
    """InputError for an icon that holds more than icons do: Pillow decodes them while it opens them."""
    if data[:4] != b"\0\0\1\0":
        return
    for found in _PNG.finditer(data):
        width, height = (int.from_bytes(side, "big") for side in found.groups())
        if width * height > MOST_ICON_PIXELS:
            raise InputError(f"The icon holds an image of {width} x {height} pixels; leave it out, or convert that.")
