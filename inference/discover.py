"""What an input consists of: which of its files are images, tars, tables of images, lists of URLs, or are not read.

Images and tars are read whatever lies beside them and however deep. A table beside them is read for images only if it
holds their bytes. One that names URLs is not fetched, since what it names is most likely what lies beside it; one that
names files gives its columns to them.
"""

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pyarrow.parquet as pq

from clipsieve.inference import lists
from clipsieve.inference.decode import decoder
from clipsieve.inference.files import Entry
from clipsieve.inference.kinds import (
    HEAD,
    TABLE_SUFFIXES,
    TAR_SUFFIXES,
    is_image,
    kind_of,
    kinds_of_images,
    reason_of,
    suffix_of,
)
from clipsieve.inference.listing import list_folder
from clipsieve.inference.paths import Place, readable, relative_names
from clipsieve.inference.tables import ROWS
from clipsieve.inference.tables import is_image as is_image_column
from clipsieve.inference.words import WordTable, word_table

Wanted = Literal["auto", "files", "webdataset", "parquet", "urls"]

NOT_READ = "tables not read, which --format urls reads"
"""What tables are counted as that lie beside the tars that were made of them."""

_COLUMN_SUFFIXES = tuple(s for s in lists.LIST_SUFFIXES if not s.removesuffix(".gz").endswith((".txt", ".json")))


class Named(NamedTuple):
    """A file: how it is called in keys, the folder that it was found in and where in it, and if it was given itself."""

    name: str
    root: Place
    relative: str
    given: bool

    @property
    def place(self) -> Place:
        """The file. Not kept, since an input may have millions of which nobody asks for it."""
        return self.root.child(self.relative)


@dataclass(slots=True)
class Found:
    """What is to be read of an input, and what is not.

    entries      images, and what is listed as skipped
    tars         } name, file
    tables       } of images
    lists        } of URLs
    words        tables that say something of the images
    first        which of them was there before others were read beside it: it comes first, so that what was embedded
                 of it by an earlier version can be resumed
    ignored      files passed over: lower-case extension, or what they are -> how many
    collections  folders that are collections, and were passed over
    """

    entries: list[Entry] = field(default_factory=list)
    tars: list[Named] = field(default_factory=list)
    tables: list[Named] = field(default_factory=list)
    lists: list[Named] = field(default_factory=list)
    words: list[WordTable] = field(default_factory=list)
    first: Literal["files", "webdataset", "parquet", "urls"] = "files"
    ignored: Counter[str] = field(default_factory=Counter)
    collections: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing at all to be read or listed."""
        return not (self.entries or self.tars or self.tables or self.lists)


def discover(places: Sequence[Place], wanted: Wanted = "auto", url_column: str | None = None) -> Found:
    """Look at all files that `places` name or hold.

    wanted      read files of this kind alone, whatever else there is
    url_column  a table that has it is a list of URLs

    Of files on this machine whose name does not say what they are, the first bytes are read; behind an address they are
    counted and left.
    """
    found = Found()
    images = kinds_of_images()
    by_kind: dict[str, list[Named]] = {kind: [] for kind in ("image", "tar", "table", "unread", "plain", "unknown")}
    for named in _files(places, found):
        by_kind[_kind(named, wanted, images)].append(named)
    ignored: list[Named] = [*by_kind["plain"]]
    for named in by_kind["unknown"]:
        is_picture = named.place.fs is None and _may_be_image(named.place.path)
        (by_kind["image"] if is_picture and wanted in ("auto", "files") else ignored).append(named)
    pictures, tars, tables, unread = (by_kind[kind] for kind in ("image", "tar", "table", "unread"))
    if wanted in ("webdataset", "parquet", "urls"):
        ignored += [*pictures, *unread]
        chosen = {"webdataset": tars, "parquet": tables, "urls": tables}[wanted]
        target = {"webdataset": found.tars, "parquet": found.tables, "urls": found.lists}[wanted]
        suffixes = {"webdataset": TAR_SUFFIXES, "parquet": TABLE_SUFFIXES, "urls": lists.LIST_SUFFIXES}[wanted]
        for named in [*tars, *tables]:
            fits = named in chosen and (named.given or named.place.path.lower().endswith(suffixes))
            (target if fits else ignored).append(named)
        found.first = wanted
        target.sort(key=_order(places))
    elif wanted == "files":
        ignored += [*tars, *tables]
        _take_pictures(found, pictures, unread, ignored)
    else:
        found.tars = sorted(tars, key=_order(places))
        alone = not pictures and not tars
        (_judge_alone if alone else _judge_beside)(found, tables, pictures, ignored, url_column)
        _take_pictures(found, pictures, unread, ignored)
        found.tables.sort(key=_order(places))
        found.lists.sort(key=_order(places))
        found.first = _first(found, pictures)
    found.ignored.update(suffix_of(named.relative) for named in ignored)
    found.ignored.update("collection" for _ in found.collections)
    return found


def _files(places: Sequence[Place], found: Found) -> "list[Named]":
    """Every file; what could not be listed goes into `found`."""
    lone = len(places) == 1 and places[0].is_folder()
    files = []
    for place, prefix in zip(places, [""] if lone else relative_names(places), strict=True):
        if not place.is_folder():
            folder, _, file = place.path.rpartition("/")
            root = Place(place.fs, folder or "/", place.url.rpartition("/")[0])
            files.append(Named(prefix, root, file, True))
            continue
        listing = list_folder(place)
        above = f"{prefix}/" if prefix else ""
        files += [Named(above + relative, place, relative, False) for relative in listing.files]
        for relative, problem in listing.problems.items():
            found.entries.append(Entry(posixpath.join(prefix, relative), place, relative, problem=problem))
        found.collections += [readable(place.child(folder).url.rstrip("/")) for folder in listing.collections]
    return files


def _kind(named: Named, wanted: Wanted, images: frozenset[str]) -> str:
    if named.given and wanted != "auto":
        return {"files": "image", "webdataset": "tar", "parquet": "table", "urls": "table"}[wanted]
    return kind_of(named.relative, images)


def _order(places: Sequence[Place]) -> Callable[[Named], tuple[int, str]]:
    """Files given one by one keep their order; those in folders go by name, folder by folder."""
    position = {place.path: number for number, place in enumerate(places)}

    def key(named: Named) -> tuple[int, str]:
        at = named.place.path if named.given else named.root.path
        return position.get(at, 0), "" if named.given else named.relative

    return key


def _take_pictures(found: Found, pictures: list[Named], unread: list[Named], ignored: list[Named]) -> None:
    """Images with what lies beside them, and what is not read, as entries; what they use is no longer ignored."""
    others = {(named.root.path, named.relative) for named in ignored}
    used: set[tuple[str, str]] = set()
    for named in pictures:
        if not others and not named.given:
            found.entries.append(Entry(named.name, named.root, named.relative))
            continue
        stem = posixpath.splitext(named.relative)[0]
        beside = [(named.root.path, f"{stem}{suffix}") for suffix in (".txt", ".json")]
        if named.given:
            caption, metadata = (named.root.child(name).exists() for _, name in beside)
        else:
            caption, metadata = (name in others for name in beside)
        used.update(beside)
        found.entries.append(Entry(named.name, named.root, named.relative, caption, metadata))
    ignored[:] = [named for named in ignored if (named.root.path, named.relative) not in used]
    for named in unread:
        found.entries.append(
            Entry(named.name, named.root, named.relative, problem=reason_of(named.relative), limits=decoder())
        )


def _judge_beside(
    found: Found, tables: list[Named], pictures: list[Named], ignored: list[Named], url_column: str | None
) -> None:
    """What tables are beside images or tars."""
    names = {named.name for named in pictures}
    stems = {_stem(named.place.path, TAR_SUFFIXES) for named in found.tars}
    for named in tables:
        path = named.place.path
        if not path.lower().endswith(_COLUMN_SUFFIXES):
            ignored.append(named)
        elif _stem(path, lists.LIST_SUFFIXES) in stems:
            found.ignored[NOT_READ] += 1  # img2dataset writes one of each; what it says is in the tar, too
        else:
            _judge_one(found, named, names, ignored, url_column)


def _judge_one(found: Found, named: Named, names: set[str], ignored: list[Named], url_column: str | None) -> None:
    try:
        if _image_bytes_in(named.place):
            found.tables.append(named)
            return
        words = word_table(named.place, posixpath.dirname(named.name), names)
        columns = lists.columns_of(named.place)
    except Exception:  # what Arrow and fsspec raise is open-ended
        reason = "The table is not read: it is damaged. Restore it from a copy if it holds images."
        if not named.place.path.lower().endswith(TABLE_SUFFIXES):
            ignored.append(named)
            return
        found.entries.append(Entry(named.name, named.root, named.relative, problem=reason, limits=""))
        return
    if words is not None:
        found.words.append(words)
    elif url_column in columns or lists.find_url_column(columns) is not None:
        reason = (
            "The table is not read: it names URLs, and there are images beside it. To fetch them, give the table with "
            "--format urls."
        )
        found.entries.append(Entry(named.name, named.root, named.relative, problem=reason))
    else:
        ignored.append(named)


def _judge_alone(
    found: Found, tables: list[Named], _: list[Named], ignored: list[Named], url_column: str | None
) -> None:
    """What tables are where there is nothing else: of images if any is, else of URLs."""
    parquet = [named for named in tables if named.place.path.lower().endswith(TABLE_SUFFIXES)]
    others = [named for named in tables if named not in parquet]
    if url_column is None and any(_holds_images(named.place) for named in parquet):
        found.tables += parquet
        for named in others:
            _judge_one(found, named, set(), ignored, url_column)
        return
    urls = {named.name: _is_url_list(named.place, url_column) for named in tables}
    if any(urls.values()):
        for named in tables:
            listed = urls[named.name] or named.place.path.lower().endswith(_COLUMN_SUFFIXES)
            (found.lists if listed else ignored).append(named)
    else:
        found.tables += parquet
        ignored += others


def _holds_images(place: Place) -> bool:
    try:
        return lists.holds_images(place)
    except Exception:  # whoever reads it says what is wrong
        return False


def _image_bytes_in(place: Place) -> bool:
    """Whether a Parquet file has a column of encoded images: bytes, of which some in its first rows begin as one."""
    if not place.path.lower().endswith(TABLE_SUFFIXES):
        return False
    with place.open() as opened, pq.ParquetFile(opened) as file:
        names = [column.name for column in file.schema_arrow if is_image_column(column.type)]
        batch = next(file.iter_batches(ROWS, columns=names), None) if names else None
        values = [value for column in batch.columns for value in column.to_pylist()] if batch is not None else []
    found = [value.get("bytes") if isinstance(value, Mapping) else value for value in values]
    return any(isinstance(data, bytes) and is_image(data[:HEAD]) for data in found)


def _is_url_list(place: Place, url_column: str | None) -> bool:
    """True for a table with a column of URLs, and for a text file that begins with a URL."""
    try:
        if place.path.lower().removesuffix(".gz").endswith(".txt"):
            if lists.first_line(place).lower().startswith(("http://", "https://")):
                return True
            columns = lists.columns_of(place)
            return columns != ["url"] and lists.find_url_column(columns) is not None
        columns = lists.columns_of(place)
        return url_column in columns or lists.find_url_column(columns) is not None
    except Exception:  # what Arrow and fsspec raise is open-ended; whoever reads it says what is wrong
        return False


def _first(found: Found, pictures: list[Named]) -> Literal["files", "webdataset", "parquet", "urls"]:
    """The kind that alone was read by earlier versions: the first at the top of a folder."""
    if found.lists:
        return "urls"
    kinds: Mapping[Literal["files", "webdataset", "parquet"], Sequence[Named]] = {
        "files": pictures,
        "webdataset": found.tars,
        "parquet": found.tables,
    }
    for top in (True, False):
        for kind, some in kinds.items():
            if any(named.given or "/" not in named.relative or not top for named in some):
                return kind
    return "files"


def _stem(path: str, suffixes: Sequence[str]) -> str:
    lower = path.lower()
    suffix = max((s for s in suffixes if lower.endswith(s)), key=len, default="")
    return path[: len(path) - len(suffix)]


def _may_be_image(path: str) -> bool:
    """Whether a file of this machine is an image by its first bytes; True as well where they may not be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return False  # reading a pipe would wait for ever
        with open(path, "rb") as file:  # noqa: PTH123
            return is_image(file.read(HEAD))
    except PermissionError:  # reading it will list it
        return True
    except OSError:
        return False


def count_of(ignored: Mapping[str, int]) -> str:
    """What was passed over, in words: "3 .md, 1 without extension"."""
    return ", ".join(f"{n:,} {suffix or 'without extension'}" for suffix, n in sorted(ignored.items()))
