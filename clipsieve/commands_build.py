"""`inference`, `index` and `info`: making a collection, and what it holds."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.errors import InputError
from clipsieve.parts import Parts, print_json, progress, stages
from clipsieve.progress import duration

DEFAULT_MODEL = "open_clip:ViT-B-32/laion2b_s34b_b79k"


def inference(
    ctx: typer.Context,
    input: options.Input,
    out: Annotated[Path, typer.Argument(help="The collection to make, or to go on with.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", help="mini (the demo model), open_clip:NAME/TAG, hf:ORG/NAME, local-dir:PATH or ViT-B/32."
        ),
    ] = DEFAULT_MODEL,
    format: options.InputFormat = "auto",
    text: options.CaptionTexts = True,
    thumbs: options.Thumbs = False,
    batch_size: options.BatchSize = 256,
    workers: options.Workers = None,
    shard_size: options.ShardSize = 100_000,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    image_key: options.ImageKey = None,
    caption_key: options.CaptionKey = "txt",
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    json: options.Json = False,
) -> None:
    """Embed the images of INPUT into the collection OUT. Stopped, it goes on where it was.

    Example: clipsieve inference photos photos.clip

    Example: clipsieve inference "tars/{000..012}.tar" big.clip --model open_clip:ViT-L-14/datacomp_xl_s13b_b90k
    """
    from clipsieve.inference.reader import open_source
    from clipsieve.inference.run import embed_collection

    parts: Parts = ctx.obj
    source = open_source(
        input,
        format=format,  # type: ignore[arg-type]  # it says itself which it knows
        wds_image_key=image_key,
        wds_caption_key=caption_key,
        image_column=image_column,
        caption_column=caption_column,
    )
    say(f"Loading {'the demo model' if model == 'mini' else model}.")  # fetching its weights may take minutes
    embedder = parts.load(model, device=device, precision=precision)
    with progress("embedding", "images") as shown:
        summary = embed_collection(
            source,
            embedder,
            out,
            text=text,
            batch_size=batch_size,
            workers=workers,
            shard_size=shard_size,
            thumbs=thumbs,
            progress=shown.update,
        )
    if json:
        print_json({**asdict(summary), "folder": str(out), "model": embedder.model.name})
        return
    typer.echo(
        f"{summary.embedded:,} images embedded into {out} in {duration(summary.seconds)}"
        + (f", after {summary.before:,} of an earlier run" if summary.before else "")
        + (f"; {summary.skipped:,} skipped, for reasons listed in {out / 'skipped'}" if summary.skipped else "")
        + "."
    )


def index(
    ctx: typer.Context,
    folder: options.Folder,
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="Index there, in a collection that shares the vectors.")
    ] = None,
    recall: Annotated[
        float, typer.Option("--recall", help="Share of the right answers that an approximate index is tuned to find.")
    ] = 0.95,
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="What a search may hold in memory: 512M, 4G.")
    ] = "4G",
    device: Annotated[
        str, typer.Option("--device", metavar="cpu|cuda", help="Where to build; cuda needs faiss-gpu.")
    ] = "cpu",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="How many; one per processor.")] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make everything anew, duplicate groups too.")] = False,
    json: options.Json = False,
) -> None:
    """Index a collection, or extend its index to what was added; find near-duplicates; measure the recall.

    Example: clipsieve index photos.clip --recall 0.98 --memory 8G
    """
    size = parse_size(memory)
    if threads is not None:
        # Read once, when numpy and faiss are imported, which nothing has done yet.
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    from clipsieve.index.build import build_indices

    if into is not None:
        from clipsieve.twin import make_twin

        make_twin(folder, into)
    began = time.monotonic()
    with stages("rows") as update:
        built = build_indices(
            folder if into is None else into,
            recall=recall,
            memory_bytes=size,
            device=device,
            rebuild=rebuild,
            progress=update,
        )
    if json:
        rows = [
            {"name": b.entry.name, "kind": b.entry.kind, "rows": b.entry.rows, "recall": b.entry.recall}
            | {"action": b.action, "why": b.why}
            for b in built
        ]
        print_json({"folder": str(folder if into is None else into), "indices": rows})
        return
    for b in built:
        found = "exact" if b.entry.recall is None else f"measured recall {b.entry.recall:.3f}"
        typer.echo(f"{b.entry.name}: {b.action}, {b.entry.kind}, {found}. {b.why}")
    typer.echo(f"Done in {duration(time.monotonic() - began)}.")


def info(ctx: typer.Context, folder: options.Folder, json: options.Json = False) -> None:
    """Say what a collection holds: images, model, indices, columns, what was skipped.

    Example: clipsieve info photos.clip
    """
    from clipsieve.commands_ask import open_folder

    with open_folder(ctx, folder) as collection:
        known = collection.info()
    if json:
        print_json(known)
        return
    for name, text in describe(known):
        typer.echo(f"{name:<12}{text}")


def describe(info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What `Collection.info` says, in words: pairs of a name and a line."""
    yield "folder", str(info["folder"]) + (", opened for reading only" if info["read_only"] else "")
    yield "images", f"{info['count']:,}; {info['removed']:,} removed since, {info['skipped']:,} skipped on the way in"
    model = {None: "not known", "mini": "mini, the demo model"}.get(info["model"], info["model"])
    yield "model", f"{model}; {info['dim']:,} dimensions" + (f"; licence {info['licence']}" if info["licence"] else "")
    for index in info["indices"]:
        if index["kind"] is None:
            text = "none; every question reads all vectors"
        else:
            found = "exact" if index["recall"] is None else f"measured recall {index['recall']:.3f}"
            text = f"{index['kind']}, {found}, {index['rows']:,} rows"
        more = (
            f"; {index['not_covered']:,} more are searched beside it" if index["kind"] and index["not_covered"] else ""
        )
        yield f"{index['name']} index", text + more
    yield "columns", ", ".join(info["columns"])
    for source in info["inputs"]:
        yield "input", source
    if info["advice"]:
        yield "advice", info["advice"]


def parse_size(text: str) -> int:
    """Bytes from "4G", "512M", "100k" or a plain number, in powers of 1024. InputError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")) if match else 0
    if size < 1:
        raise InputError(f"The size {text!r} is not understood; write for instance 512M or 4G.")
    return size
