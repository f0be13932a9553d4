"""Where images come from. Every source yields the same things in the same order each time, and from any point on."""

import copy
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, Self, get_args

from clipsieve import foreign
from clipsieve.errors import InputError, quoted
from clipsieve.inference import lists
from clipsieve.inference.discover import Found, Named, count_of, discover
from clipsieve.inference.fetch import FetchOptions
from clipsieve.inference.files import FileSource
from clipsieve.inference.kinds import TABLE_SUFFIXES, TAR_SUFFIXES
from clipsieve.inference.paths import Place, expand, readable
from clipsieve.inference.tables import TableSource
from clipsieve.inference.tars import TarSource
from clipsieve.inference.urls import UrlSource
from clipsieve.inference.words import WordTables
from clipsieve.path_text import to_text
from clipsieve.types import FileState, ImageItem, Skipped

Format = Literal["auto", "files", "webdataset", "parquet", "urls"]

_OPTIONS = re.compile(r" (?:wds_(?:image|caption)_key|(?:image|caption|url)_column)=")
"""Where the options begin in the name of a source."""

Input = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

PassOver = Callable[[str, str, int, float], bool]
_Part = FileSource | TarSource | TableSource | UrlSource


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
        """Files passed over that nobody means as images: lower-case extension, or what they are -> how many."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """Columns of bytes that were left out of the tables read so far -> in how many."""

    @property
    def nothing(self) -> str | None:
        """A sentence on why there is not a single input, in any part; None if there is one."""

    def items(self, start: int = 0, pass_over: PassOver | None = None) -> Iterator[ImageItem | Skipped]:
        """The inputs from number `start` on. What comes before is passed over unread as far as the format allows.

        pass_over  asked of each file before it is read, where the input is files of this machine: (key, absolute path,
                   size in bytes, mtime) -> True for those that shall not come

        Keys and captions are valid text. `meta` holds the source's own fields (nested ones as "a.b"), and for files
        `image_path` (absolute, not resolved, or the address) and `mtime` (seconds since 1970).
        """

    @property
    def limits(self) -> str:
        """Within which it fetches; "" where it does not. See `Skipped.limits`."""

    @property
    def reads_files(self) -> bool:
        """Whether images come from files of their own."""

    def again(self, keys: Collection[str]) -> Iterator[ImageItem | Skipped]:
        """The inputs of these keys, wherever they stand."""

    def local_files(self) -> list[tuple[str, str, int, float]]:
        """Key, path, bytes and time of last change of each image file, as `pass_over` has them.

        None behind an address, and none of tars and tables.
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
    format           "auto" reads all images, tars and tables of images, as `discover` has it, and lists of URLs where
                     there is nothing else; another one reads that alone
    wds_image_key    extension of the image in a sample ("jpg", or "jpg;png"); any image by default
    wds_caption_key  extension of the caption
    image_column     column of a table that holds the images' bytes; found by its name or type by default
    caption_column   column of the captions; "caption" or "text" by default
    url_column       column of a list that holds the URLs; found by its name by default
    fetching         limits within which URLs are fetched

    A file that cannot be read, now or later, is a Skipped among the items. InputError: the input is not there, is a
    collection, or its format cannot be told.
    """
    if format not in get_args(Format):
        raise InputError(f"The format {quoted(format)} is not known; choose one of {', '.join(get_args(Format))}.")
    if not 0 <= partition < partitions:
        raise InputError(f"There is no partition {partition} of {partitions}; count them from 0.")
    places = expand(input)
    found = discover(places, format, url_column)
    if found.nothing:
        _require_meant(places, found, format)
    wds = {"wds_image_key": wds_image_key, "wds_caption_key": wds_caption_key}
    tabular = {"image_column": image_column, "caption_column": caption_column}
    listed = {"url_column": url_column, "caption_column": caption_column}
    given = {"files": {}, "webdataset": wds, "parquet": tabular, "urls": listed}[found.first]
    name = _name(input, found.first, given)
    part = (partition, partitions)
    sources: dict[str, _Part] = {}
    if found.entries or found.nothing:
        words = WordTables(found.words) if found.words else None
        sources["files"] = FileSource(name, found.entries, *part, words)
    if found.tars:
        tars, names = _unzipped(found.tars)
        sources["webdataset"] = TarSource(name, tars, wds_image_key, wds_caption_key, *part, names)
    if found.tables:
        tables, names = _unzipped(found.tables)
        sources["parquet"] = TableSource(name, tables, image_column, caption_column, *part, names)
    if found.lists:
        urls, names = _unzipped(found.lists)
        sources["urls"] = UrlSource(name, urls, url_column, caption_column, fetching, *part, names)
    ordered = sorted(sources, key=lambda kind: kind != found.first)
    nothing = _why_nothing(places, found) if found.nothing else None
    return InputSource(name, [sources[kind] for kind in ordered], dict(found.ignored), nothing, *part)


class InputSource:
    """See `Source`. All of one input: images, then tars, then tables, or whatever kind was there first."""

    def __init__(
        self,
        name: str,
        parts: Sequence[_Part],
        ignored: Mapping[str, int],
        nothing: str | None,
        partition: int = 0,
        partitions: int = 1,
    ) -> None:
        self.name = name
        self.partition = partition
        self.partitions = partitions
        self.ignored = ignored
        self.nothing = nothing
        self._parts = parts

    @property
    def total(self) -> int | None:
        """The parts' inputs; None if one does not know."""
        totals = [part.total for part in self._parts]
        known = [total for total in totals if total is not None]
        return sum(known) if len(known) == len(totals) else None

    @property
    def left_out(self) -> Mapping[str, int]:
        """See `Source.left_out`."""
        tables = [part for part in self._parts if isinstance(part, TableSource | UrlSource)]
        return sum((table.left_out for table in tables), Counter())

    @property
    def limits(self) -> str:
        """See `Source.limits`."""
        return next((part.limits for part in self._parts if isinstance(part, UrlSource)), "")

    @property
    def reads_files(self) -> bool:
        """See `Source.reads_files`."""
        return any(isinstance(part, FileSource) for part in self._parts)

    def items(self, start: int = 0, pass_over: PassOver | None = None) -> Iterator[ImageItem | Skipped]:
        """See `Source.items`."""
        for part in self._parts:
            start -= yield from part.items(max(0, start), pass_over)

    def again(self, keys: Collection[str]) -> Iterator[ImageItem | Skipped]:
        """See `Source.again`. Tars and tables are read through for them, until the last was found."""
        left = set(keys)
        for part in self._parts:
            if not left:
                return
            items = part.items() if isinstance(part, TarSource | TableSource) else part.again(keys)
            for item in items:
                if item.key in left:
                    left.discard(item.key)
                    yield item
                if not left:
                    items.close()
                    break

    def local_files(self) -> list[tuple[str, str, int, float]]:
        """See `Source.local_files`."""
        return [file for part in self._parts if isinstance(part, FileSource) for file in part.local_files()]

    def states(self) -> Mapping[str, FileState]:
        """See `Source.states`."""
        return {path: state for part in self._parts for path, state in part.states().items()}

    def only(self, paths: Container[str]) -> Self:
        """See `Source.only`."""
        other = copy.copy(self)
        other._parts = [part.only(paths) for part in self._parts]
        return other


def _unzipped(files: Sequence[Named]) -> tuple[list[Place], list[str]]:
    return [named.place for named in files], [named.name for named in files]


def _require_meant(places: Sequence[Place], found: Found, format: Format) -> None:
    """InputError where nothing can ever come of the input: a collection, or a file of no known kind."""
    own = [readable(place.url).rstrip("/") for place in places]
    collections = [folder for folder in own if folder in found.collections or _is_foreign(folder)]
    if collections:
        raise InputError(
            f"The input {collections[0]!r} is a collection, the vectors of images; give the folder of the images."
        )
    suffixes = {"webdataset": TAR_SUFFIXES, "parquet": TABLE_SUFFIXES, "urls": lists.LIST_SUFFIXES}
    if format in suffixes:
        raise InputError(
            f"The folder {own[0]!r} holds no file ending in {' or '.join(suffixes[format])}; check the path."
        )
    if not places[0].is_folder():
        raise InputError(
            f"The input {own[0]!r} is no folder, image, tar, Parquet file or list of URLs by its name and content; "
            "give a format: files, webdataset, parquet or urls."
        )


def _is_foreign(folder: str) -> bool:
    return "://" not in folder and foreign.is_foreign(Path(folder))


def _why_nothing(places: Sequence[Place], found: Found) -> str:
    what = readable(places[0].url) + (f" and {len(places) - 1:,} more" if len(places) > 1 else "")
    if found.ignored:
        there = count_of(found.ignored)
        return f"The input {what!r} holds no images, nor tars or tables of images, but {there}; check the path."
    return f"The input {what!r} holds no images: it is empty; check the path."


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


def input_of(name: str) -> str:
    """The input in the name of a source: its paths, without its kind and the options that it is read with."""
    return _OPTIONS.split(name.partition(":")[2])[0]
