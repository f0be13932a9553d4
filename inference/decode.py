"""Encoded bytes to one upright RGB image, whatever the file held.

Exact: every pixel is decoded, no draft mode, no reduced scale, save what `image_files.open_raster` gives to models of
images above `raster.LARGE_PIXELS`.
"""

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import TypeVar

import PIL
from PIL import Image

from clipsieve.errors import InputError
from clipsieve.heif import SUFFIXES, has_heif
from clipsieve.image_files import MAX_PIXELS, open_raster, readable_formats
from clipsieve.image_memory import ImageMemory
from clipsieve.raster import View
from clipsieve.types import Decoding

_In = TypeVar("_In")
_Out = TypeVar("_Out")

__all__ = [
    "MAX_PIXELS",
    "decode",
    "decode_for_model",
    "decoder",
    "decoding_of",
    "image_extensions",
    "prepare_each",
    "view_of",
]


def image_extensions() -> frozenset[str]:
    """Lower-case extensions, with their dot, of every format that `decode` can read, given pillow-heif for HEIC."""
    formats = set(readable_formats())
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


def decoding_of(embedder: object) -> Decoding:
    """How an embedder wants images decoded: its attribute `decoding`, "own" where it has none."""
    decoding: Decoding = getattr(embedder, "decoding", "own")
    return decoding


def view_of(embedder: object) -> View:
    """What an embedder is to be shown of an image: its attribute `view`, else as it wants images decoded."""
    view: View = getattr(embedder, "view", decoding_of(embedder))
    return view


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    memory: ImageMemory | None = None,
    decoding: Decoding = "own",
) -> Image.Image:
    """The image in `data`: mode RGB, 8 bits, turned upright by its EXIF, its first frame if it moves.

    Transparency is laid on white. More than 8 bits a channel are scaled to 8, not cut off: 16-bit values by their full
    range; 32-bit and float ones by the least of 1 (float only), 255 and 65535 that holds them all, else from their
    minimum to their maximum. Colour profiles are not applied: the models were trained without.

    memory    from which what decoding takes is reserved meanwhile; by default one image is no matter
    decoding  "reference": none of that, but PIL's `convert("RGB")` of the image as it is stored, as open_clip and
              transformers have it: what is transparent shows the colours behind it, 16 bits are cut off at 255, and
              EXIF turns nothing

    InputError says in a sentence why there is no image: empty, not an image, damaged, over `max_pixels`.
    """
    with open_raster(data, memory or ImageMemory(), max_pixels=max_pixels) as raster:
        return raster.whole(decoding)


def decode_for_model(
    data: bytes, memory: ImageMemory, prepare: Callable[[Image.Image], _Out], view: View = "own"
) -> _Out:
    """What `prepare` makes of the image, where it is large reduced, see `Raster.for_model`. Errors as `decode`."""
    with open_raster(data, memory, factor=None) as raster:
        return prepare(raster.for_model(view))
