"""What was made, embedded or uploaded and is kept: the least recently used is forgotten first."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Things under keys; safe in threads. `get` makes one at a time: many who ask for the same get it made once.

    most  of all sizes together; what was kept last stays in any case
    size  of one thing, in bytes for instance; 1 for each where they are counted
    """

    def __init__(self, most: int, size: Callable[[T], int]) -> None:
        self._most, self._size = most, size
        self._things: dict[object, T] = {}  # the least recently used first
        self._total = 0
        self._lock = threading.Lock()  # guards the two before
        self._making = threading.Lock()

    def get(self, key: object, make: Callable[[], T]) -> T:
        """What is kept under the key; made, and kept, if there is nothing."""
        found = self.find(key)
        if found is not None:
            return found
        with self._making:
            found = self.find(key)
            if found is not None:
                return found
            made = make()
            self.put(key, made)
        return made

    def put(self, key: object, thing: T) -> None:
        """Keep something that was made elsewhere, in place of what is kept under the key."""
        with self._lock:
            before = self._things.pop(key, None)
            self._total += self._size(thing) - (0 if before is None else self._size(before))
            self._things[key] = thing
            while self._total > self._most and len(self._things) > 1:
                self._total -= self._size(self._things.pop(next(iter(self._things))))

    def find(self, key: object) -> T | None:
        """What is kept under the key, or None."""
        with self._lock:
            found = self._things.pop(key, None)
            if found is not None:
                self._things[key] = found
            return found
