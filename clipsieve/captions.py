"""Captions as tables and JSON hold them: texts, and also numbers, dates, bytes and lists."""

import math
from collections.abc import Mapping, Sequence

NO_TEXT = "caption_error"
"""The column that says, of an item whose caption is no text, what it is instead."""


def caption_text(value: object) -> tuple[str | None, bool]:
    """The caption that a field holds, and whether that is all it holds.

    Numbers, booleans and dates are written out, 1984.0 as 1984; bytes are UTF-8. Of a list the first text is the
    caption. Blank, None and NaN are no caption. Where the second is False, the field has to be kept beside it: a list
    of several, an object, or bytes that are no text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, True
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None, False
    if isinstance(value, str):
        return value.strip() or None, True
    if isinstance(value, bool):
        return str(value).lower(), True
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value), True
    if isinstance(value, Mapping):
        return None, not value
    if isinstance(value, Sequence):
        found = [caption_text(entry) for entry in value]
        first = next((text for text, _ in found if text is not None), None)
        return first, len(found) <= 1 and all(whole for _, whole in found)
    return str(value).strip() or None, True


def no_text(value: object) -> str | None:
    """A sentence on a field that is meant for a caption and holds no text; None where it holds one, or nothing."""
    text, whole = caption_text(value)
    if text is not None or whole:
        return None
    kind = {"bytes": "bytes that are not UTF-8", "dict": "an object"}.get(type(value).__name__, "a list without a text")
    return f"The caption is {kind}, and stays in the metadata; name a column of texts with --caption-column."
