"""The page that browsers get: the files of a built front, ours or clip-retrieval's, and config.json, which says whom it
asks. Where there is no page, / says what can be asked without one.
"""

import html
import mimetypes
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Response, request
from flask_openapi import OpenAPI, Tag
from werkzeug.routing import PathConverter, ValidationError

from clipsieve.back.guard import for_all, page_content, split_host
from clipsieve.errors import InputError, quoted

BUILT = Path(__file__).parent / "static"
"""Our own page, once it is built."""

TAG = Tag(name="page", description="What browsers show.")
FOR_EVER = "public, max-age=31536000, immutable"
# A build names files after what is in them: index-BvVx7dU2.js as Vite does, main.16f67040.js as webpack does.
_HASHED = re.compile(r".*(-(?=\w*[A-Z])(?=\w*[a-z0-9])[\w-]{8}|\.(?=[0-9a-f]*[0-9])[0-9a-f]{8,32})\.\w+(\.map)?")
# Whatever the system's own table says: with nosniff, a script under another type is not run.
_TYPES = mimetypes.MimeTypes()

HINT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>clipsieve</title></head><body>
<h1>clipsieve</h1>
<p>There is no page in this build; <code>make front</code>, with node 20.19 or newer and npm, builds it, and
<code>--page DIR</code> serves one that was built elsewhere, clip-retrieval's for instance.</p>
<p>Programs ask <code>{root}/api/v1</code>, or as clip-retrieval's clients do <code>{root}/knn-service</code>;
<a href="{root}/openapi">{root}/openapi</a> describes all that can be asked.</p>
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A built page, and what its config.json says.

    folder           with index.html; None where there is no page
    default_backend  the service that it asks; None for the one that it comes from
    default_index    the collection that it shows first; "" for the service's first
    url_column       where images' addresses are in the metadata
    own              it is our build, which needs less from the browser than others do

    InputError for a folder without a page, or for what is no address.
    """

    folder: Path | None = None
    default_backend: str | None = None
    default_index: str = ""
    url_column: str = "url"
    own: bool = False

    def __post_init__(self) -> None:
        if self.folder is not None and not (self.folder / "index.html").is_file():
            raise InputError(f"{self.folder} has no index.html; give the folder of a built page.")
        if self.default_backend is not None and _origin(self.default_backend) is None:
            raise InputError(
                f"{quoted(self.default_backend)} is no address of a service; write for instance http://host:1234."
            )


def open_page(folder: Path | None, default_backend: str | None, default_index: str, url_column: str) -> Page:
    """The page in the folder; without one our own, if it was built."""
    if folder is not None:
        return Page(folder, default_backend, default_index, url_column)
    own = BUILT if (BUILT / "index.html").is_file() else None
    return Page(own, default_backend, default_index, url_column, own=True)


def add_page(app: OpenAPI, page: Page) -> None:
    """Serve it at /. Other routes go before its files, and nothing but files below its folder is sent."""
    content = page_content(None if page.default_backend is None else _origin(page.default_backend), page.own)

    @app.get("/", summary="The page", tags=[TAG])
    @for_all
    def index() -> Response:
        if page.folder is None:
            root = html.escape((page.default_backend or "").rstrip("/"))
            return Response(HINT.format(root=root), mimetype="text/html")
        return _send(page.folder / "index.html", content)

    @app.get("/config.json", summary="What a page asks first", tags=[TAG])
    @for_all
    def config() -> Any:
        backend = page.default_backend or request.host_url
        return {"defaultBackend": backend, "defaultIndex": page.default_index, "urlColumn": page.url_column}

    @for_all
    def file(path: Path) -> Response:
        return _send(path, content)

    if page.folder is not None:
        taken = {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()}
        app.url_map.converters["page_file"] = _files_of(page.folder, taken)
        app.add_url_rule("/<page_file:path>", "page_file", file)


def find_file(folder: Path, name: str) -> Path | None:
    """The file of that name below the folder, links followed; None where there is none, or it is a hidden one."""
    if any(part.startswith(".") or not part for part in name.split("/")) or "\\" in name or "\0" in name:
        return None
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except OSError:  # a name that is too long
        return None


def _files_of(folder: Path, taken: Iterable[str]) -> type[PathConverter]:
    """A converter of the paths of a page's files, none of which begins with a word that other routes have taken."""
    words = "|".join(re.escape(word) for word in taken if word)

    class File(PathConverter):
        """The path of a file of the page; what is none is another route's, or nobody's."""

        # Werkzeug counts a rule among those that allow GET by this expression, before it asks to_python.
        regex = f"(?!(?:{words})(?:/|$)){PathConverter.regex}"

        def to_python(self, value: str) -> Any:
            found = find_file(folder, value)
            if found is None:
                raise ValidationError
            return found

    return File


def _send(path: Path, content: str) -> Response:
    kind = _TYPES.guess_type(path.name)[0] or "application/octet-stream"
    answer = Response(path.read_bytes(), mimetype=kind)
    answer.add_etag()
    answer.make_conditional(request)
    answer.headers["Cache-Control"] = FOR_EVER if _HASHED.fullmatch(path.name) else "no-cache"
    if kind == "text/html":
        answer.headers["Content-Security-Policy"] = content
    return answer


def _origin(url: str) -> str | None:
    """ "https://host:1234/path" -> "https://host:1234"; None for what is no address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or split_host(parts.netloc) is None:
        return None
    # It becomes a word of a header.
    return f"{parts.scheme}://{parts.netloc}" if re.fullmatch(r"[\w.\-:\[\]]+", parts.netloc, re.ASCII) else None
