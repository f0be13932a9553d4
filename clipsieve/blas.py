"""The threads that numpy's products and torch's copies start by themselves, and how they are kept from it.

They belong to the whole process, and spin for a while after each call. Where other work shares the processors they wait
for each other spinning: a scan of 60 ms then took a second. Passes therefore cut the rows into shares themselves, one
thread each.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from threadpoolctl import ThreadpoolController


class _Threads:
    """Holds the products to one thread as long as anybody asks for it: two passes at once, ended in any order, must
    not leave the process with what the other found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._restore: Callable[[], object] = lambda: None
        self._found: tuple[bool, ThreadpoolController] | None = None

    def controller(self) -> ThreadpoolController:
        """The libraries of this process; looked for again once torch has come with its own."""
        loaded = "torch" in sys.modules
        if self._found is None or self._found[0] != loaded:
            self._found = loaded, ThreadpoolController()
        return self._found[1]

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self._restore = self.controller().limit(limits=1, user_api="blas").restore_original_limits
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    self._restore()


_threads = _Threads()


def one_thread_each() -> AbstractContextManager[None]:
    """Products stay in the thread that calls them.

    For passes that work on several blocks at once: every product then has a core of its own, and the rule, which has
    no threads, runs beside another block's product instead of after it.
    """
    return _threads.one()


def stay_alone() -> None:
    """The calling thread starts no OpenMP threads from now on; others are not touched. For the threads of a pass."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.get_num_threads()  # its first call in a thread would undo the limit
    _threads.controller().limit(limits=1, user_api="openmp")
