"""Images that were given to be examples, as long as there is room: they may be embedded more than once."""

import threading

from clipsieve.types import content_hash

MOST_BYTES = 64 * 2**20


class Uploads:
    """Encoded images by content hash, the least recently used forgotten first. Safe in many threads.

    most_bytes  of all of them; the last one is kept in any case
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._images: dict[str, bytes] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, data: bytes) -> str:
        """Keep an image; its content hash."""
        name = content_hash(data)
        with self._lock:
            if self._images.pop(name, None) is None:
                self._bytes += len(data)
            self._images[name] = data
            while self._bytes > self._most and len(self._images) > 1:
                self._bytes -= len(self._images.pop(next(iter(self._images))))
        return name

    def get(self, name: str) -> bytes | None:
        """The image, or None where it is not there, or no longer."""
        with self._lock:
            data = self._images.pop(name, None)
            if data is not None:
                self._images[name] = data
            return data
