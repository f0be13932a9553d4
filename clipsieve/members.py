"""Keys of images that are no files of their own: `name.tar/member` and `table.parquet#row`."""

import re

_IN_TAR = re.compile(r"(.+?\.(?:tar|tgz|tar\.gz|tar\.bz2|tar\.xz|tar\.zst))/(.+)", re.IGNORECASE | re.DOTALL)
_IN_TABLE = re.compile(r"(.+)#(\d+)", re.DOTALL)


def in_tar(key: str) -> tuple[str, str] | None:
    """A tar's name, relative to its input, and the member's name without suffix; None for another key."""
    found = _IN_TAR.fullmatch(key)
    return found and (found[1], found[2])


def in_table(key: str) -> tuple[str, int] | None:
    """A table's name, relative to its input, and a row from 0; None for another key."""
    found = _IN_TABLE.fullmatch(key)
    return found and (found[1], int(found[2]))


def container_of(key: str) -> str | None:
    """The name of the tar or table, relative to its input; None for another key."""
    found = in_tar(key) or in_table(key)
    return found and found[0]
