"""`import` and `export`: collections made of other programs' vectors, and written for other programs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clipsieve import options
from clipsieve.errors import InputError, quoted
from clipsieve.output_path import refuse_address
from clipsieve.parts import Parts, print_json, progress

KINDS = ("auto", "clip-retrieval", "npy", "datasets", "lance", "webdataset")


def import_(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(help="The file or folder that holds the vectors.")],
    out: options.Out,
    kind: Annotated[str, typer.Option("--kind", metavar="|".join(KINDS), help="What SOURCE is.")] = "auto",
    model: Annotated[
        str | None, typer.Option("--model", help="What made the vectors; else each question says it.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE", help="Of .npy: a .parquet, .csv, .jsonl or .arrow."),
    ] = None,
    vector_column: Annotated[
        str | None, typer.Option("--vector-column", metavar="NAME", help="Where a table, or a tar, has the vectors.")
    ] = None,
    key_column: Annotated[
        str | None, typer.Option("--key-column", metavar="NAME", help="What an item is called.")
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option("--caption-column", metavar="NAME", help="Where the captions are.")
    ] = None,
    shard_size: Annotated[int, typer.Option("--shard-size", help="Most rows in one shard.")] = 100_000,
    decode: Annotated[
        str | None,
        typer.Option(
            "--decode",
            metavar="own|reference",
            help="How images of questions are decoded; clip-retrieval: reference.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Make the collection OUT of vectors that exist. Stopped, it goes on where it was.

    Example: clipsieve import vectors.npy photos.clip --table photos.csv --model ViT-B/32
    """
    from clipsieve import vector_sources
    from clipsieve.importing import VectorSource, import_vectors

    if kind not in KINDS:
        raise InputError(f"The kind {quoted(kind)} is not known; choose one of {', '.join(KINDS)}.")
    if not source.exists():
        raise InputError(f"{source} does not exist; check the path.")
    chosen = vector_sources.guess_kind(source) if kind == "auto" else kind
    if table is not None and chosen != "npy":
        raise InputError(f"--table {table} goes with .npy files; {source} is {chosen}, which has its own.")
    opened: VectorSource
    if chosen == "clip-retrieval":
        from clipsieve.index.peer_source import PeerSource

        opened = PeerSource(source)
    elif chosen == "npy":
        opened = vector_sources.NpySource(source, table)
    elif chosen == "webdataset":
        opened = vector_sources.TarSource(source, vector_column)
    else:
        opened = vector_sources.TableSource(source, vector_column, lance=chosen == "lance")
    decoding = options.decoding_of(decode, out, "reference" if chosen == "clip-retrieval" else "own")
    parts: Parts = ctx.obj
    embedder = None if model is None else parts.load(model)
    with progress("importing", "vectors") as shown:
        done = import_vectors(
            opened,
            out,
            model=None if embedder is None else embedder.model,
            dim=None if embedder is None else embedder.dim,
            key_column=key_column,
            caption_column=caption_column,
            shard_size=shard_size,
            decoding=decoding,
            progress=shown.update,
        )
    if json:
        print_json({**asdict(done), "folder": str(out), "kind": chosen})
        return
    typer.echo(
        f"{done.written:,} vectors imported into {out}"
        + (f", after {done.before:,} of an earlier run" if done.before else "")
        + (f"; {done.skipped:,} skipped, for reasons listed in {out / 'skipped'}" if done.skipped else "")
        + "."
    )


def export(
    folder: options.Folder,
    clip_retrieval: Annotated[
        Path | None,
        typer.Option(
            "--clip-retrieval", metavar="DIR", help="A folder that clip-retrieval opens.", callback=refuse_address
        ),
    ] = None,
    arrow: Annotated[
        Path | None,
        typer.Option("--arrow", metavar="DIR", help="The metadata alone, as Arrow files.", callback=refuse_address),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a collection, without what was removed from it, for other programs.

    Example: clipsieve export photos.clip --clip-retrieval photos.index
    """
    if (out := clip_retrieval or arrow) is None or (clip_retrieval and arrow):
        raise InputError("Give one of --clip-retrieval DIR and --arrow DIR: where to write, and what.")
    from clipsieve.durable import naming
    from clipsieve.index.peer_export import export_arrow, export_peer

    with progress("exporting", "rows") as shown, naming(out):
        rows = (export_arrow if arrow else export_peer)(folder, out, shown.update)
    if json:
        print_json({"out": str(out), "rows": rows})
    else:
        typer.echo(f"{rows:,} rows written to {out}.")
