"""`end2end` and `inference.worker`: the same work in one command, or shared out among several."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.commands_build import (
    DEFAULT_MODEL,
    build,
    embed,
    fetch_options,
    parse_latency,
    parse_size,
    tell_built,
    tell_embedded,
    texts_by_model,
)
from clipsieve.commands_regions import find_with, load_for
from clipsieve.errors import InputError, quoted
from clipsieve.parts import print_json


def end2end(
    ctx: typer.Context,
    input: options.Input,
    out: options.Out,
    model: options.ImageModel = DEFAULT_MODEL,
    format: options.InputFormat = "auto",
    text: options.CaptionTexts = True,
    thumbs: options.Thumbs = False,
    decode: options.Decode = None,
    regions: options.Regions = None,
    region_count: options.RegionCount = None,
    crops: options.Crops = False,
    batch_size: options.BatchSize = 256,
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    url_column: options.UrlColumn = None,
    allow_private_addresses: options.AllowPrivate = False,
    timeout: options.Timeout = 20,
    retries: options.Retries = 2,
    max_bytes: options.MaxBytes = "20M",
    connections: options.Connections = 32,
    recall: options.Recall = 0.95,
    memory: options.Memory = "4G",
    latency: options.Latency = None,
    run_back: Annotated[bool, typer.Option("--run-back/--no-run-back", help="Serve the collection afterwards.")] = True,
    port: Annotated[int, typer.Option("--port", help="Where to serve it; 0 takes a free port.")] = 1234,
    json: options.Json = False,
) -> None:
    """Embed INPUT into the collection OUT, index it and serve it. Stopped, it goes on where it was.

    Example: clipsieve end2end urls.parquet web.clip --thumbs
    """
    size, most_ms = parse_size(memory), parse_latency(latency)
    from clipsieve.inference.reader import open_source
    from clipsieve.lock import require_free

    source = open_source(
        input,
        format=format,  # type: ignore[arg-type]  # it says itself which it knows
        image_column=image_column,
        caption_column=caption_column,
        url_column=url_column,
        fetching=fetch_options(allow_private_addresses, timeout, retries, max_bytes, connections),
    )
    require_free(out)
    embedder = load_for(ctx.obj, out, model, device, precision, decode)
    finder = find_with(ctx.obj, out, embedder, regions, region_count, crops, device, precision)
    how = {"text": text, "batch_size": batch_size, "workers": workers, "thumbs": thumbs, "finder": finder}
    embedded = embed(source, embedder, out, **how)
    if not json:
        typer.echo(tell_embedded(embedded))
    how_indexed = {"recall": recall, "memory_bytes": size, "latency_ms": most_ms}
    built = build(out, texts=texts_by_model(ctx.obj, out), **how_indexed)
    if json:
        print_json({"folder": str(out), "inference": embedded, "index": built})
    else:
        for line in tell_built(built):
            typer.echo(line)
        typer.echo(f'Ask it: clipsieve search {out} "red bus" --not "red truck"')
    if run_back:  # in this process's place, without the model: what serves makes processes of its own
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "clipsieve", "back", str(out), "--port", str(port)])


def inference_worker(
    ctx: typer.Context,
    input: options.Input,
    out: options.Out,
    tasks: Annotated[
        str, typer.Option("--tasks", metavar="LIST", help="Which parts, counted from 0: [0,1,2], 0,1,2 or 0-2.")
    ],
    partitions: Annotated[int, typer.Option("--partitions", min=1, help="How many parts INPUT is cut into.")],
    model: options.ImageModel = DEFAULT_MODEL,
    format: options.InputFormat = "auto",
    text: options.CaptionTexts = True,
    thumbs: options.Thumbs = False,
    decode: options.Decode = None,
    regions: options.Regions = None,
    region_count: options.RegionCount = None,
    crops: options.Crops = False,
    batch_size: options.BatchSize = 256,
    workers: options.Workers = None,
    shard_size: options.ShardSize = 100_000,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    image_key: options.ImageKey = None,
    caption_key: options.CaptionKey = "txt",
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    url_column: options.UrlColumn = None,
    allow_private_addresses: options.AllowPrivate = False,
    timeout: options.Timeout = 20,
    retries: options.Retries = 2,
    max_bytes: options.MaxBytes = "20M",
    connections: options.Connections = 32,
    json: options.Json = False,
) -> None:
    """Embed some parts of INPUT, beside workers of other parts: for a scheduler that hands out the parts.

    Example: clipsieve inference.worker "tars/{000..063}.tar" big.clip --partitions 8 --tasks "[0,1]"
    """
    numbers = parse_tasks(tasks, partitions)
    from clipsieve.inference.reader import open_source

    sources = [
        open_source(
            input,
            format=format,  # type: ignore[arg-type]  # it says itself which it knows
            wds_image_key=image_key,
            wds_caption_key=caption_key,
            image_column=image_column,
            caption_column=caption_column,
            url_column=url_column,
            fetching=fetch_options(allow_private_addresses, timeout, retries, max_bytes, connections),
            partition=number,
            partitions=partitions,
        )
        for number in numbers
    ]
    embedder = load_for(ctx.obj, out, model, device, precision, decode)
    how: dict[str, Any] = {
        "text": text,
        "batch_size": batch_size,
        "workers": workers,
        "shard_size": shard_size,
        "thumbs": thumbs,
    }
    how["finder"] = find_with(ctx.obj, out, embedder, regions, region_count, crops, device, precision)
    everything = []
    with _stopped_by_schedulers():
        for number, source in zip(numbers, sources, strict=True):
            done = embed(source, embedder, out, waiting=lambda why: say(f"Waiting: {why}"), **how)
            everything.append({"task": number, **done})
            if not json:
                typer.echo(f"Part {number} of {partitions}: {tell_embedded(done)}")
    if numbers == list(range(partitions)) and not any(done["embedded"] for done in everything):
        from clipsieve.inference.run import require_images

        require_images(out, sources[0].name)
    if json:
        print_json({"folder": str(out), "tasks": everything})


def parse_tasks(text: str, partitions: int) -> list[int]:
    """The numbers in "[0,1,2]", "0,1,2" or "0-2,5", ascending. InputError for anything else, or for no such part."""
    numbers: set[int] = set()
    for part in text.strip().removeprefix("[").removesuffix("]").split(","):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        if found is None:
            raise InputError(f"--tasks {quoted(text)} is not understood; write for instance [0,1,2] or 0-2.")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last >= partitions:
            raise InputError(
                f"--tasks {quoted(text)}: there is no part {part.strip()} of {partitions}; count them from 0."
            )
        numbers.update(range(first, last + 1))
    return sorted(numbers)


@contextlib.contextmanager
def _stopped_by_schedulers() -> Iterator[None]:
    """Take SIGTERM, which a scheduler sends some seconds before it kills, as Ctrl-C: what is embedded is committed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
