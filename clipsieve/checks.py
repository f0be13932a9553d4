"""What the nouns of `types` check of themselves; InputError that says where, what is there, and what it must be.

where  names the field, "Hit.key"
"""

import math
import unicodedata
from typing import get_args

import numpy as np

from clipsieve.errors import InputError, quoted

# A unit row that went through float16 and back is off by at most 2^-11 of its length.
UNIT_TOLERANCE = 1e-3

MOST_SHOWN = 200
"""Characters of what was given that an error repeats."""

_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""Unicode categories of characters that nobody sees."""


def check_finite(where: str, got: float) -> float:
    """A number, neither NaN nor infinite; as a float."""
    if isinstance(got, bool) or not isinstance(got, int | float | np.floating) or not math.isfinite(got):
        raise InputError(f"{where} is {quoted(got)}; it must be a finite number.")
    return float(got)


def check_count(where: str, got: object, least: int = 0) -> None:
    """A whole number from `least` on that 64 bits hold."""
    if isinstance(got, bool) or not isinstance(got, int) or not least <= got < 2**63:
        raise InputError(f"{where} is {got!r}; it must be a whole number from {least} on, below 2**63.")


def check_counts(where: str, got: tuple[int, ...]) -> None:
    """A tuple of whole numbers from 0 on."""
    check_tuple(where, got, int)
    for i, one in enumerate(got):
        check_count(f"{where}[{i}]", one)


def check_str(where: str, got: object) -> None:
    """A string."""
    if not isinstance(got, str):
        raise InputError(f"{where} is {quoted(got)}; it must be a string.")


def check_text(where: str, got: object) -> None:
    """A string that can be written down: JSON can say "\\ud83d", half of a letter, and so can a name of a file."""
    check_str(where, got)
    try:
        str(got).encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} holds {quoted(got)}, in which a letter is not whole; write it in UTF-8.") from None


def check_said(where: str, got: object) -> None:
    """A text of which something is to be seen: blanks, controls and marks of direction alone ask for nothing."""
    check_text(where, got)
    if all(unicodedata.category(letter) in _INVISIBLE for letter in str(got)):
        raise InputError(
            f"{where} is {str(got)[:MOST_SHOWN]!r}, an empty text; write what to look for, or leave it out."
        )


def check_choice(where: str, got: object, choices: object) -> None:
    """One of the values of a Literal."""
    allowed = get_args(choices)
    if got not in allowed:
        raise InputError(f"{where} is {quoted(got)}; it must be one of {', '.join(map(repr, allowed))}.")


def check_tuple(where: str, got: object, kind: type) -> None:
    """A tuple of nothing but that type."""
    if not isinstance(got, tuple):
        raise InputError(f"{where} is a {type(got).__name__}; it must be a tuple of {kind.__name__}.")
    for i, entry in enumerate(got):
        if not isinstance(entry, kind):
            raise InputError(f"{where}[{i}] is {quoted(entry)}; it must be a {kind.__name__}.")


def check_array(where: str, got: object, dtype: type, shape: str, sizes: tuple[int | None, ...]) -> None:
    """An array. `sizes` has one entry per axis, None where any size will do; `shape` is how the error writes it."""
    wanted = f"it must be a {np.dtype(dtype).name} array of shape {shape}"
    if not isinstance(got, np.ndarray):
        raise InputError(f"{where} is a {type(got).__name__}; {wanted}.")
    fits = got.ndim == len(sizes) and all(s is None or s == g for s, g in zip(sizes, got.shape, strict=True))
    if got.dtype != dtype or not fits:
        here = "" if None in sizes else f", here {sizes}"
        raise InputError(f"{where} is {got.dtype.name} {got.shape}; {wanted}{here}.")


def check_unit_rows(where: str, got: object) -> None:
    """float32 (n, d), C-contiguous, rows of length 1 within UNIT_TOLERANCE."""
    check_array(where, got, np.float32, "(n, d)", (None, None))
    assert isinstance(got, np.ndarray)
    if not got.flags.c_contiguous:
        raise InputError(f"{where} is not C-contiguous; pass numpy.ascontiguousarray of it.")
    if got.shape[1] == 0:
        raise InputError(f"{where} has shape {got.shape}; vectors need at least one dimension.")
    length = np.sqrt(np.einsum("ij,ij->i", got, got))
    bad = ~(np.abs(length - 1) <= UNIT_TOLERANCE)  # written so that NaN is bad
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(f"{where} row {row} has length {length[row]:.4g}; rows must have length 1, so normalise them.")
