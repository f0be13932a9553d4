"""What comes with an image - a caption, a JSON object, a table's row - as one flat row of metadata."""

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clipsieve.captions import NO_TEXT, caption_text, no_text
from clipsieve.inference.paths import readable
from clipsieve.perceptual import COLUMN as PERCEPTUAL

RESERVED = frozenset(
    {
        *("id", "key", "image_path", "caption", "has_caption"),  # the collection's own columns
        *("width", "height", "size", "mtime", "content_hash", PERCEPTUAL),  # what reader and run fill in
        *("metadata_error", NO_TEXT),
    }
)
"""Columns that metadata cannot set: there a field of that name becomes `meta.NAME`."""


_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(head: bytes) -> str:
    """How a text that begins with these bytes is encoded, by its mark or, without one, by the zeros of UTF-16."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return "utf-8-sig" if name == "utf-8" else name
    sample = head[: len(head) // 2 * 2]
    even, odd = sample[::2], sample[1::2]
    if len(even) >= 2 and (2 * odd.count(0) > len(odd) or 2 * even.count(0) > len(even)):
        if not even.count(0):
            return "utf-16-le"
        if not odd.count(0):
            return "utf-16-be"
    return "utf-8"


def _western(error: UnicodeError) -> tuple[str, int]:
    """What stands for bytes that are not UTF-8: the letters that they are in Windows-1252."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(map(_letter, error.object[error.start : error.end])), error.end


def _letter(byte: int) -> str:
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


WESTERN = "clipsieve-western"
"""The error handler for texts in UTF-8, of which old ones may be in Windows-1252 instead."""
codecs.register_error(WESTERN, _western)


def text_of(data: bytes) -> str:
    """The text in a file of any encoding that `encoding_of` knows."""
    encoding = encoding_of(data[:1024])
    return data.decode(encoding, WESTERN if encoding.startswith("utf-8") else "replace")


def caption_of(text: bytes) -> str | None:
    """The caption in a text file; None if it is blank."""
    return clean_caption(text_of(text))


def clean_caption(value: object) -> str | None:
    """The caption in a field, see `caption_text`; None where there is none."""
    text, _ = caption_text(value)
    return None if text is None else readable(text)


def with_caption(name: str | None, value: object, others: Mapping[str, object]) -> tuple[str | None, dict[str, Any]]:
    """The caption in the field `name`, and the metadata: the other fields, and this one if it says more than that."""
    caption, whole = caption_text(value)
    kept = dict(others) if whole or name is None else {name: value, **others}
    problem = no_text(value)
    meta = flatten(kept)
    return None if caption is None else readable(caption), meta if problem is None else {**meta, NO_TEXT: problem}


def metadata_of(text: bytes) -> dict[str, Any]:
    """The fields of a JSON file, as `flatten` gives them.

    A damaged file must not cost the image: its one field is then `metadata_error`, a sentence.
    """
    try:
        value = json_object(text)
    except (ValueError, RecursionError) as error:
        return {"metadata_error": f"The JSON beside the image cannot be read ({error}); mend it and embed again."}
    return flatten(value)


def json_object(text: bytes) -> dict[str, Any]:
    """The object in a JSON file; anything else becomes its field `json`. ValueError, RecursionError if damaged."""
    value = json.loads(text_of(text).removeprefix("\ufeff"), object_pairs_hook=object_of)
    return value if isinstance(value, dict) else {"json": value}


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a second field of one name is kept under a name of its own."""
    made = dict(pairs)
    return (
        made if len(made) == len(pairs) else dict(zip(unique(n for n, _ in pairs), (v for _, v in pairs), strict=True))
    )


def unique(names: Iterable[str]) -> list[str]:
    """The names, each once: a second `a` becomes `a_2`; one that is empty `column_3`, by its place."""
    given = [name.strip() or f"column_{place}" for place, name in enumerate(names, 1)]
    taken, made = set(given), set[str]()
    out = []
    for name in given:
        free, number = name, 2
        while free in made or (free != name and free in taken):
            free, number = f"{name}_{number}", number + 1
        made.add(free)
        out.append(free)
    return out


def flatten(value: Mapping[str, object]) -> dict[str, Any]:
    """Nested objects as one row: {"a": {"b": 1}} is {"a.b": 1}. Names in RESERVED get the prefix `meta.`.

    Where two fields come to have one name, the second gets a number: `a.b_2`.
    """
    pairs = [(f"meta.{name}" if name in RESERVED else name, field) for name, field in _fields(value, "")]
    made = dict(pairs)
    if len(made) == len(pairs) and "" not in made:
        return made
    return dict(zip(unique(name for name, _ in pairs), (field for _, field in pairs), strict=True))


def _fields(value: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, field in value.items():
        path = f"{prefix}{readable(str(name))}"
        if isinstance(field, Mapping) and field:
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
