r"""Names of files as text that JSON, CSV, Parquet and SQLite can hold, and back.

A file name is bytes. What of it is not UTF-8 reaches Python as lone surrogates (`surrogateescape`), which no file
format takes. As text such a byte is `\xe9`, and so that this is never ambiguous a backslash is `\\`. Every other name
is its own text. Keys and `image_path` are stored, written and shown so.
"""

import json
import os
import re

_BYTE = re.compile("[\udc80-\udcff]")
_ESCAPE = re.compile(rb"\\(?:\\|x([0-9a-fA-F]{2}))")


def to_text(path: str | os.PathLike[str]) -> str:
    r"""The text of a path as Python has it.

    >>> to_text("caf\udce9.jpg"), to_text("a\\b.jpg"), to_text("straße.jpg")
    ('caf\\xe9.jpg', 'a\\\\b.jpg', 'straße.jpg')
    """
    name = os.fspath(path)
    if "\\" in name:
        name = name.replace("\\", "\\\\")
    if name.isascii():  # nearly all are, and a large input has many
        return name
    name = _BYTE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", name)
    return name.encode("utf-8", "backslashreplace").decode()  # other lone surrogates come from no file system


def to_path(text: str) -> str:
    r"""The path that a text means, for Python to open. A backslash that begins no escape means itself.

    >>> to_path(r"caf\xe9.jpg"), to_path(r"a\\b.jpg"), to_path(r"a\b.jpg")
    ('caf\udce9.jpg', 'a\\b.jpg', 'a\\b.jpg')
    """
    if "\\" not in text:
        return text
    return _ESCAPE.sub(_unescaped, text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def canonical(text: str) -> str:
    """The text that `to_text` gives what this text means: folders of older versions left single backslashes alone."""
    return to_text(to_path(text))


def stored_path(text: str) -> str:
    """Where the file of a stored text lies: what it means, else, if only that is there, the text as it stands.

    Metadata of other programs, and of older versions, holds paths with backslashes as they are.
    """
    path = to_path(text)
    return text if path != text and not os.path.lexists(path) and os.path.lexists(text) else path


def given_path(text: str | os.PathLike[str]) -> str:
    """The same for what a user typed, who may have copied it from a CSV: as it stands, else what it means."""
    name = os.fspath(text)
    path = to_path(name)
    return path if path != name and not os.path.lexists(name) and os.path.lexists(path) else name


def spell_out(error: UnicodeError) -> tuple[str, int]:
    r"""What a stream writes in place of letters that it cannot: `\xe9` for a byte, and else what JSON has for them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    spelt = (
        f"\\x{ord(c) - 0xDC00:02x}" if _BYTE.match(c) else json.dumps(c)[1:-1]
        for c in error.object[error.start : error.end]
    )
    return "".join(spelt), error.end


def json_text(text: str) -> str:
    """JSON in which bytes that are not UTF-8, which names of folders bring in, are spelt out in their strings."""
    return _BYTE.sub(lambda found: f"\\\\x{ord(found[0]) - 0xDC00:02x}", text)


def _unescaped(found: re.Match[bytes]) -> bytes:
    return b"\\" if found[1] is None else bytes.fromhex(found[1].decode())
