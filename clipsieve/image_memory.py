"""One total of memory, from which all decoding of images in a process reserves what it takes (`image_costs`)."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from clipsieve.errors import Overloaded, TooLarge

SHARE = 4
"""The default total is so large a part of the memory that the process may use: a fourth."""

LEAST_TOTAL = 512 * 2**20
"""Of a default total: what every PNG and JPEG that the service takes fits into."""

IMAGE_WAIT_S = 10.0
"""Seconds that a request's image waits for memory, at most."""


def machine_memory() -> int:
    """Bytes that this process may use: the machine's memory, or less where its control group has a limit."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return 8 * 2**30
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found = min(found, int(Path(limit).read_text()))
    return found


class ImageMemory:
    """Reserves memory for images that are being decoded, in the order that it is asked. Safe in many threads.

    total   bytes; a fourth of the memory of the machine by default
    wait_s  seconds to wait for one's turn. None: as long as it takes, and what exceeds the total is decoded while
            nothing else is
    """

    def __init__(self, total: int | None = None, wait_s: float | None = None) -> None:
        self.total = max(LEAST_TOTAL, machine_memory() // SHARE) if total is None else total
        self.wait_s = wait_s
        self._held = 0
        self._waiting: deque[object] = deque()
        self._turn = threading.Condition()

    def set(self, total: int | None, wait_s: float | None) -> None:
        """Another total, unless it is None, and another time to wait; before anything is decoded."""
        self.total = self.total if total is None else total
        self.wait_s = wait_s

    @property
    def held(self) -> int:
        """Bytes that are reserved now."""
        return self._held

    @contextlib.contextmanager
    def hold(self, size: int, what: str) -> Iterator[None]:
        """Keep so many bytes reserved while the `with` lasts. Not to be nested: one might wait for oneself.

        what  names the image in an error

        TooLarge for more than the total, Overloaded where it is not free in time; neither with a `wait_s` of None.
        """
        if self.wait_s is not None and size > self.total:
            raise TooLarge(
                f"{what} takes {_mb(size)} to decode, and all images together may take {_mb(self.total)} "
                "(--image-memory); send a smaller one, or a PNG or a JPEG that is not progressive."
            )
        size = min(size, self.total)
        ticket = object()
        with self._turn:
            self._waiting.append(ticket)
            try:
                free = self._turn.wait_for(
                    lambda: self._waiting[0] is ticket and self._held + size <= self.total, self.wait_s
                )
                if not free:
                    raise Overloaded(
                        "Other images are being decoded, and the memory for that is taken (--image-memory); ask again "
                        "in a moment."
                    )
                self._held += size
            finally:
                self._waiting.remove(ticket)
                self._turn.notify_all()
        try:
            yield
        finally:
            with self._turn:
                self._held -= size
                self._turn.notify_all()


def _mb(size: int) -> str:
    return f"{max(1, round(size / 1e6)):,} MB"
