"""Outputs are paths of this machine's file system. An address would become a local folder called `s3:`."""

import os
import re
from pathlib import Path
from typing import TypeVar

from clipsieve.errors import InputError
from clipsieve.path_text import to_text

P = TypeVar("P", str, Path)

# A scheme has two letters or more, so that `C:\photos` is a path. pathlib makes `s3:/bucket` of `s3://bucket`, so that
# one slash is enough; `::` chains fsspec's addresses. `./a:b` and `a:b.jpg` stay paths.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.\-]+):(?:[/\\]+|:|$)", re.IGNORECASE)


def is_address(output: str | os.PathLike[str]) -> bool:
    """Whether an output names a place behind a protocol: `s3://bucket/x`, `file:///x`, also as pathlib mangles it."""
    return _ADDRESS.match(os.fspath(output).strip()) is not None


def require_path(output: P) -> P:
    """The output as it is. InputError if it is an address."""
    text = os.fspath(output).strip()
    found = _ADDRESS.match(text)
    if found is None:
        return output
    shown = text if "::" in text else re.sub(r":[/\\]+", "://", text, count=1)
    if found[1].lower() in ("file", "local"):
        raise InputError(f"The output {shown!r} is an address; give the path alone: /{text[found.end() :]}")
    raise InputError(
        f"The output {shown!r} is an address, and outputs are written to this machine; write to a folder or file here, "
        "then copy it there."
    )


def require_collection_path(folder: str | os.PathLike[str]) -> None:
    """InputError unless a collection can lie there: Arrow and faiss open no path that is not UTF-8."""
    text = require_path(os.fspath(folder))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"The path of the collection {to_text(text)} is not UTF-8; rename the folder, or choose another one."
        ) from None


def refuse_address(output: Path | None) -> Path | None:
    """The same as a callback of typer's options, which are None where they were not given."""
    return None if output is None else require_path(output)
