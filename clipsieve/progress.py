"""How far long work has come, on stderr: one line that is redrawn on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

_REDRAW_SECONDS = 0.1
_PLAIN_SECONDS = 10.0
_WORTH_SECONDS = 1.0


class Progress:
    """Reports on one piece of work. Used as a context manager, it ends with a line that sums up, unless it was short.

    what     "embedding", "labelling"
    unit     what is counted, in the plural: "images"
    stream   where to; its isatty() decides how
    quiet    say nothing at all
    clock    seconds, rising
    """

    def __init__(
        self,
        what: str,
        unit: str,
        stream: TextIO,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self.unit = unit
        self._stream = stream
        self._quiet = quiet
        self._clock = clock
        self._redraws = stream.isatty()
        self._began = self._shown = clock()
        self._first: int | None = None
        self._last: tuple[int, int | None, int] = (0, None, 0)
        self._drawn = False

    def update(self, done: int, total: int | None = None, skipped: int = 0) -> None:
        """Tell how many are done in all, of how many if that is known, and how many were passed over."""
        if self._first is None:
            self._first = done  # a resumed run starts part of the way; what came before does not count as speed
        self._last = (done, total, skipped)
        now = self._clock()
        if self._quiet or now - self._shown < (_REDRAW_SECONDS if self._redraws else _PLAIN_SECONDS):
            return
        self._shown = now
        self._draw(self._line(now))

    def _line(self, now: float) -> str:
        done, total, skipped = self._last
        return line(self.what, self.unit, done, total, skipped, now - self._began, done - (self._first or 0))

    def _draw(self, text: str) -> None:
        # \x1b[K clears what a longer line left behind.
        self._stream.write(f"\r{text}\x1b[K" if self._redraws else text + "\n")
        self._stream.flush()
        self._drawn = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._quiet:
            return
        now = self._clock()
        # What was over at once needs no report.
        if kind is None and self._first is not None and (self._drawn or now - self._began >= _WORTH_SECONDS):
            self._draw(self._line(now))
        if self._redraws and self._drawn:
            self._stream.write("\n")
            self._stream.flush()


def line(what: str, unit: str, done: int, total: int | None, skipped: int, seconds: float, new: int) -> str:
    """What is shown.

    done     in all, `total` of them if known
    skipped  how many of those were passed over
    new      how many of `done` took these `seconds`; the rate is theirs

    >>> line("embedding", "images", 300, 1200, 2, 10.0, 300)
    'embedding: 300 of 1,200 images, 2 skipped, 30/s, 30 s left'
    """
    counted = f"{done:,} {unit}" if total is None else f"{done:,} of {total:,} {unit}"
    parts = [counted]
    if skipped:
        parts.append(f"{skipped:,} skipped")
    if new > 0 and seconds > 0:
        rate = new / seconds
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if total is not None and done < total:
            parts.append(f"{duration((total - done) / rate)} left")
        else:
            parts.append(duration(seconds))
    return f"{what}: " + ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds in words as short as they may be: "0.4 s", "12 s", "3 min 20 s", "2 h 5 min".

    >>> duration(200)
    '3 min 20 s'
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
