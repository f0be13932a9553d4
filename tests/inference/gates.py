"""Models that wait to be let go, and the means to wait for them, for the tests of batching."""

import threading
import time

import numpy as np

PATIENCE = 20.0
"""Seconds after which a test fails rather than hangs."""


class Gate:
    """Rows of one number each -> (number, kind) as float32 (n, 2). Every call waits for `open`, and is kept in `calls`.

    bad  number -> what a batch that holds it raises
    """

    def __init__(self, kind=0.0, bad=None):
        self.kind = kind
        self.bad = bad or {}
        self.calls = []
        self._entered = threading.Semaphore(0)
        self._go = threading.Semaphore(0)

    def __call__(self, rows):
        self.calls.append(list(rows))
        self._entered.release()
        assert self._go.acquire(timeout=PATIENCE)
        for row in rows:
            if row in self.bad:
                raise self.bad[row]
        return vectors(rows, self.kind)

    def entered(self):
        """Wait until the model has been called once more."""
        assert self._entered.acquire(timeout=PATIENCE)

    def open(self, calls=10_000):
        """Let so many calls pass."""
        self._go.release(calls)


def vectors(numbers, kind=0.0):
    """What a Gate makes of these."""
    return np.array([[number, kind] for number in numbers], np.float32).reshape(-1, 2)


def until(condition):
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
