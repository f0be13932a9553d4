"""What a model shows when it is loaded: that it tells texts apart, and images.

A checkpoint may open and yet be of no use: with the tokenizer of another model all texts are the same to it, and every
question has one answer. It costs a pass over four short texts and one over two images.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from clipsieve.errors import ModelUnavailable
from clipsieve.types import Float32

PAIRS = (("red bus", "two dogs"), ("红 车", "两 狗"))
"""Texts with as many words each, so that a model that knows none of their words cannot tell them by their length."""

SAME = 1e-6
"""Two vectors that differ by less in every number are one."""

ALONE = 0.02
"""What a text's vector may change by in a batch; half precision needs most of it."""


def check_texts(name: str, embed: Callable[[Sequence[str]], Float32]) -> Float32:
    """The vectors of PAIRS, float32 (4, d). ModelUnavailable if all are one, or a batch changes them."""
    texts = [text for pair in PAIRS for text in pair]
    rows = embed(texts)
    if not any(_differ(*rows[i : i + 2]) for i in range(0, len(rows), 2)):
        raise ModelUnavailable(
            f"The model {name!r} gives the texts {texts[0]!r} and {texts[1]!r} one vector; its tokenizer is another "
            "model's, or its weights are not whole: use a whole checkpoint."
        )
    alone = embed(texts[:1])
    if not np.abs(alone[0] - rows[0]).max() <= ALONE:
        raise ModelUnavailable(
            f"The model {name!r} gives the text {texts[0]!r} other vectors in a batch than alone; its tokenizer does "
            "not tell padding from text: use a whole checkpoint."
        )
    return rows


def require_apart(name: str, rows: Float32, what: str) -> None:
    """ModelUnavailable if the first two of the rows, float32 (n, d), are the same."""
    if not _differ(rows[0], rows[1]):
        raise ModelUnavailable(
            f"The model {name!r} gives two different {what} one vector; its weights are not whole: "
            "use a whole checkpoint."
        )


def pictures_to_tell_apart(side: int) -> list[Image.Image]:
    """Two pictures of `side` pixels: a ramp from left to right, and blocks of other colours."""
    y, x = np.mgrid[0:side, 0:side]
    ramp = np.stack([x * 255 // side, x * 0 + 40, 255 - x * 255 // side], axis=-1)
    blocks = np.stack([(x // 4 + y // 4) % 2 * 255, y * 255 // side, x * 0 + 128], axis=-1)
    return [Image.fromarray(pixels.astype(np.uint8)) for pixels in (ramp, blocks)]


def _differ(one: Float32, other: Float32) -> bool:
    return bool(np.abs(one - other).max() > SAME)
