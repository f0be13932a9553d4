"""An image decoded once, in the mode that its file has, and seen upright in RGB: whole, reduced, or a part of it.

Pillow's raster of the whole image is the only thing here that is as large as the image. Laying transparency on white,
scaling to 8 bits and reducing go strip by strip, since each would otherwise hold a second or third raster.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from clipsieve.types import Decoding

STRIP_PIXELS = 2**20
"""Pixels that are converted at a time, in whole rows."""

LARGE_PIXELS = 50_000_000
"""Larger images are reduced before a model scales them. Smaller ones reach it with every pixel that they have."""

REDUCED_PIXELS = 4_000_000
"""That a large image keeps at least."""

View = Decoding | Literal["stored"]
"""What is seen of an image: RGB by one of the decodings, or the image in its own mode, to be made RGB later."""

SCALABLE = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16"})
"""Modes that Pillow scales and then converts to RGB. Images of others are converted first."""

PixelBox = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""

_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what turns the stored image upright."""

_LYING = frozenset({5, 6, 7, 8})


def reduction(width: int, height: int) -> int:
    """By which power of 2 both sides of an image are divided before a model sees it; 1 up to LARGE_PIXELS."""
    pixels = width * height
    factor = 1
    while pixels > LARGE_PIXELS and pixels // (2 * factor) ** 2 >= REDUCED_PIXELS:
        factor *= 2
    return factor


class Raster:
    """An image that was opened, with its pixels once they are asked for. For one thread.

    guard  a context around each call to Pillow that needs pixels, for what it raises on a damaged file
    """

    def __init__(
        self, opened: Image.Image, guard: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    ) -> None:
        self._image = opened
        self._guard = guard
        self._stored = opened.size
        self._orientation = 1
        self._loaded = False
        self._scaled = 1
        self._black_white: tuple[float, float] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height upright, of the whole image. It is decoded for that: some formats say it only then."""
        with self._guard():
            self._load(1)
        return _turned_size(self._stored, self._orientation)

    def whole(self, decoding: Decoding = "own") -> Image.Image:
        """Every pixel, RGB of 8 bits; upright unless the decoding is that of the reference."""
        with self._guard():
            self._load(1)
            return self._seen((0, 0, *self._image.size), 1, decoding)

    def reduced(self, factor: int, view: View = "own", *, last: bool = True) -> Image.Image:
        """The image with both sides divided by `factor`, a power of 2, and rounded up.

        JPEGs are decoded at an eighth, a quarter or half of their size as far as that goes, others by the mean of
        each `factor` x `factor` pixels. Where that is more than 1, only the same can be asked for afterwards, and
        nothing at all after the `last`.
        """
        with self._guard():
            self._load(factor)
            made = self._seen((0, 0, *self._image.size), max(1, factor // self._scaled), view)
        if factor > 1 and last:
            self._image = made  # lets go of the large one
        return made

    def for_model(self, view: View = "own", *, last: bool = True) -> Image.Image:
        """What a model sees: whole, or `reduced` where it has more than LARGE_PIXELS, which is then RGB in any case."""
        return self.reduced(reduction(*self._stored), view, last=last)

    def crop(self, box: PixelBox) -> Image.Image:
        """A part of the upright image: every pixel of it, or reduced where it alone has more than LARGE_PIXELS."""
        with self._guard():
            self._load(1)
            left, top, right, bottom = stored = self._stored_box(box)
            return self._seen(stored, reduction(right - left, bottom - top))

    def _load(self, factor: int) -> None:
        """Decode, unless that was done."""
        if self._loaded:
            return
        if factor > 1:
            width, height = self._image.size
            self._image.draft(None, (max(1, width // factor), max(1, height // factor)))
            self._scaled = max(1, round(width / self._image.size[0]))
        self._image.load()
        if self._scaled == 1:
            self._stored = self._image.size  # that of icons is another one now
        self._orientation = orientation(self._image)  # of a PNG it may stand behind the pixels
        self._loaded = True

    def _seen(self, box: PixelBox, factor: int, view: View = "own") -> Image.Image:
        """A part of the stored image, reduced; turned upright, which the reference does not do."""
        if view == "stored" and factor == self._scaled == 1 and self._image.mode in SCALABLE:
            return _plain(self._image, None)
        profile = None
        reference = view != "own"
        if self._image.mode == "RGB" if reference else not needs_converting(self._image):
            profile = self._image.info.get("icc_profile")
            whole = box == (0, 0, *self._image.size)
            flat = self._image.reduce(factor, box) if factor > 1 else self._image if whole else self._image.crop(box)
        else:
            flat = self._flat(box, factor, _by_pillow if reference else self._converter())
        if self._orientation in _TURNS and not reference:
            flat = flat.transpose(_TURNS[self._orientation])
        return _plain(flat, profile)

    def _flat(self, box: PixelBox, factor: int, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
        left, top, right, bottom = box
        width, height = -(-(right - left) // factor), -(-(bottom - top) // factor)
        made = Image.new("RGB", (width, height))
        for first, end in _strips(top, bottom, right - left, factor):
            part = convert(self._image.crop((left, first, right, end)))
            made.paste(part.reduce(factor) if factor > 1 else part, (0, (first - top) // factor))
        return made

    def _stored_box(self, box: PixelBox) -> PixelBox:
        left, top, right, bottom = box
        width, height = self.size
        if self._orientation in _LYING:
            left, top, right, bottom = top, left, bottom, right
            width, height = height, width
        if self._orientation in (2, 3, 7, 8):
            left, right = width - right, width - left
        if self._orientation in (3, 4, 6, 7):
            top, bottom = height - bottom, height - top
        return left, top, right, bottom

    def _converter(self) -> Callable[[Image.Image], Image.Image]:
        """What makes RGB of a part of the stored image."""
        mode = self._image.mode
        if mode in _ALPHA or "transparency" in self._image.info:
            return _on_white
        if mode.startswith("I;16"):
            return lambda part: _from_unit(np.asarray(part, dtype=np.float64) / 65535)
        if mode in ("I", "F"):
            low, span = self._range()
            return lambda part: _from_unit((_finite(part) - low) / span)
        return _by_pillow

    def _range(self) -> tuple[float, float]:
        """Which 32-bit or float value of the whole image becomes black, and how far above it white is."""
        if self._black_white is None:
            width, height = self._image.size
            strips = (_finite(self._image.crop((0, a, width, b))) for a, b in _strips(0, height, width, 1))
            ends = [(float(strip.min()), float(strip.max())) for strip in strips]
            self._black_white = _range_of(
                min(low for low, _ in ends), max(high for _, high in ends), can_be_unit=self._image.mode == "F"
            )
        return self._black_white


def orientation(image: Image.Image) -> int:
    """How the image was stored, by its EXIF: 1 where it is upright, or where its EXIF is damaged or says nothing.

    Of a PNG, this decodes it, since its EXIF may stand behind the pixels.
    """
    if image.format == "TIFF":  # Pillow itself turns them
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF must not cost the picture; it stays as it was stored
        return 1
    return found if isinstance(found, int) and found in _TURNS else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height upright of an image that was opened. Of a PNG, this decodes it."""
    return _turned_size(image.size, orientation(image))


def _turned_size(size: tuple[int, int], stored: int) -> tuple[int, int]:
    return (size[1], size[0]) if stored in _LYING else size


def is_turned(image: Image.Image) -> bool:
    """Whether the image is stored otherwise than upright. Of a PNG, this decodes it."""
    return orientation(image) != 1


def needs_converting(image: Image.Image) -> bool:
    """Whether the image is stored otherwise than as RGB of 8 bits."""
    return image.mode != "RGB" or "transparency" in image.info


def _strips(top: int, bottom: int, width: int, factor: int) -> Iterator[tuple[int, int]]:
    """First and last row, the latter exclusive, of strips of STRIP_PIXELS; a multiple of `factor` rows each."""
    rows = max(1, STRIP_PIXELS // max(1, width * factor)) * factor
    for first in range(top, bottom, rows):
        yield first, min(first + rows, bottom)


def _by_pillow(part: Image.Image) -> Image.Image:
    part.info.pop("transparency", None)  # of a palette, which RGB does without: Pillow would warn that it is lost
    return part.convert("RGB")


def _on_white(part: Image.Image) -> Image.Image:
    layer = part.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _finite(part: Image.Image) -> npt.NDArray[np.float64]:
    return np.nan_to_num(np.asarray(part, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _range_of(low: float, high: float, *, can_be_unit: bool) -> tuple[float, float]:
    if low >= 0:
        for full in (1.0, 255.0, 65535.0) if can_be_unit else (255.0, 65535.0):
            if high <= full:
                return 0.0, full
    return low, high - low or 1.0


def _from_unit(values: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")


def _plain(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The same pixels without their file, which they would keep in memory, and without EXIF that no longer holds."""
    made = image._new(image.im)  # a copy() would take as much memory again
    made.info = {} if profile is None else {"icc_profile": profile}
    return made
