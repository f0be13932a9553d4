"""What comes with an image - a caption, a JSON object, a table's row - as one flat row of metadata."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from clipsieve.inference.paths import readable

RESERVED = frozenset(
    {
        *("id", "key", "image_path", "caption", "has_caption"),  # the collection's own columns
        *("width", "height", "size", "mtime", "content_hash", "metadata_error"),  # what reader and run fill in
    }
)
"""Columns that metadata cannot set: there a field of that name becomes `meta.NAME`."""


def caption_of(text: bytes) -> str | None:
    """The caption in a text file; bytes that are not UTF-8 are replaced; None if it is blank."""
    return clean_caption(text.decode("utf-8-sig", "replace"))


def clean_caption(value: object) -> str | None:
    """The caption in a field: its text, stripped; None for blank or anything that is no string."""
    return (readable(value.strip()) or None) if isinstance(value, str) else None


def metadata_of(text: bytes) -> dict[str, Any]:
    """The fields of a JSON file, as `flatten` gives them.

    A damaged file must not cost the image: its one field is then `metadata_error`, a sentence.
    """
    try:
        value = json.loads(text)
        return flatten(value if isinstance(value, dict) else {"json": value})
    except (ValueError, RecursionError) as error:
        return {"metadata_error": f"The JSON beside the image cannot be read ({error}); mend it and embed again."}


def flatten(value: Mapping[str, object]) -> dict[str, Any]:
    """Nested objects as one row: {"a": {"b": 1}} is {"a.b": 1}. Names in RESERVED get the prefix `meta.`."""
    return {f"meta.{name}" if name in RESERVED else name: field for name, field in _fields(value, "")}


def _fields(value: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, field in value.items():
        path = f"{prefix}{readable(str(name))}"
        if isinstance(field, Mapping):
            yield from _fields(field, f"{path}.")
        else:
            yield path, _clean(field)


def _clean(field: object) -> object:
    if isinstance(field, str):
        return readable(field)
    if isinstance(field, list):
        return [_clean(entry) for entry in field]
    if isinstance(field, Mapping):  # inside a list
        return {readable(str(name)): _clean(entry) for name, entry in field.items()}
    return field
