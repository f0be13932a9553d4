"""The threads of the matrix product, which belong to the whole process."""

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

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self._restore = ThreadpoolController().limit(limits=1, user_api="blas").restore_original_limits
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
