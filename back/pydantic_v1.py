"""JSON read as pydantic 1 reads it under FastAPI 0.88, and refused in its words, which DirectAI's clients compare.

    1 validation error for Request body -> classifier_configs field required (type=value_error.missing)

A number where a text is wanted becomes one, "yes" is true, fields that are not known are passed over, and everything
that is wrong is told at once.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipsieve.errors import InputError

Place = tuple[str | int, ...]

MOST_ECHOED = 200
"""Letters of a broken document that the answer repeats; pydantic repeats all of it."""

_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    place  where: ("body", "classifier_configs", 0, "name")
    kind   pydantic's name of it, with what it knows besides
    """

    place: Place
    words: str
    kind: str

    def __str__(self) -> str:
        return f"{' -> '.join(map(str, self.place))} {self.words} (type={self.kind})"


def missing(*place: str | int) -> Fault:
    """What must be there and is not."""
    return Fault(place, "field required", "value_error.missing")


def invalid(faults: Sequence[Fault]) -> InputError:
    """The error that tells all that is wrong."""
    count = f"{len(faults)} validation error{'s' if len(faults) > 1 else ''}"
    return InputError(f"{count} for Request {' '.join(map(str, faults))}")


def read_body(value: Any, faults: list[Fault]) -> "Reader":
    """The fields of a request's whole body, as from `parse`. InputError if it is no object."""
    if value is None:
        raise invalid([missing("body")])
    if not isinstance(value, Mapping):
        raise invalid([Fault(("body",), "value is not a valid dict", "type_error.dict")])
    return Reader(value, ("body",), faults)


def one_line(message: str) -> str:
    """A message as DirectAI's server sends it: line ends become blanks, and every three blanks one."""
    return message.replace("\n", " ").replace("   ", " ")


def parse(data: bytes, content_type: str) -> Any:
    """The value of a request's body: of JSON where the content type says so or says nothing, else the bytes.

    InputError if it is no JSON; what cannot even be read as text is json's own ValueError or RecursionError.
    """
    if not data:
        return None
    kind, _, subtype = content_type.partition("/")
    if content_type and not (kind == "application" and (subtype == "json" or subtype.endswith("+json"))):
        return data
    try:
        return json.loads(data)
    except json.JSONDecodeError as e:
        known = f"msg={e.msg}; doc={e.doc[:MOST_ECHOED]}; pos={e.pos}; lineno={e.lineno}; colno={e.colno}"
        raise invalid([Fault(("body", e.pos), str(e), f"value_error.jsondecode; {known}")]) from None


class Reader:
    """Reads the fields of one JSON object. What is wrong is added to `faults`, and something empty stands in for it."""

    def __init__(self, body: Mapping[str, Any], place: Place, faults: list[Fault]) -> None:
        self._body, self._place, self._faults = body, place, faults

    def text(self, name: str) -> str:
        """A text that must be there."""
        return self._text((*self._place, name), self._body[name]) if self._has(name) else ""

    def text_or_none(self, name: str) -> str | None:
        """A text, or None where there is none."""
        value = self._body.get(name)
        return None if value is None else self._text((*self._place, name), value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts that must be there."""
        return self._texts(name, self._body[name]) if self._has(name) else ()

    def texts_or_none(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where there is none, but null is not one."""
        return self._texts(name, self._body[name]) if name in self._body else ()

    def switch(self, name: str, default: bool) -> bool | None:
        """True or false in any of pydantic's spellings, or null."""
        value = self._body.get(name, default)
        if value is None or isinstance(value, bool):
            return value
        spelt = value.lower() if isinstance(value, str) else str(int(value)) if value in (0, 1) else ""
        if spelt not in _TRUE | _FALSE:
            self._fault((*self._place, name), value, "value could not be parsed to a boolean", "type_error.bool")
        return spelt in _TRUE

    def number(self, name: str, default: float) -> float:
        """A number, or a text or a switch that stands for one; pydantic takes infinity and NaN too."""
        value = self._body.get(name, default)
        if isinstance(value, int | float | str):
            with contextlib.suppress(ValueError, OverflowError):
                return float(value)
        self._fault((*self._place, name), value, "value is not a valid float", "type_error.float")
        return default

    def objects(self, name: str) -> list["Reader"]:
        """A list of objects that must be there, each as a reader of its own."""
        place = (*self._place, name)
        values = self._list(place, self._body[name]) if self._has(name) else []
        for i, value in enumerate(values):
            if not isinstance(value, Mapping):
                self._fault((*place, i), value, "value is not a valid dict", "type_error.dict")
        return [Reader(v, (*place, i), self._faults) for i, v in enumerate(values) if isinstance(v, Mapping)]

    def _has(self, name: str) -> bool:
        if name not in self._body:
            self._faults.append(missing(*self._place, name))
        return name in self._body

    def _texts(self, name: str, value: Any) -> tuple[str, ...]:
        place = (*self._place, name)
        return tuple(self._text((*place, i), one) for i, one in enumerate(self._list(place, value)))

    def _list(self, place: Place, value: Any) -> list[Any]:
        if isinstance(value, list):
            return value
        self._fault(place, value, "value is not a valid list", "type_error.list")
        return []

    def _text(self, place: Place, value: Any) -> str:
        if isinstance(value, int | float):
            return str(value)
        if isinstance(value, str) and _whole(value):
            return value
        self._fault(place, value, "str type expected", "type_error.str")
        return ""

    def _fault(self, place: Place, value: Any, words: str, kind: str) -> None:
        """A value that is not of the type wanted; null has words of its own."""
        if value is None:
            words, kind = "none is not an allowed value", "type_error.none.not_allowed"
        self._faults.append(Fault(place, words, kind))


def _whole(text: str) -> bool:
    r"""Whether no half of a letter is in it: JSON can say "\ud83d", which no tokenizer takes."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
