"""Where images come from. Every source yields the same things in the same order each time, and from any point on."""

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

from clipsieve.errors import InputError
from clipsieve.inference import lists
from clipsieve.inference.decode import image_extensions
from clipsieve.inference.fetch import FetchOptions
from clipsieve.inference.files import FileSource
from clipsieve.inference.paths import Place, expand
from clipsieve.inference.tables import TableSource
from clipsieve.inference.tars import TarSource
from clipsieve.inference.urls import UrlSource, find_url_column
from clipsieve.path_text import to_text
from clipsieve.types import FileState, ImageItem, Skipped

Format = Literal["auto", "files", "webdataset", "parquet", "urls"]
Input = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
TABLE_SUFFIXES = (".parquet", ".pq")


PassOver = Callable[[str, str, int, float], bool]


class Source(Protocol):
    """Images in a fixed order.

    name                   the input and every option that changes which items come and in which order; two sources of
                           one name are one input, so that a run can be resumed
    partition, partitions  which of how many parts this is: every partitions-th file, tar, table or row of a list
    """

    name: str
    partition: int
    partitions: int

    @property
    def total(self) -> int | None:
        """How many inputs there are, skipped ones included; None where counting would mean reading them."""

    @property
    def ignored(self) -> Mapping[str, int]:
        """Files passed over because of their extension, which is no image's: lower-case extension -> how many."""

    def items(self, start: int = 0, pass_over: PassOver | None = None) -> Iterator[ImageItem | Skipped]:
        """The inputs from number `start` on. What comes before is passed over unread as far as the format allows.

        pass_over  asked of each file before it is read, where the input is files of this machine: (key, absolute path,
                   size in bytes, mtime) -> True for those that shall not come

        Keys and captions are valid text. `meta` holds the source's own fields (nested ones as "a.b"), and for files
        `image_path` (absolute, not resolved, or the address) and `mtime` (seconds since 1970).
        """

    def states(self) -> Mapping[str, FileState]:
        """The files it consists of, be they images or what holds them: path or address -> how the file is now.

        No file is opened for that. What cannot be listed is among them.
        """

    def only(self, paths: Container[str]) -> "Source":
        """The same input, of which no other files are read than those at `paths`, as `states` has them.

        Images go by the same keys. A Parquet table's may be those of another one, so that tables come all of them.
        """


def open_source(
    input: Input,
    *,
    format: Format = "auto",
    wds_image_key: str | None = None,
    wds_caption_key: str = "txt",
    image_column: str | None = None,
    caption_column: str | None = None,
    url_column: str | None = None,
    fetching: FetchOptions | None = None,
    partition: int = 0,
    partitions: int = 1,
) -> Source:
    """The images of `input`, here or behind any fsspec address.

    input            a folder, image files, webdataset tars, Parquet tables of images, or lists of their URLs: a path,
                     an address, a pattern with `{000..012}`, `{a,b}` or `*`, or several of those
    format           "auto" goes by the names; a folder of tars, tables or lists alone counts as such. A table with a
                     column of URLs and none of bytes is a list of URLs
    wds_image_key    extension of the image in a sample ("jpg", or "jpg;png"); any image by default
    wds_caption_key  extension of the caption
    image_column     column of a table that holds the images' bytes; found by its name or type by default
    caption_column   column of the captions; "caption" or "text" by default
    url_column       column of a list that holds the URLs; found by its name by default
    fetching         limits within which URLs are fetched

    A file that cannot be read, now or later, is a Skipped among the items. InputError: the input is not there, or its
    format cannot be told.
    """
    if format not in get_args(Format):
        raise InputError(f"The format {format!r} is not known; choose one of {', '.join(get_args(Format))}.")
    if not 0 <= partition < partitions:
        raise InputError(f"There is no partition {partition} of {partitions}; count them from 0.")
    places = expand(input)
    kind = _format_of(places, url_column) if format == "auto" else format
    options: dict[str, str | None]
    if kind == "files":
        return FileSource(_name(input, kind, {}), places, partition, partitions)
    if kind == "webdataset":
        options = {"wds_image_key": wds_image_key, "wds_caption_key": wds_caption_key}
        tars = _files_in(places, TAR_SUFFIXES)
        return TarSource(_name(input, kind, options), tars, wds_image_key, wds_caption_key, partition, partitions)
    if kind == "urls":
        options = {"url_column": url_column, "caption_column": caption_column}
        found, name = _files_in(places, lists.LIST_SUFFIXES), _name(input, kind, options)
        return UrlSource(name, found, url_column, caption_column, fetching, partition, partitions)
    options = {"image_column": image_column, "caption_column": caption_column}
    tables = _files_in(places, TABLE_SUFFIXES)
    return TableSource(_name(input, kind, options), tables, image_column, caption_column, partition, partitions)


def _format_of(places: Sequence[Place], url_column: str | None) -> str:
    first = places[0]
    names = first.names() if first.is_folder() else [first.path]
    images = image_extensions()
    if first.is_folder() and any(Path(name).suffix.lower() in images for name in names):
        return "files"
    if any(name.lower().endswith(TAR_SUFFIXES) for name in names):
        return "webdataset"
    for suffixes in (TABLE_SUFFIXES, lists.LIST_SUFFIXES):
        found = next((name for name in names if name.lower().endswith(suffixes)), None)
        if found is not None:
            place = first.child(found) if first.is_folder() else first
            if url_column is not None or _is_url_list(place):
                return "urls"
            if suffixes is TABLE_SUFFIXES:
                return "parquet"
    if first.is_folder() or Path(first.path).suffix.lower() in images:
        return "files"
    raise InputError(
        f"The input {first.url!r} is no folder, image, tar, Parquet file or list of URLs by its name and columns; give "
        "a format: files, webdataset, parquet or urls."
    )


def _is_url_list(place: Place) -> bool:
    """True for a table with a column of URLs and none of images, and for a text file that begins with a URL."""
    try:
        if place.path.lower().removesuffix(".gz").endswith(".txt"):
            return lists.first_line(place).lower().startswith(("http://", "https://"))
        return not lists.holds_images(place) and find_url_column(lists.columns_of(place)) is not None
    except Exception:  # what Arrow and fsspec raise is open-ended; whoever reads it says what is wrong
        return False


def _files_in(places: Sequence[Place], suffixes: tuple[str, ...]) -> list[Place]:
    files = []
    for place in places:
        if place.is_folder():
            files += [place.child(name) for name in place.names() if name.lower().endswith(suffixes)]
        else:
            files.append(place)
    if not files:
        raise InputError(
            f"The folder {places[0].url!r} holds no file ending in {' or '.join(suffixes)}; check the path."
        )
    return files


def _name(given: Input, kind: str, options: Mapping[str, str | None]) -> str:
    """One line. A long list is named by its hash, because each shard of the manifest repeats this."""
    patterns = [os.fspath(p) for p in ([given] if isinstance(given, str | os.PathLike) else given)]
    patterns = [p if "://" in p else os.path.abspath(p) for p in patterns]  # noqa: PTH100 (keeps links and patterns)
    text = to_text(patterns[0])
    if len(patterns) > 1:
        digest = hashlib.sha256(json.dumps(patterns).encode()).hexdigest()[:16]
        text += f" and {len(patterns) - 1} more ({digest})"
    chosen = "".join(f" {name}={value}" for name, value in options.items() if value is not None)
    return f"{kind}:{text}{chosen}"
