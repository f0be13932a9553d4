"""Lists of image URLs, with captions and whatever else their columns hold. See docs/decisions/url-lists.md."""

import copy
import itertools
import threading
from collections import Counter
from collections.abc import Container, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

from clipsieve.captions import NO_TEXT
from clipsieve.errors import InputError, quoted
from clipsieve.inference import lists
from clipsieve.inference.fetch import Fetcher, FetchOptions, NotFetched
from clipsieve.inference.parts import Items, narrowed, read_parts, states
from clipsieve.inference.paths import Place, readable, relative_names
from clipsieve.inference.sidecar import with_caption
from clipsieve.inference.tables import CAPTION_NAMES
from clipsieve.ordered import ordered_map
from clipsieve.types import FileState, ImageItem, Skipped

AHEAD = 1024
"""Rows worked on before their turn: while one server lets us wait, the others are not idle."""

HELD_BYTES = 256 * 2**20
"""Bytes of images that wait for their turn, from which on no further one is begun."""

_Wanted = tuple[str, str, str | None, Mapping[str, Any]]
"""Key, URL, caption, metadata."""


class UrlSource:
    """See `reader.Source`. The key of an image is its `key` field, else its URL; partitions take turns row by row.

    The other columns, except bytes, are metadata, and so is the URL, as `url`. A key that came up before in the list
    is a Skipped, which is not fetched, and so is whatever could not be fetched.

    left_out  columns of bytes that were left out of the lists read so far -> in how many
    """

    def __init__(
        self,
        name: str,
        places: Sequence[Place],
        url_column: str | None = None,
        caption_column: str | None = None,
        options: FetchOptions | None = None,
        partition: int = 0,
        partitions: int = 1,
        names: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.partition = partition
        self.partitions = partitions
        self._lists = list(zip(names or relative_names(places), places, strict=True))
        self._url_column = url_column
        self._caption_column = caption_column
        self._options = options or FetchOptions()
        self.left_out: Counter[str] = Counter()
        self._check_columns()

    @property
    def limits(self) -> str:
        """Within which it fetches, see `Skipped.limits`."""
        return self._options.limits

    @property
    def total(self) -> int | None:
        """Rows of this partition; None if a list lies behind an address, or is damaged."""
        if any(place.fs is not None for _, place in self._lists):
            return None
        try:
            rows = sum(lists.count_rows(place) for _, place in self._lists)
        except Exception:  # it is met, and listed, again when its rows are read
            return None
        return len(range(self.partition, rows, self.partitions))

    def items(self, start: int = 0, pass_over: object = None) -> Items:
        """See `reader.Source.items`. Rows before `start` are not fetched."""
        rows = read_parts(self._lists, self._read, self.partition + start * self.partitions)
        count = yield from self._fetch(_once(itertools.islice(rows, 0, None, self.partitions)))
        return start + count

    def again(self, keys: Container[str]) -> Items:
        """See `reader.Source.again`. No other rows are fetched."""
        rows = read_parts(self._lists, self._read, self.partition)
        wanted = _once(itertools.islice(rows, 0, None, self.partitions))
        return self._fetch(row for row in wanted if not isinstance(row, Skipped) and row[0] in keys)

    def _fetch(self, wanted: Iterable[_Wanted | Skipped]) -> Items:
        """What is behind these rows, in order."""
        fetcher = Fetcher(self._options)
        room = _Room(HELD_BYTES)

        def work(numbered: tuple[int, _Wanted | Skipped]) -> ImageItem | Skipped:
            number, one = numbered
            if isinstance(one, Skipped):
                return one
            room.enter(number)
            item = _fetched(fetcher, one, self._options.limits)
            room.hold(_size(item))
            return item

        with ThreadPoolExecutor(self._options.connections, "clipsieve-fetch") as pool:
            number = 0
            fetched = ordered_map(pool, work, enumerate(wanted), max(AHEAD, 2 * self._options.connections))
            try:
                for number, item in enumerate(fetched, 1):
                    room.release(_size(item), number)
                    yield item
            finally:  # cancels what is queued and lets go of what waits, or leaving the pool would take long
                fetcher.stop()
                room.close()
                fetched.close()
        return number

    def states(self) -> Mapping[str, FileState]:
        """See `reader.Source.states`."""
        return states(self._lists)

    def only(self, paths: Container[str]) -> Self:
        """See `reader.Source.only`."""
        other = copy.copy(self)
        other._lists = narrowed(self._lists, paths)
        return other

    def _read(self, name: str, place: Place, start: int) -> Generator[_Wanted | Skipped, None, int]:
        names = lists.columns_of(place)
        self.left_out.update(lists.columns_left_out(place))
        url, caption = self._columns(names)
        wanted_url = url or self._url_column
        if wanted_url is None:
            raise InputError(_without(place, names, None))
        missing = None if caption or self._caption_column is None else _without(place, names, self._caption_column)
        make = partial(_wanted, url_column=wanted_url, caption_column=caption, no_caption=missing)
        return lists.read_rows(name, place, start, make, {"key", wanted_url, *([caption] if caption else [])})

    def _columns(self, names: Sequence[str]) -> tuple[str | None, str | None]:
        """Of a list's columns those of URLs and captions; None where there is none, or not the one asked for."""
        urls = [self._url_column] if self._url_column else [lists.find_url_column(names)]
        captions = [self._caption_column] if self._caption_column else CAPTION_NAMES
        return next((n for n in urls if n in names), None), next((n for n in captions if n in names), None)

    def _check_columns(self) -> None:
        """InputError if no list has a column of URLs, or the columns that were asked for."""
        missing = [(0, self._url_column), *([(1, self._caption_column)] if self._caption_column else [])]
        first: tuple[Place, list[str]] | None = None
        for _, place in self._lists:
            try:
                names = lists.columns_of(place)
            except lists.DAMAGE:  # which is listed when its rows are read
                return
            first = first or (place, names)
            found = self._columns(names)
            missing = [(at, asked) for at, asked in missing if found[at] is None]
            if not missing:
                return
        if first is not None:
            raise InputError(_without(*first, missing[0][1]))


def _without(place: Place, names: Sequence[str], asked: str | None) -> str:
    """A sentence on a list without the column asked for, or without any that is named as those of URLs are."""
    what = "that is named as URLs are" if asked is None else quoted(asked)
    there = f"its columns are {', '.join(map(readable, names))}" if names else "it is empty"
    advice = " Name it with --url-column." if asked is None else ""
    return f"The list {quoted(readable(place.url))} has no column {what}; {there}.{advice}"


def _wanted(
    called: str, fields: lists.Fields, url_column: str, caption_column: str | None, no_caption: str | None
) -> _Wanted | Skipped:
    others = {name: value for name, value in fields.items() if name not in (url_column, caption_column, "key")}
    url, key = fields.get(url_column), fields.get("key") if url_column != "key" else None
    if not isinstance(url, str) or not url.strip():
        return Skipped(
            called, f"The row has no URL in its column {quoted(url_column)}; write one, or leave the row out."
        )
    url = readable(url.strip())
    caption, flat = with_caption(caption_column, fields.get(caption_column) if caption_column else None, others)
    own = "meta.url" if "meta.url" not in flat else "meta.url_2"
    meta = {own if name == "url" else name: value for name, value in flat.items()}
    if no_caption is not None:
        meta[NO_TEXT] = no_caption
    return readable(str(key)) if key not in (None, "") else url, url, caption, {**meta, "url": url}


def _once(rows: Iterable[_Wanted | Skipped]) -> Iterator[_Wanted | Skipped]:
    seen: set[str] = set()
    for row in rows:
        if not isinstance(row, Skipped):
            if row[0] in seen:
                yield Skipped(row[0], "The list names it a second time; give each row a key of its own to keep both.")
                continue
            seen.add(row[0])
        yield row


def _fetched(fetcher: Fetcher, wanted: _Wanted, limits: str) -> ImageItem | Skipped:
    key, url, caption, meta = wanted
    try:
        return ImageItem(key, fetcher.fetch(url), caption, meta)
    except InputError as error:
        passing = not isinstance(error, NotFetched) or error.passing
        return Skipped(key, str(error), limits="" if passing else limits)
    except Exception as error:  # one odd server must not end a run over millions
        what = readable(str(error)).strip() or type(error).__name__
        return Skipped(key, f"It cannot be fetched ({what}).", limits="")


def _size(item: ImageItem | Skipped) -> int:
    return len(item.data) if isinstance(item, ImageItem) else 0


class _Room:
    """Holds those back who would fetch beyond `limit` bytes, but never the one whose turn it is."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    def enter(self, number: int) -> None:
        """Wait until there is room, or it is the turn of `number`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or number <= self._turn or self._held < self._limit)

    def hold(self, size: int) -> None:
        """So many bytes wait for their turn now."""
        with self._changed:
            self._held += size

    def release(self, size: int, turn: int) -> None:
        """So many bytes had their turn, and it is that of number `turn` now."""
        with self._changed:
            self._held -= size
            self._turn = turn
            self._changed.notify_all()

    def close(self) -> None:
        """Hold nobody back any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
