"""Encoded bytes to one upright RGB image, whatever the file held.

Exact: every pixel is decoded, no draft mode, no reduced scale. Pillow's own settings are left alone; what must be
refused is refused here, from the header, before a pixel is decoded.
"""

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from clipsieve.errors import InputError
from clipsieve.heif import SUFFIXES, has_heif, open_image

_In = TypeVar("_In")
_Out = TypeVar("_Out")

MAX_PIXELS = 178_956_970
"""Largest image that is decoded unless told otherwise: where Pillow itself refuses, half a gigabyte of RGB."""

# Formats that start another program (EPS), that Pillow knows by name only, or that are no pictures.
_REFUSED = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"})
_COMMON = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


def image_extensions() -> frozenset[str]:
    """Lower-case extensions, with their dot, of every format that `decode` can read, given pillow-heif for HEIC."""
    formats = set(_formats())
    return frozenset({".mpo", *SUFFIXES, *(ext for ext, format in Image.EXTENSION.items() if format in formats)})


def decoder(max_pixels: int = MAX_PIXELS) -> str:
    """What `decode` reads with here: where that changes, what could not be decoded is worth another try."""
    heif = version("pillow-heif") if has_heif() else "none"
    return f"pillow {PIL.__version__}, pillow-heif {heif}, {max_pixels} pixels"


def prepare_each(images: Iterable[_In], prepare: Callable[[_In], _Out], to_be: str) -> list[_Out]:
    """What `prepare` makes of each image. Its InputError says then which one cannot be `to_be`: "embedded"."""
    made = []
    for position, image in enumerate(images):
        try:
            made.append(prepare(image))
        except InputError as error:
            raise InputError(f"Image {position} cannot be {to_be}: {error}") from error
    return made


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image in `data`: mode RGB, 8 bits, turned upright by its EXIF, its first frame if it moves.

    Transparency is laid on white. More than 8 bits a channel are scaled to 8, not cut off: 16-bit values by their full
    range; 32-bit and float ones by the least of 1 (float only), 255 and 65535 that holds them all, else from their
    minimum to their maximum. Colour profiles are not applied: the models were trained without.

    InputError says in a sentence why there is no image: empty, not an image, damaged, over `max_pixels`.
    """
    if not data:
        raise InputError("The file is empty (0 bytes); replace it.")
    try:
        with open_image(data, _formats()) as opened:
            width, height = opened.size
            if width * height > max_pixels:
                raise _too_large(f"{width} x {height} pixels", max_pixels)
            opened.load()
            return _rgb(_upright(opened))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(
            "The file is no image that Pillow reads here, or damaged at its beginning; convert it or leave it out."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("too many pixels for Pillow", max_pixels) from None
    except MemoryError:
        raise InputError("The image does not fit into memory; scale it down.") from None
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file: struct.error, KeyError, ...
        what = str(error).strip() or type(error).__name__
        raise InputError(f"The image is damaged or cut short ({what}); restore it from a copy.") from error


def _formats() -> list[str]:
    # Formats without an extension (MCIDAS, XVTHUMB, ...) claim files by so little that plain text can pass for one.
    Image.init()
    named = {format for format in Image.EXTENSION.values() if format in Image.OPEN} - _REFUSED
    return [*(f for f in _COMMON if f in named), *sorted(named - set(_COMMON))]


def _too_large(what: str, max_pixels: int) -> InputError:
    return InputError(
        f"The image has {what} and at most {max_pixels} are decoded (it may be a decompression bomb); scale it down, "
        "or raise the limit if you trust it."
    )


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF must not cost the picture; it stays as it was stored
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _ALPHA or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if image.mode.startswith("I;16"):
        return _from_unit(np.asarray(image, dtype=np.float64) / 65535)
    if image.mode in ("I", "F"):
        return _from_unit(_to_unit(np.asarray(image, dtype=np.float64), can_be_unit=image.mode == "F"))
    # copy(): convert() hands back the very image, which closes with its file.
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _to_unit(values: npt.NDArray[np.float64], *, can_be_unit: bool) -> npt.NDArray[np.float64]:
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0:
        for full in (1.0, 255.0, 65535.0) if can_be_unit else (255.0, 65535.0):
            if high <= full:
                return values / full
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _from_unit(values: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")
