"""`back`: collections served over HTTP."""

import functools
import ipaddress
import os
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.commands_build import parse_size
from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.parts import Parts, print_json

if TYPE_CHECKING:
    from clipsieve.back.config import Entry
    from clipsieve.back.flags import Flag
    from clipsieve.back.guard import Policy
    from clipsieve.back.jobs import Jobs
    from clipsieve.back.shelf import Fetch, Served, Shelf
    from clipsieve.back.stores import Store
    from clipsieve.index.collection import Collection
    from clipsieve.inference.batched_detector import BatchedDetector
    from clipsieve.protocols import Detector, TextEmbedder

INDICES_PATHS = Path("indices_paths.json")
"""What clip-retrieval serves where it is told nothing."""

PROXIES = "127.0.0.1,::1"
"""Proxies that are believed where none are named: those on this machine."""


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
    detector: Annotated[
        str | None,
        typer.Option("--detector", metavar="MODEL", help="Finds boxes: DirectAI's /detect, boxes of hits."),
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
    safety_head: Annotated[
        Path | None,
        typer.Option(
            "--safety-head", metavar="FILE", help="Weights of a safety model, .pth or .safetensors, likewise."
        ),
    ] = None,
    safety_threshold: Annotated[
        float, typer.Option("--safety-threshold", help="What it gives a higher score than this is left out.")
    ] = 0.5,
    violence_prompts: Annotated[
        Path | None,
        typer.Option("--violence-prompts", metavar="FILE", help=".npy: left out is what the second is nearest to."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="ADDRESS",
            envvar="CLIPSIEVE_STORE",
            help="Where what is deployed is kept: redis://[USER:PASSWORD@]HOST:PORT/0, by default a folder, sets.",
        ),
    ] = None,
    page: options.Page = None,
    default_backend: options.DefaultBackend = "",
    url_column: options.PageUrlColumn = "url",
    preload: Annotated[
        bool, typer.Option("--preload", help="Load the models at the start, not with the first question.")
    ] = False,
    allowed_hosts: Annotated[
        str, typer.Option("--allowed-hosts", metavar="NAMES", help="Names that the service may be asked by: a,b.")
    ] = "",
    cors_origins: Annotated[
        str, typer.Option("--cors-origins", metavar="ORIGINS", help="Sites whose pages may ask: https://a.example,...")
    ] = "",
    trusted_proxies: Annotated[
        str,
        typer.Option("--trusted-proxies", metavar="ADDRESSES", help="Whose X-Forwarded-For is believed."),
    ] = PROXIES,
    read_token_file: Annotated[
        Path | None, typer.Option("--read-token-file", metavar="FILE", help="Holds the token without which none reads.")
    ] = None,
    write_token_file: Annotated[
        Path | None, typer.Option("--write-token-file", metavar="FILE", help="Likewise for what changes something.")
    ] = None,
    max_request_bytes: Annotated[
        str, typer.Option("--max-request-bytes", metavar="SIZE", help="Larger requests are not read.")
    ] = "32M",
    max_results: Annotated[int, typer.Option("--max-results", help="Most that one request may ask for.")] = 1_000_000,
    rate_limit: Annotated[
        str | None, typer.Option("--rate-limit", metavar="N/s", help="Of each client's address: 10/s, 600/m, 1000/h.")
    ] = None,
    memory: Annotated[
        str,
        typer.Option("--memory", metavar="SIZE", help="For vectors of a collection without an index; 0: none."),
    ] = "2G",
    threads: Annotated[int, typer.Option("--threads", help="Requests answered at once.")] = 32,
    queue: Annotated[int, typer.Option("--queue", help="Requests that may wait beyond those.")] = 64,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", help="For a request to come in full, and again for its turn."),
    ] = 30,
    log_level: Annotated[
        str,
        typer.Option("--log-level", envvar="CLIPSIEVE_LOG_LEVEL", metavar="LEVEL", help="debug, info, warning, error."),
    ] = "info",
    log_format: Annotated[
        str | None, typer.Option("--log-format", metavar="json|text", help="By itself, text on a terminal, else JSON.")
    ] = None,
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
    # Many requests at once need no threads each: the libraries', which spin while they wait, took most of the time.
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(library, "1")  # before they are loaded

    from clipsieve.back import logs
    from clipsieve.back.config import entries_of, read_indices_paths
    from clipsieve.back.gate import parse_rate
    from clipsieve.back.limits import Limits
    from clipsieve.back.meters import Meters
    from clipsieve.back.page import open_page
    from clipsieve.back.serve import Binding, protection_of, serve
    from clipsieve.back.shelf import Shelf

    if folders and indices_paths is not None:
        raise InputError("Give folders or --indices-paths, not both.")
    entries: list[Entry] = []
    notes: list[str] = []
    if folders:
        entries = entries_of(folders, model)
    elif indices_paths is not None or (model is None and detector is None) or INDICES_PATHS.exists():
        entries, notes = read_indices_paths(indices_paths or INDICES_PATHS, model)
    limits = Limits(max_results)
    row_memory = 0 if memory == "0" else parse_size(memory)
    tokens = read_token("READ", read_token_file), read_token("WRITE", write_token_file)
    policy = make_policy(host, allowed_hosts, cors_origins, tokens, parse_size(max_request_bytes), trusted_proxies)
    binding = Binding(host, port, threads, queue, timeout)
    shown = open_page(page, default_backend or None, "", url_column)
    protection = protection_of(binding, policy, None if rate_limit is None else parse_rate(rate_limit))
    if not (is_loopback(host) or tokens[0]):
        notes.append(
            "Whoever can reach this machine may ask; --read-token-file asks for a token, and a proxy has to encrypt it."
        )
    for note in notes:
        say(f"Note: {note}")
    logs.set_up(log_level, log_format, sys.stderr)
    meters = Meters()
    shelf, models = Shelf(), Models(ctx.obj, device, meters.prepared)
    jobs: list[Jobs] = []  # made in the process that answers

    def make_app() -> Any:
        from clipsieve.back.app import create_app

        fetch = make_fetch(allow_private_addresses, timeout, threads)
        jobs.append(make_jobs(shelf, state, entries))
        named = entries[0].model if entries else model
        find = None if detector is None else functools.partial(models.detector, detector)
        return create_app(
            shelf,
            fetch=fetch,
            meters=meters,
            limits=limits,
            embedder=(lambda: models.get(named or model_of(shelf))) if entries or model else None,
            detector=find,
            detector_name=detector,
            encoder=lambda: models.batcher(named or model_of(shelf)),
            store=make_store(store, state, entries),
            protection=protection,
            models=models.figures,
            page=shown,
            jobs=jobs[0],
        )

    def open_all() -> None:
        texts = None if multilingual is None else models.texts(multilingual)
        flagged = read_flags(flags, safety_head, safety_threshold, violence_prompts)
        opened = open_entries(models.get, entries, state, texts, columns, ratings, flagged)
        for one in opened:
            one.collection.keep_rows(row_memory)
        shelf.fill(opened)
        if preload:
            shelf.load_models()
        alone = not entries  # nothing is served but the models, so that it is not ready without
        if alone and model is not None:
            models.get(model)
        if detector is not None and (preload or (alone and model is None)):
            models.detector(detector)
        jobs[0].start()

    def close() -> None:
        for one in jobs:
            one.close()
        shelf.close()
        models.close()

    def ready(address: str) -> None:
        logs.log.info("Serving %s at %s", ", ".join(shelf.names) or f"the model {model or detector}", address)
        if json:
            print_json({"url": address, "collections": shelf.names})
            sys.stdout.flush()

    raise typer.Exit(serve(make_app, open_all, close, binding, protection, ready))


def make_policy(
    host: str,
    allowed_hosts: str,
    cors_origins: str,
    tokens: tuple[str | None, str | None],
    max_bytes: int,
    trusted_proxies: str = PROXIES,
) -> "Policy":
    """What requests are held to: this machine's names, and what is allowed besides."""
    from clipsieve.back.guard import Policy, parse_hosts, parse_origins
    from clipsieve.back.proxies import parse_proxies

    proxies = parse_proxies(trusted_proxies)
    own = {name.lower() for name in (host, socket.gethostname()) if name}
    return Policy(parse_hosts(allowed_hosts) | own, parse_origins(cors_origins), *tokens, max_bytes, proxies)


def read_token(kind: str, file: Path | None) -> str | None:
    """The token in the file or in CLIPSIEVE_READ_TOKEN or CLIPSIEVE_WRITE_TOKEN; None without either.

    Arguments of a process are there for all users of the machine to read, so that a token is none.
    """
    name = f"CLIPSIEVE_{kind}_TOKEN"
    if file is None:
        source, token = name, os.environ.get(name)
    else:
        source, token = str(file), file.read_text().strip()
    if token is not None and not re.fullmatch(r"[\x21-\x7e]{8,}", token):
        raise InputError(f"{source} holds no token; a token has 8 characters or more, without spaces.")
    return token


def is_loopback(host: str) -> bool:
    """Whether what listens there is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_entries(
    load: Callable[[str], Any],
    entries: Sequence["Entry"],
    state: Path | None,
    texts: "TextEmbedder | None",
    columns: str | None,
    ratings: Path | None,
    flags: "Mapping[str, Flag]",
) -> "list[Served]":
    """The collections opened. `load` makes the embedder of a name, once; `texts` is the multilingual one."""
    from clipsieve.back.shelf import COLUMNS, Options, Served
    from clipsieve.types import MetaClass

    own = COLUMNS if columns is None else tuple(re.findall(r"[^\s,\[\]\"']+", columns))  # clip-retrieval's is a literal
    served = []
    for entry in entries:
        own_state = state / entry.name if state is not None and len(entries) > 1 else state
        collection = _open(entry, load, own_state)
        if texts is not None and texts.dim != collection.dim:
            raise InputError(
                f"The model {texts.model.name!r} embeds texts in {texts.dim} dimensions and the collection "
                f"{entry.name!r} has {collection.dim}; --mclip takes one that was made for the collection's model."
            )
        for flag, head in flags.items():
            if not isinstance(head, MetaClass) and head.dim != collection.dim:
                raise InputError(
                    f"What flags {flag} takes vectors of {head.dim} dimensions and the collection {entry.name!r} has "
                    f"{collection.dim}; give the one of the collection's model."
                )
        options = Options(entry.columns or own, texts, read_ratings(ratings, collection.dim), flags)
        served.append(Served(entry.name, collection, options, own_state))
    return served


def model_of(shelf: "Shelf") -> str:
    """The name of the model that made the first collection. ModelUnavailable where the folder does not say it."""
    if not shelf.names:
        raise ModelUnavailable("This service has no model that embeds; start it with one: clipsieve back --model NAME.")
    served = shelf[None]
    made_with = served.collection.manifest.model
    if made_with is None:
        raise ModelUnavailable(f"The collection {served.name!r} does not say which model made it; give --model.")
    return made_with.name


def make_store(address: str | None, state: Path | None, entries: Sequence["Entry"]) -> "Store":
    """Where what is deployed is kept: in Redis, or as files in the state or in the first collection."""
    from clipsieve import manifest
    from clipsieve.back.stores import SETS, FolderStore, MemoryStore, open_store

    if address is not None:
        return open_store(address)
    if state is not None:
        return FolderStore(state / SETS)
    folder = entries[0].folder if entries else None
    if folder is not None and (folder / manifest.NAME).exists() and os.access(folder, os.W_OK):
        return FolderStore(folder / SETS)
    say("Note: What is deployed is forgotten when the service ends; --state or --store keeps it.")
    return MemoryStore()


def make_jobs(shelf: "Shelf", state: Path | None, entries: Sequence["Entry"]) -> "Jobs":
    """The jobs in the state or in the first collection; where neither can be had, in a folder that goes in the end."""
    from clipsieve import manifest
    from clipsieve.back.jobs import JOBS, Jobs
    from clipsieve.back.work import make_work

    folder = state if state is not None else entries[0].folder if entries else None
    if folder is not None and (state is not None or (folder / manifest.NAME).exists()):
        try:
            return Jobs(folder / JOBS, make_work(shelf))
        except OSError as error:  # it may not be written, or another service has it
            say(f"Note: {error} Until then jobs and their results go when the service ends.")
    return Jobs(Path(tempfile.mkdtemp(prefix="clipsieve-jobs-")), make_work(shelf), temporary=True)


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


def read_flags(
    classes: Path | None, safety_head: Path | None, threshold: float, violence_prompts: Path | None
) -> "dict[str, Flag]":
    """What requests may have left out by the names safety and violence. InputError where a file is not what it is for.

    threshold  of what the safety head gives
    """
    import numpy as np

    from clipsieve.index.head import make_network, make_prompts
    from clipsieve.inference.tensors import read_tensors
    from clipsieve.question import read_set

    flags: dict[str, Flag] = {} if classes is None else {c.name: c for c in read_set(classes).classes}
    if unknown := set(flags) - {"safety", "violence"}:
        raise InputError(
            f"{classes}: the class {min(unknown)!r} is asked for by nobody; name them safety and violence."
        )
    for name, file in (("safety", safety_head), ("violence", violence_prompts)):
        if file is not None and name in flags:
            raise InputError(f"{classes} has a class {name}, and {file} flags by that name too; give one of them.")
    if safety_head is not None:
        flags["safety"] = make_network(read_tensors(safety_head), str(safety_head), threshold)
    if violence_prompts is not None:
        try:
            array = np.asarray(np.load(violence_prompts))
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{violence_prompts} cannot be read as an array ({error}).") from error
        flags["violence"] = make_prompts(array, str(violence_prompts))
    return flags


def make_fetch(allow_private: bool, timeout: float, threads: int) -> "Fetch":
    """Gets the image behind a URL that a client names: one attempt, within limits, from public addresses only.

    threads  that answer; half of them may fetch at once, so that slow servers leave some to other questions
    """
    from clipsieve.back.gate import at_most
    from clipsieve.inference.fetch import Fetcher, FetchOptions

    limits = FetchOptions(
        timeout=min(10.0, timeout), retries=0, allow_private=allow_private, waits=False, options_given=False
    )
    return at_most(max(2, threads // 2), Fetcher(limits, opt_out=False).fetch)


def _open(entry: "Entry", load: Callable[[str], Any], state: Path | None) -> "Collection":
    from clipsieve.opening import open_collection

    def load_model(name: str, device: str = "auto") -> Any:
        return load(name)

    # A filter that counts boxes may cost a pass over all regions: not for a request.
    return open_collection(entry.folder, model=entry.model, state=state, load=load_model, load_detector=None)


class Models:
    """Embedders by name, each made once and for many threads: what they ask for at the same time runs as a batch.

    Detectors likewise, images alone as batches.

    prepared  told how long images and texts took to prepare, see `clipsieve.inference.batcher`
    options   its BatchOptions, if they are to be others
    """

    def __init__(self, parts: Parts, device: str, prepared: Callable[[str, int], None], options: Any = None) -> None:
        self._parts, self._device, self._prepared, self._options = parts, device, prepared, options
        self._made: dict[str, Any] = {}
        self._batched: dict[str, Any] = {}
        self._detectors: dict[str, BatchedDetector] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Any:
        """The embedder of that name, of images and of what it takes besides."""
        return self._get(name, self._parts.load, "embed_images")

    def texts(self, name: str) -> Any:
        """The embedder of texts of that name, which may be one of texts alone."""
        return self._get(name, self._parts.load_texts or self._parts.load, "embed_texts")

    def _get(self, name: str, load: Callable[..., Any], does: str) -> Any:
        from clipsieve.inference.batcher import batched
        from clipsieve.inference.embedder import use_all_processors
        from clipsieve.inference.text_cache import CachedEmbedder, TextCache

        with self._lock:
            if not hasattr(self._made.get(name), does):
                one = batched(load(name, device=self._device), self._options, prepared=self._prepared)
                use_all_processors()
                self._batched[name] = one
                if not hasattr(one, "embed_texts"):
                    self._made[name] = one
                else:
                    self._made[name] = CachedEmbedder(one) if hasattr(one, "embed_images") else TextCache(one)
            return self._made[name]

    def batcher(self, name: str) -> Any:
        """The same without the cache of texts."""
        self.get(name)
        return self._batched[name]

    def detector(self, name: str) -> "Detector":
        """The detector of that name, which finds as many regions in an image as DirectAI's server looks at."""
        from clipsieve.inference.batched_detector import BatchedDetector
        from clipsieve.inference.detector import MOST_REGIONS
        from clipsieve.inference.embedder import use_all_processors

        with self._lock:
            if name not in self._detectors:
                one = self._parts.load_detector(name, device=self._device, regions=MOST_REGIONS)
                self._detectors[name] = BatchedDetector(one)
                use_all_processors()
            return self._detectors[name]

    def figures(self) -> dict[str, tuple[Any, Any]]:
        """Model -> what its batcher counted, and its cache of texts or None. No wait for a model that is loading."""
        made, batchers = self._made.copy(), self._batched.copy()
        caches = {name: one.statistics() for name, one in made.items() if one is not batchers[name]}
        found: dict[str, tuple[Any, Any]] = {n: (one.statistics(), caches.get(n)) for n, one in batchers.items()}
        return found | {f"{n} (detector)": (one.statistics(), None) for n, one in self._detectors.copy().items()}

    def close(self) -> None:
        """Finish what was asked for, and end the threads."""
        for one in (*self._batched.values(), *self._detectors.values()):
            one.close()
