"""Named class sets of a collection over HTTP: read, stored, replaced by whoever knows what is there, deleted.

Each is a file, `sets/NAME.json`, in the collection's folder or in its state, and comes back field by field as it was
sent, fields that are not known included. DirectAI's deployed configurations lie in the same folder under uuids, which
are no names here. A revision is a hash of the file, so that what somebody edits by hand is another one too.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flask import Response, jsonify, request
from flask_openapi import APIBlueprint
from werkzeug.exceptions import PreconditionFailed, PreconditionRequired

from clipsieve import classset
from clipsieve.back import api_shapes as shapes
from clipsieve.back import schema
from clipsieve.back.api import TAG
from clipsieve.back.limits import check_set
from clipsieve.back.shelf import Served, Shelf
from clipsieve.back.stores import SETS, is_id
from clipsieve.durable import sync_folder, write_file
from clipsieve.errors import InputError, NotFound, StoredDamaged, quoted
from clipsieve.lock import exclusively
from clipsieve.types import ClassSet

LOCK = "sets.lock"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def blueprint(shelf: Shelf) -> APIBlueprint:
    """The routes."""
    routes = APIBlueprint("sets", __name__, url_prefix="/api/v1", abp_tags=[TAG])

    @routes.get("/sets", summary="The stored class sets by name, with their revisions", responses=shapes.SETS)
    def listed(query: schema.ItemQuery) -> Any:
        files = SetFiles(shelf[query.collection].kept_in)
        found = [(name, files.read(name)) for name in files.names()]
        return {"sets": [{"name": name, "revision": revision_of(data)} for name, data in found if data is not None]}

    @routes.get("/sets/<id>", summary="A stored class set; its revision is the ETag", responses=shapes.SET)
    def get(path: schema.SetPath, query: schema.ItemQuery) -> Any:
        value, data = SetFiles(shelf[query.collection].kept_in).value(path.id)
        answer = jsonify(value)
        answer.set_etag(revision_of(data))
        return answer.make_conditional(request)

    @routes.put(
        "/sets/<id>", summary="Store a new class set, or replace the revision in If-Match", responses=shapes.STORED
    )
    def put(path: schema.SetPath, query: schema.ItemQuery, body: schema.SetBody) -> Response:
        if not is_name(path.id):
            raise InputError(
                f"{quoted(path.id)} is no name for a set; take up to 64 letters, digits, dashes and "
                "underscores, and no uuid."
            )
        check_set(classset.from_json(body.root, strict=False))
        data = to_bytes(body.root)
        with shelf[query.collection].keeping() as folder:
            files = SetFiles(folder)
            with files.writing():
                there = files.read(path.id)
                if there is not None and "If-Match" not in request.headers:
                    raise PreconditionFailed(
                        f"There is a set {quoted(path.id)} already; send its ETag as If-Match to replace it."
                    )
                _require_match(path.id, there)
                files.write(path.id, data)
        told = {"name": path.id, "revision": revision_of(data), "unknown": classset.unknown_fields(body.root)}
        answer = jsonify(told)
        answer.status_code = 201 if there is None else 200
        answer.set_etag(revision_of(data))
        return answer

    @routes.delete(
        "/sets/<id>", summary="Delete the revision in If-Match of a stored class set", responses=shapes.DELETED
    )
    def delete(path: schema.SetPath, query: schema.ItemQuery) -> Response:
        with shelf[query.collection].keeping() as folder:
            files = SetFiles(folder)
            with files.writing():
                there = files.read(path.id)
                if there is None:
                    raise nothing(path.id)
                if "If-Match" not in request.headers:
                    raise PreconditionRequired(f"Send the ETag of the set {quoted(path.id)} as If-Match to delete it.")
                _require_match(path.id, there)
                files.remove(path.id)
        return Response(status=204)

    return routes


def stored(served: Served) -> Callable[[str], ClassSet]:
    """A collection's stored sets by name, for questions."""
    return SetFiles(served.kept_in).load


class SetFiles:
    """The class sets in one folder. Each call reads what is there then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """What they are called, in order."""
        return sorted(path.stem for path in (self._folder / SETS).glob("*.json") if is_name(path.stem))

    def read(self, name: str) -> bytes | None:
        """The file; None where there is none."""
        with contextlib.suppress(FileNotFoundError):
            return self._path(name).read_bytes() if is_name(name) else None
        return None

    def value(self, name: str) -> tuple[dict[str, Any], bytes]:
        """A set as it was stored, and its file. NotFound if there is none, StoredDamaged if it is no JSON."""
        data = self.read(name)
        if data is None:
            raise nothing(name)
        try:
            value = json.loads(data)
        except ValueError as error:
            raise self._damaged(name, f"is not JSON ({error})") from error
        if not isinstance(value, dict):
            raise self._damaged(name, "is no JSON object")
        return value, data

    def load(self, name: str) -> ClassSet:
        """A set to ask with. The errors are those of `value`."""
        value, _ = self.value(name)
        try:
            return classset.from_json(value, strict=False)
        except InputError as error:
            raise self._damaged(name, f"is no class set ({str(error).rstrip('.')})") from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps other threads and processes from changing the sets; `write` and `remove` are called in it."""
        with exclusively(self._folder / LOCK):
            (self._folder / SETS).mkdir(exist_ok=True)
            yield

    def write(self, name: str, data: bytes) -> None:
        """Store a file at once or not at all."""
        write_file(self._path(name), lambda file: file.write(data))

    def remove(self, name: str) -> None:
        """Delete a file."""
        self._path(name).unlink()
        sync_folder(self._folder / SETS)

    def _path(self, name: str) -> Path:
        return self._folder / SETS / f"{name}.json"

    def _damaged(self, name: str, what: str) -> StoredDamaged:
        return StoredDamaged(f"{self._path(name)} {what}; mend the file, or store the set anew.")


def is_name(text: str) -> bool:
    """Whether a set may have this name: one that is a safe name of a file, and none of a deployed configuration."""
    return _NAME.fullmatch(text) is not None and not is_id(text.lower())


def revision_of(data: bytes) -> str:
    """Which text of a set this is: hex digits, its ETag."""
    return hashlib.sha256(data).hexdigest()[:32]


def to_bytes(value: Mapping[str, Any]) -> bytes:
    """The file of a set. InputError for what JSON or UTF-8 has no words for."""
    try:
        return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except ValueError as error:
        raise InputError(f"The class set holds what is no JSON ({error}).") from error


def nothing(name: str) -> NotFound:
    """There is no such set."""
    return NotFound(f"There is no stored set {quoted(name)}; GET /api/v1/sets lists them.")


def _require_match(name: str, there: bytes | None) -> None:
    """PreconditionFailed where If-Match is of another revision. Proxies that compress make ETags weak ones."""
    if "If-Match" not in request.headers:
        return
    if there is None:
        raise PreconditionFailed(
            f"There is no stored set {quoted(name)} any more; send it without If-Match to store it."
        )
    if not request.if_match.contains_weak(revision_of(there)):
        raise PreconditionFailed(
            f"The set {quoted(name)} was changed since you read it; read it again, and send its ETag as If-Match."
        )
