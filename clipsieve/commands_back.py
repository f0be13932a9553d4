"""`back`: collections served over HTTP."""

import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.parts import Parts, print_json

if TYPE_CHECKING:
    from clipsieve.back.config import Entry
    from clipsieve.back.shelf import Fetch, Served, Shelf
    from clipsieve.back.stores import Store
    from clipsieve.index.collection import Collection

INDICES_PATHS = Path("indices_paths.json")
"""What clip-retrieval serves where it is told nothing."""


def back(
    ctx: typer.Context,
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER...", help="Collections; each is named after its folder.")
    ] = None,
    indices_paths: Annotated[
        Path | None,
        typer.Option("--indices-paths", metavar="FILE", help='Collections by name, as JSON: {"photos": "FOLDER"}.'),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen; 0.0.0.0 for all networks.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 1234,
    model: options.QuestionModel = None,
    multilingual: Annotated[
        str | None, typer.Option("--mclip", metavar="MODEL", help="Embeds texts of other languages, for use_mclip.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="NAMES", help="Metadata to answer with: url,caption,...")
    ] = None,
    ratings: Annotated[
        Path | None,
        typer.Option("--ratings", metavar="DIR", help="rating0.npy to rating9.npy, for aesthetic_score."),
    ] = None,
    flags: Annotated[
        Path | None,
        typer.Option("--flags", metavar="FILE", help="Classes safety and violence, in JSON: left out if asked."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="ADDRESS",
            envvar="CLIPSIEVE_STORE",
            help="Where deployed classifiers are kept: redis://[USER:PASSWORD@]HOST:PORT/0, by default a folder, sets.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="Requests answered at once.")] = 32,
    max_results: Annotated[int, typer.Option("--max-results", help="Most that one request may ask for.")] = 1_000_000,
    allow_private_addresses: options.AllowPrivate = False,
    device: options.Device = "auto",
    state: options.State = None,
    json: Annotated[bool, typer.Option("--json", help="Say where it listens as one JSON object on stdout.")] = False,
) -> None:
    """Serve collections over HTTP: clip-retrieval's clients and front, DirectAI's clients, and the page.

    Example: clipsieve back photos.clip

    Example: clipsieve back --indices-paths indices_paths.json --port 1234

    Example: clipsieve back --model mini --port 8000
    """
    from clipsieve.back.config import entries_of, read_indices_paths
    from clipsieve.back.knn import Limits
    from clipsieve.back.serve import Binding, serve

    if folders and indices_paths is not None:
        raise InputError("Give folders or --indices-paths, not both.")
    entries: list[Entry] = []
    notes: list[str] = []
    if folders:
        entries = entries_of(folders, model)
    elif indices_paths is not None or model is None or INDICES_PATHS.exists():
        entries, notes = read_indices_paths(indices_paths or INDICES_PATHS, model)
    for note in notes:
        say(f"Note: {note}")

    def make_app() -> tuple[Any, Callable[[], None]]:
        from clipsieve.back.app import create_app

        models = Models(ctx.obj, device)
        shelf = fill_shelf(models.get, entries, state, multilingual, columns, ratings, flags)
        if not entries and model is not None:
            models.get(model)  # nothing is served but this, so that it is not ready without
        named = entries[0].model if entries else model
        app = create_app(
            shelf,
            fetch=make_fetch(allow_private_addresses),
            limits=Limits(max_results),
            embedder=lambda: models.get(named or model_of(shelf[None])),
            store=make_store(store, state, shelf[None] if entries else None),
        )

        def close() -> None:
            shelf.close()
            models.close()

        return app, close

    def ready(address: str) -> None:
        names = [entry.name for entry in entries]
        say(f"Serving {', '.join(names) or f'the model {model}'} at {address}")
        if json:
            print_json({"url": address, "collections": names})
            sys.stdout.flush()

    raise typer.Exit(serve(make_app, Binding(host, port, threads), ready))


def fill_shelf(
    load: Callable[[str], Any],
    entries: Sequence["Entry"],
    state: Path | None,
    multilingual: str | None,
    columns: str | None,
    ratings: Path | None,
    flags: Path | None,
) -> "Shelf":
    """The collections opened. `load` makes the embedder of a name, once."""
    from clipsieve.back.shelf import COLUMNS, Options, Served, Shelf
    from clipsieve.question import read_set

    own = COLUMNS if columns is None else tuple(re.findall(r"[^\s,\[\]\"']+", columns))  # clip-retrieval's is a literal
    texts = None if multilingual is None else load(multilingual)
    flagged = {} if flags is None else {c.name: c for c in read_set(flags).classes}
    if unknown := set(flagged) - {"safety", "violence"}:
        raise InputError(f"{flags}: the class {min(unknown)!r} is asked for by nobody; name them safety and violence.")
    served = []
    for entry in entries:
        collection = _open(entry, load, state, len(entries) > 1)
        options = Options(entry.columns or own, texts, read_ratings(ratings, collection.dim), flagged)
        served.append(Served(entry.name, collection, options))
    return Shelf(served)


def model_of(served: "Served") -> str:
    """The name of the model that made a collection. ModelUnavailable where the folder does not say it."""
    made_with = served.collection.manifest.model
    if made_with is None:
        raise ModelUnavailable(f"The collection {served.name!r} does not say which model made it; give --model.")
    return made_with.name


def make_store(address: str | None, state: Path | None, first: "Served | None") -> "Store":
    """Where deployed classifiers are kept: in Redis, or as files in the state or in the first collection."""
    from clipsieve.back.stores import SETS, FolderStore, MemoryStore, open_store

    if address is not None:
        return open_store(address)
    if state is not None:
        return FolderStore(state / SETS)
    if first is not None and not first.collection.manifest.read_only and os.access(first.collection.folder, os.W_OK):
        return FolderStore(first.collection.folder / SETS)
    say("Note: Classifiers that are deployed are forgotten when the service ends; --state or --store keeps them.")
    return MemoryStore()


def read_ratings(folder: Path | None, dim: int) -> dict[int, Any]:
    """rating0.npy to rating9.npy, each float (d,); {} without a folder. InputError where one is missing or another."""
    import numpy as np

    found: dict[int, Any] = {}
    for rating in range(10) if folder is not None else ():
        path = Path(str(folder)) / f"rating{rating}.npy"
        try:
            vector = np.load(path).astype(np.float32).reshape(-1)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a rating ({error}).") from error
        if len(vector) != dim:
            raise InputError(f"{path} has {len(vector)} dimensions and the collection {dim}; they are another model's.")
        found[rating] = vector
    return found


def make_fetch(allow_private: bool) -> "Fetch":
    """Gets the image behind a URL that a client names: one attempt, within limits, from public addresses only."""
    from clipsieve.inference.fetch import Fetcher, FetchOptions

    return Fetcher(FetchOptions(timeout=10, retries=0, allow_private=allow_private), opt_out=False).fetch


def _open(entry: "Entry", load: Callable[[str], Any], state: Path | None, several: bool) -> "Collection":
    from clipsieve.opening import open_collection

    own = None if state is None else state / entry.name if several else state
    return open_collection(entry.folder, model=entry.model, state=own, load=lambda name, device="auto": load(name))


class Models:
    """Embedders by name, each made once and for many threads: what they ask for at the same time runs as a batch."""

    def __init__(self, parts: Parts, device: str) -> None:
        self._parts, self._device = parts, device
        self._made: dict[str, Any] = {}
        self._batched: list[Any] = []
        self._lock = threading.Lock()

    def get(self, name: str) -> Any:
        """The embedder of that name."""
        from clipsieve.inference.batcher import batched
        from clipsieve.inference.text_cache import CachedEmbedder

        with self._lock:
            if name not in self._made:
                one = batched(self._parts.load(name, device=self._device))
                self._batched.append(one)
                self._made[name] = CachedEmbedder(one) if hasattr(one, "embed_texts") else one
            return self._made[name]

    def close(self) -> None:
        """Finish what was asked for, and end the threads."""
        for one in self._batched:
            one.close()
