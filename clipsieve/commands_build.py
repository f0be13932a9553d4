"""`inference`, `index` and `info`: making a collection, and what it holds."""

import functools
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsieve import options
from clipsieve.commands_regions import find_with, load_for
from clipsieve.errors import InputError, quoted
from clipsieve.output_path import refuse_address
from clipsieve.parts import Parts, print_json, progress, stages
from clipsieve.progress import duration
from clipsieve.recall_lines import recall_lines

if TYPE_CHECKING:
    from clipsieve.inference.fetch import FetchOptions
    from clipsieve.inference.reader import Source

DEFAULT_MODEL = "open_clip:ViT-B-32/laion2b_s34b_b79k"


def inference(
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
    image_memory: options.ImageMemory = None,
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
    """Embed the images of INPUT into the collection OUT. Stopped, it goes on where it was.

    Example: clipsieve inference photos photos.clip

    Example: clipsieve inference "tars/{000..012}.tar" big.clip --model open_clip:ViT-L-14/datacomp_xl_s13b_b90k

    Example: clipsieve inference urls.parquet web.clip --thumbs

    Example: clipsieve inference photos photos.clip --regions hf:google/owlv2-base-patch16-ensemble
    """
    from clipsieve.inference.reader import open_source
    from clipsieve.lock import require_free

    source = open_source(
        input,
        format=format,  # type: ignore[arg-type]  # it says itself which it knows
        wds_image_key=image_key,
        wds_caption_key=caption_key,
        image_column=image_column,
        caption_column=caption_column,
        url_column=url_column,
        fetching=fetch_options(allow_private_addresses, timeout, retries, max_bytes, connections),
    )
    require_free(out)
    ctx.obj.image_memory.set(size_of_memory(image_memory), None)
    embedder = load_for(ctx.obj, out, model, device, precision, decode)
    done = embed(
        source,
        embedder,
        out,
        text=text,
        batch_size=batch_size,
        workers=workers,
        shard_size=shard_size,
        thumbs=thumbs,
        image_memory=ctx.obj.image_memory,
        finder=find_with(ctx.obj, out, embedder, regions, region_count, crops, device, precision),
    )
    if json:
        print_json(done)
    else:
        typer.echo(tell_embedded(done))


def embed(source: "Source", embedder: Any, out: Path, **how: Any) -> dict[str, Any]:
    """Embed with progress; what was done, as --json says it. `how` is of `run.embed_collection`."""
    from clipsieve.inference.run import embed_collection

    with progress("embedding", "images") as shown:
        summary = embed_collection(source, embedder, out, progress=shown.update, **how)
    return as_json(asdict(summary)) | {"folder": str(out), "model": embedder.model.name}


def as_json(done: dict[str, Any]) -> dict[str, Any]:
    """A summary with its reasons as JSON has them."""
    return {**done, "reasons": [{"reason": reason, "count": count} for reason, count in done["reasons"]]}


def tell_embedded(done: Mapping[str, Any]) -> str:
    """What `embed` did: a sentence, and a line for each of the commonest reasons and for what was passed over."""
    before = f", after {done['before']:,} of an earlier run" if done["before"] else ""
    recovered = f", {done['recovered']:,} of them skipped by earlier runs" if done["recovered"] else ""
    told = f"{done['embedded']:,} images embedded into {done['folder']} in {duration(done['seconds'])}"
    return "\n".join([f"{told}{recovered}{before}{tell_skipped(done)}.", *tell_reasons(done), *tell_captions(done)])


def tell_captions(done: Mapping[str, Any]) -> Iterator[str]:
    """What became of captions that could not be taken as they are, and which columns were left out."""
    if long := done["captions_cut"]:
        yield f"  {long:,} captions are longer than the model reads; their ends are left out."
    if no_text := done["captions_no_text"]:
        yield f"  {no_text:,} captions are no text and stay in the metadata; caption_error says what they are."
    if done["left_out"]:
        yield f"  Columns left out, for they hold bytes: {', '.join(done['left_out'])}."


def tell_skipped(done: Mapping[str, Any]) -> str:
    """How many were skipped, and where they are listed; "" if none was."""
    if not done["skipped"]:
        return ""
    from clipsieve.inference.discover import count_of

    kinds = f" ({count_of(done['not_read'])})" if done["not_read"] else ""
    return f"; {done['skipped']:,} skipped{kinds}, for reasons that `clipsieve info {done['folder']} --skipped` lists"


def tell_reasons(done: Mapping[str, Any]) -> Iterator[str]:
    """The commonest reasons why inputs were skipped, and what was passed over."""
    for found in done["reasons"]:
        yield f"  {found['count']:,} skipped: {found['reason']}"
    if done["ignored"]:
        from clipsieve.inference.discover import count_of

        yield f"  Passed over: {count_of(done['ignored'])}."


def index(
    ctx: typer.Context,
    folder: options.Folder,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            metavar="DIR",
            help="Index there, in a collection that shares the vectors.",
            callback=refuse_address,
        ),
    ] = None,
    recall: options.Recall = 0.95,
    memory: options.Memory = "4G",
    latency: options.Latency = None,
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
    size, most_ms = parse_size(memory), parse_latency(latency)
    if threads is not None:
        # Read once, when numpy and faiss are imported, which nothing has done yet.
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    if into is not None:
        from clipsieve.twin import make_twin

        make_twin(folder, into)
    began = time.monotonic()
    out = folder if into is None else into
    how = {"recall": recall, "memory_bytes": size, "latency_ms": most_ms, "device": device, "rebuild": rebuild}
    done = build(out, texts=texts_by_model(ctx.obj, out), **how)
    if json:
        print_json(done)
        return
    for line in tell_built(done):
        typer.echo(line)
    typer.echo(f"Done in {duration(time.monotonic() - began)}.")


def texts_by_model(parts: Parts, folder: Path) -> Callable[[Sequence[str]], Any]:
    """Embeds texts by the model of a collection, which is loaded the first time; see `build.build_indices`.

    Calling it raises InputError where the model has no text tower, or is not known, and what loading raises.
    """

    @functools.cache
    def embedder() -> Any:
        from clipsieve.protocols import TextEmbedder
        from clipsieve.shards import open_manifest

        model = open_manifest(folder).model
        if model is None:
            raise InputError(f"{folder} does not say which model embeds texts")
        loaded = (parts.load_texts or parts.load)(model.name)
        if not isinstance(loaded, TextEmbedder):
            raise InputError(f"the model {quoted(model.name)} embeds no texts")
        model.require(loaded.model, "The texts to measure with")
        return loaded

    return lambda texts: embedder().embed_texts(texts)


def build(folder: Path, **how: Any) -> dict[str, Any]:
    """Index with progress; what was done, as --json says it. `how` is of `build.build_indices`."""
    from clipsieve.index.build import build_indices

    with stages("rows") as update:
        built = build_indices(folder, progress=update, **how)
    rows = [
        {"name": b.entry.name, "kind": b.entry.kind, "rows": b.entry.rows, "recall": b.entry.recall}
        | {"action": b.action, "why": b.why, "lacks": b.lacks, "kinds": b.entry.parameters.get("kinds", [])}
        for b in built
    ]
    return {"folder": str(folder), "indices": rows}


def tell_built(done: Mapping[str, Any]) -> Iterator[str]:
    """What `build` did, a line for each index."""
    for index in done["indices"]:
        if not index["kinds"]:
            found = "exact" if index["recall"] is None else f"measured recall {index['recall']:.3f}"
            yield f"{index['name']}: {index['action']}, {index['kind']}, {found}. {index['why']}"
            continue
        yield f"{index['name']}: {index['action']}, {index['kind']}. {index['why']}"
        yield from ("  " + line for line in recall_lines(index["kinds"]))
        if index["lacks"]:
            yield f"  Questions by text have no figure, and their answers are partial: {index['lacks'].rstrip('.')}."


def info(
    ctx: typer.Context,
    folder: options.Folder,
    skipped: Annotated[
        bool, typer.Option("--skipped", help="List what was skipped on the way in instead, and why.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Say what a collection holds and takes, what its questions pay for lack of an index, and what is worth doing.

    Example: clipsieve info photos.clip

    Example: clipsieve info photos.clip --skipped
    """
    from clipsieve.commands_ask import open_folder

    if skipped:
        _list_skipped(folder, json)
        return
    with open_folder(ctx, folder) as collection:
        known = collection.info(timed=True)
    if json:
        print_json(known)
        return
    for name, text in describe(known):
        typer.echo(f"{name:<12}{text}")


def _list_skipped(folder: Path, json: bool) -> None:
    """Everything that was skipped and has not come in since, after the reasons and how often each was met."""
    from clipsieve.shards import open_manifest
    from clipsieve.skips import commonest, current_skips

    found = [skip for some in current_skips(folder, open_manifest(folder)).values() for skip in some]
    reasons = commonest(Counter(skip.reason for skip in found), len(found))
    if json:
        items = [{"key": skip.key, "reason": skip.reason} for skip in found]
        told = [{"reason": reason, "count": count} for reason, count in reasons]
        print_json({"folder": str(folder), "skipped": len(found), "reasons": told, "items": items})
        return
    typer.echo(f"{len(found):,} skipped.")
    for reason, count in reasons:
        typer.echo(f"{count:,} x {reason}")
    for skip in found:
        typer.echo(f"{skip.key}: {skip.reason}")


def describe(info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What `Collection.info` says when timed, in words: pairs of a name and a line."""
    from clipsieve.index.where import written

    yield "folder", str(info["folder"]) + (", opened for reading only" if info["read_only"] else "")
    removed = f"{info['removed']:,} removed since" + (
        f" ({info['restorable']:,} can be restored until compact)" if info["restorable"] else ""
    )
    yield "images", f"{info['count']:,}; {removed}, {info['skipped']:,} skipped on the way in"
    model = {None: "not known", "mini": "mini, the demo model"}.get(info["model"], info["model"])
    yield "model", f"{model}; {info['dim']:,} dimensions" + (f"; licence {info['licence']}" if info["licence"] else "")
    kinds = ", ".join(f"{kind} {size(count)}" for kind, count in info["bytes"].items() if count)
    yield "on disk", f"{size(sum(info['bytes'].values()))}: {kinds}" if kinds else "nothing yet"
    for index in info["indices"]:
        yield f"{index['name']} index", _index_line(index)
        yield from (("  recall", line) for line in recall_lines(index["kinds"]))
    if info["regions"] is not None:
        yield "regions", _regions_line(info["regions"])
    types = info["types"]
    names = zip(info["columns"], written(info["columns"]), strict=True)
    yield "columns", ", ".join(f"{name} ({types[column]})" for column, name in names)
    for source in info["inputs"]:
        yield "input", source
    for sentence in info["advice"]:
        yield "advice", sentence


def _index_line(index: Mapping[str, Any]) -> str:
    scan = f"about {index['scan_ms']:.1f} ms"
    if index["kind"] is None:
        return f"none; every question reads all vectors, {scan}"
    text = f"{index['kind']}, {'exact, ' if index['recall'] is None else ''}{index['rows']:,} rows"
    new = index["not_covered"]
    if index["kind"] == "flat":
        return f"{text}{f' and {new:,} new ones' if new else ''}; every question reads all of them, {scan}"
    if index["search_ms"] is not None:
        text += f", searched in {index['search_ms']:.1f} ms"
    return f"{text}; {new:,} more are read beside it, {scan} a question" if new else text


def _regions_line(regions: Mapping[str, Any]) -> str:
    detector = "mini, the demo detector" if regions["detector"] == "mini" else regions["detector"]
    kinds = [f"{i['name']} index {i['kind'] or 'none'}" for i in regions["indices"]]
    text = f"{regions['count']:,}, at most {regions['most']} an image, found by {detector}; {', '.join(kinds)}"
    if regions["lacking"]:
        text += f"; {regions['lacking']:,} images were not looked through"
    return text + (f"; {regions['unseen']:,} could not be" if regions["unseen"] else "")


def size(count: int) -> str:
    """Bytes in words: "812 B", "1.5 MiB"."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:,.1f} {unit}"
    return f"{count} B"


def fetch_options(
    allow_private_addresses: bool, timeout: float, retries: int, max_bytes: str, connections: int
) -> "FetchOptions":
    """The limits of the command line, as the reader wants them."""
    from clipsieve.inference.fetch import FetchOptions

    return FetchOptions(
        connections=connections,
        timeout=timeout,
        retries=retries,
        max_bytes=parse_size(max_bytes),
        allow_private=allow_private_addresses,
    )


def size_of_memory(given: str | None) -> int | None:
    """Bytes of --image-memory; None where it is not given."""
    return None if given is None else parse_size(given)


def parse_size(text: str) -> int:
    """Bytes from "4G", "512M", "100k" or a plain number, in powers of 1024. InputError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")) if match else 0
    if size < 1:
        raise InputError(f"The size {quoted(text)} is not understood; write for instance 512M or 4G.")
    return size


def parse_latency(text: str | None) -> float | None:
    """Milliseconds from "100ms", "0.5s" or a plain number, which is milliseconds. InputError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s)?", text.strip(), re.IGNORECASE)
    found = float(match[1]) * (1000 if (match[2] or "").lower() == "s" else 1) if match else 0.0
    if not found:
        raise InputError(f"The latency {quoted(text)} is not understood; write for instance 100ms or 1s.")
    return found
