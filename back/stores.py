"""Where deployed configurations are kept: files in a folder, DirectAI's Redis, or this process alone.

Each keeps bytes under a uuid and knows nothing of what they say. What was put is there for every process that has the
same store; of two that put at once, the last one wins.
"""

import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable
from urllib.parse import urlsplit

from clipsieve.durable import write_file
from clipsieve.errors import InputError, MissingExtra, StoreUnavailable, quoted

SETS = "sets"
"""The folder of a collection, or of its state, in which configurations lie."""

SECONDS = 5.0
"""How long Redis may take for an answer, or to be reached."""

T = TypeVar("T")


@runtime_checkable
class Store(Protocol):
    """Configurations under their ids. Safe to use from several threads at once. StoreUnavailable where it fails."""

    def get(self, id: str) -> bytes | None:
        """What is kept under this id; None if there is nothing, or if the id is no uuid in its usual spelling."""

    def put(self, id: str, value: bytes) -> None:
        """Keep it, in place of what was there. InputError if the id is no uuid."""


def is_id(text: str) -> bool:
    """Whether this is a uuid as `str(uuid.uuid4())` spells it, which is a safe name of a file."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


class MemoryStore:
    """A Store that is forgotten with its process."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def get(self, id: str) -> bytes | None:
        """See Store."""
        return self._values.get(id)

    def put(self, id: str, value: bytes) -> None:
        """See Store."""
        _require_id(id)
        self._values[id] = value


class FolderStore:
    """A Store of files, ID.json, each replaced at once. The folder is made when the first one comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = threading.Lock()  # two writers of one id would share the file beside it

    def get(self, id: str) -> bytes | None:
        """See Store."""
        if not is_id(id):
            return None
        try:
            return (self._folder / f"{id}.json").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"The configuration {id} in {self._folder} cannot be read ({error}).") from error

    def put(self, id: str, value: bytes) -> None:
        """See Store."""
        _require_id(id)
        try:
            with self._writing:
                self._folder.mkdir(parents=True, exist_ok=True)
                write_file(self._folder / f"{id}.json", lambda file: file.write(value))
        except OSError as error:
            raise StoreUnavailable(
                f"The configuration {id} cannot be kept in {self._folder} ({error}); give another folder with --state."
            ) from error


class RedisStore:
    """A Store in Redis as DirectAI's server uses it: the id is the key, and nothing expires."""

    def __init__(self, address: str) -> None:
        """Reach the server. InputError for an address that is none, StoreUnavailable if it does not answer."""
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise MissingExtra("--store needs the package redis; install clipsieve[redis].") from error
        self._error = redis.RedisError
        try:
            parts = urlsplit(address)
            self._where = f"{parts.hostname or 'localhost'}:{parts.port or 6379}"  # without the password
            # Once more, because a connection that was kept ends when the server is started anew.
            self._client: Any = redis.Redis.from_url(
                address, socket_timeout=SECONDS, socket_connect_timeout=SECONDS, retry=Retry(NoBackoff(), 1)
            )
        except ValueError:  # its words may hold a piece of the password
            raise InputError("--store cannot be read; give redis://[USER:PASSWORD@]HOST:PORT/0.") from None
        self._do(lambda: self._client.ping())

    def get(self, id: str) -> bytes | None:
        """See Store."""
        found: bytes | None = self._do(lambda: self._client.get(id)) if is_id(id) else None
        return found

    def put(self, id: str, value: bytes) -> None:
        """See Store."""
        _require_id(id)
        self._do(lambda: self._client.set(id, value))

    def _do(self, command: Callable[[], T]) -> T:
        try:
            return command()
        except self._error as error:
            raise StoreUnavailable(f"Redis at {self._where} does not do what it is asked ({error}).") from error


def open_store(address: str) -> Store:
    """The store of an address. InputError unless it starts with redis:// or rediss://."""
    if not address.startswith(("redis://", "rediss://")):
        raise InputError("--store is not known; give redis://[USER:PASSWORD@]HOST:PORT/0, or leave it out for files.")
    return RedisStore(address)


def _require_id(id: str) -> None:
    if not is_id(id):
        raise InputError(f"{quoted(id)} is no uuid; configurations are kept under one.")
