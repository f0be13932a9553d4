"""`back`: collections served over HTTP."""

import functools
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsieve import options
from clipsieve.access import PROXIES, is_loopback, make_policy, read_token
from clipsieve.command import say
from clipsieve.commands_ask import long_text_of
from clipsieve.commands_build import parse_size, size_of_memory
from clipsieve.errors import InputError
from clipsieve.image_memory import IMAGE_WAIT_S
from clipsieve.parts import print_json
from clipsieve.served_collections import encoder_of, model_of, open_entries, read_flags
from clipsieve.served_models import Models

if TYPE_CHECKING:
    from clipsieve.back.config import Entry
    from clipsieve.back.jobs import Jobs
    from clipsieve.back.shelf import Fetch, Shelf
    from clipsieve.back.stores import Store

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
    host: options.Host = "127.0.0.1",
    port: options.Port = 1234,
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
    long_text: options.LongTextName = "cut",
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
    allowed_hosts: options.AllowedHosts = "",
    cors_origins: options.CorsOrigins = "",
    trusted_proxies: Annotated[
        str,
        typer.Option("--trusted-proxies", metavar="ADDRESSES", help="Whose X-Forwarded-For is believed."),
    ] = PROXIES,
    read_token_file: options.ReadTokenFile = None,
    write_token_file: Annotated[
        Path | None, typer.Option("--write-token-file", metavar="FILE", help="Likewise for what changes something.")
    ] = None,
    max_request_bytes: options.MaxRequestBytes = "32M",
    max_results: Annotated[int, typer.Option("--max-results", help="Most that one request may ask for.")] = 1_000_000,
    rate_limit: options.RateLimit = None,
    memory: Annotated[
        str,
        typer.Option("--memory", metavar="SIZE", help="For vectors of a collection without an index; 0: none."),
    ] = "2G",
    image_memory: options.ImageMemory = None,
    images: options.Images = None,
    threads: options.Threads = 32,
    queue: options.Queue = 64,
    timeout: options.RequestTimeout = 30,
    log_level: options.LogLevel = "info",
    log_format: options.LogFormat = None,
    allow_private_addresses: options.AllowPrivate = False,
    device: options.Device = "auto",
    state: options.State = None,
    json: options.ListenJson = False,
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
    ctx.obj.image_memory.set(size_of_memory(image_memory), min(IMAGE_WAIT_S, timeout))
    limits, long = Limits(max_results), long_text_of(long_text)
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
            encoder=lambda: encoder_of(models, shelf, named),
            store=make_store(store, state, entries),
            protection=protection,
            models=models.figures,
            page=shown,
            jobs=jobs[0],
            image_memory=ctx.obj.image_memory,
        )

    def open_all() -> None:
        texts = None if multilingual is None else models.texts(multilingual)
        flagged = read_flags(flags, safety_head, safety_threshold, violence_prompts)
        how = (texts, columns, ratings, flagged, ctx.obj.image_memory, images or (), long)
        opened = open_entries(models.get, entries, state, *how)
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
