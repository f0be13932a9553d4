"""`label`: every image gets the class of a set that fits it best, and, where the truth is known, a grade."""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.commands_ask import long_text_of, open_folder, tell, tell_skipped, upload
from clipsieve.commands_build import DEFAULT_MODEL
from clipsieve.errors import CollectionMissing, InputError, quoted
from clipsieve.output_path import refuse_address
from clipsieve.parts import Parts, print_json, progress

if TYPE_CHECKING:
    from clipsieve.index.collection import Collection
    from clipsieve.types import ClassSet, Skipped

SHOWN = 5
_FORMATS = ("parquet", "csv", "directai", "folders", "coco", "webdataset", "datasets")


def label(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A collection, or a folder of images, which is embedded first.")],
    set_: Annotated[Path, typer.Option("--set", metavar="FILE", help="The class set, in JSON.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="A .parquet or .csv file, or a folder.", callback=refuse_address),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="|".join(_FORMATS), help="By default what --out ends in, else Parquet parts."),
    ] = None,
    reject: Annotated[bool, typer.Option("--reject", help="No label for images that no class accepts.")] = False,
    eval_: Annotated[bool, typer.Option("--eval", help="Grade the labels; --out is not needed then.")] = False,
    truth: Annotated[
        str | None,
        typer.Option("--truth", metavar="folder|COLUMN", help="What an image is: its folder's name, or a column."),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(
            "--confusion", metavar="FILE", help="The PNG of --eval; beside --out by default.", callback=refuse_address
        ),
    ] = None,
    only: Annotated[
        Path | None, typer.Option("--only", metavar="FILE", help="Only the images named in FILE, one key per line.")
    ] = None,
    long_text: options.LongTextName = "cut",
    model: Annotated[
        str | None, typer.Option("--model", help="What embeds a folder of images, or texts for a peer's collection.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="For a folder of images: how many at once.")] = 256,
    device: options.Device = "auto",
    state: options.State = None,
    images: options.Images = None,
    raw_csv: options.RawCsv = False,
    json: options.Json = False,
) -> None:
    """Give every image the class of a set that fits it best.

    Example: clipsieve label photos.clip --set vehicles.json --out labels.parquet

    Example: clipsieve label photos --set vehicles.json --eval --truth folder --out labels.csv
    """
    kind = _format(format, out)
    options.require_csv(raw_csv, kind in ("csv", "directai"))
    if out is None and not eval_:
        raise InputError("Where to is not said; give --out FILE, or --eval to grade alone.")
    if only is not None and kind == "parts" and out is not None:
        raise InputError(f"--only makes no folder of parts; end --out {out} in .parquet or .csv.")
    if out is not None and out.exists() and (out.is_file() or kind != "parts"):
        raise InputError(f"{out} exists already; name another, or remove it first.")
    from clipsieve.grading import grade
    from clipsieve.labelling import count_labels, label_parts, write_labels
    from clipsieve.labels import read_only
    from clipsieve.question import read_asked

    asked = read_asked(set_)
    classes = asked.classes
    names = tuple(c.name for c in classes.classes)
    wanted = None if only is None else read_only(only)
    with contextlib.ExitStack() as stack:
        collection = _open(ctx, folder, wanted, model, batch_size, device, state, long_text, images, stack)
        upload(collection, asked)
        notes = collection.notes(classes) + unbounded(collection, classes, reject)
        tell(notes)
        parts = _parts_folder(out, kind, stack)
        with progress("labelling", "images") as shown:
            shown.update(0, collection.count)
            counts = label_parts(collection, classes, parts, reject, shown.update)
        # Graded before the parts go: an error leaves them, and the same command goes on from there.
        graded = grade(parts, collection.items, names, truth or "folder", wanted) if eval_ else None
        if wanted is not None:
            counts = count_labels(collection, parts, counts, wanted)
        skipped: tuple[Skipped, ...] = ()
        if out is not None and kind != "parts":
            known = truth or ("folder" if eval_ else None)
            skipped = write_labels(collection, parts, out, kind, names, known, wanted, raw_csv=raw_csv)
            shutil.rmtree(parts)
    picture = confusion or (None if out is None else out.with_name(f"{out.stem}.confusion.png"))
    if graded is not None and picture is not None:
        picture.write_bytes(graded.to_png())
    if json:
        answer: dict[str, Any] = {
            "out": None if out is None else str(out),
            "none": counts.pop(None, 0),
            "notes": list(notes),
        }
        left_out = {"skipped": [{"key": one.key, "reason": one.reason} for one in skipped]} if skipped else {}
        print_json(answer | {"counts": counts} | left_out | ({} if graded is None else graded.to_json()))
        if skipped:
            raise typer.Exit(1)
        return
    for name, count in counts.items():
        typer.echo(f"{count:>9,}  {'(none of them)' if name is None else name}")
    if out is not None:
        typer.echo(f"Labels written to {out}.")
    if graded is not None:
        typer.echo("\n" + graded.to_text())
        if picture is not None:
            typer.echo(f"\nThe confusion matrix is drawn in {picture}.")
    if skipped:
        tell_skipped(skipped)
        raise typer.Exit(1)


def unbounded(collection: "Collection", classes: "ClassSet", reject: bool) -> tuple[str, ...]:
    """A note where images get a label although they may be like none of the classes: what to do, what it changes."""
    lacking = [c.name for c in classes.classes if c.threshold is None]
    if not lacking or not collection.count:
        return ()
    found = collection.propose(classes)
    about = "" if found.exact else "about "
    lines = zip(classes.classes, found.thresholds, strict=True)
    proposed = [f"{quoted(c.name)} {line:g}" for c, line in lines if c.threshold is None]
    more = f" and {len(proposed) - SHOWN:,} more" if proposed[SHOWN:] else ""
    if reject:
        first = (
            f"{len(lacking):,} of {len(classes.classes):,} classes have no threshold: they accept what is nearer to a "
            "positive example than to a negative one, even where it looks like neither."
        )
    else:
        first = (
            f"Every image gets a label, {found.count:,} in all, also those that look like none of the classes: "
            "thresholds hold with --reject alone."
        )
    named = ", ".join(proposed[:SHOWN]) + more
    how = "them" if reject else "them and --reject"
    return (
        f"{first} From the shape of the scores these thresholds would be first lines: {named}; with {how} {about}"
        f"{found.within:,} of {found.count:,} images get a label.",
    )


def _format(given: str | None, out: Path | None) -> str:
    """How to write: the format asked for, else what the suffix means; "parts" is a folder of Parquet parts."""
    if given is not None and given not in _FORMATS:
        raise InputError(f"The format {quoted(given)} is not known; choose one of {', '.join(_FORMATS)}.")
    suffix = "" if out is None else out.suffix.lower()
    if given is None and suffix not in ("", ".parquet", ".csv", ".json"):
        raise InputError(f"{out} does not say what it is to be; end it in .parquet or .csv, or give --format.")
    if given is None:
        return {"": "parts", ".json": "coco"}.get(suffix, suffix[1:])
    return "parts" if given == "parquet" and not suffix else given


def _open(
    ctx: typer.Context,
    folder: Path,
    wanted: frozenset[str] | None,
    model: str | None,
    batch_size: int,
    device: str,
    state: Path | None,
    long_text: str,
    images: list[Path] | None,
    stack: contextlib.ExitStack,
) -> "Collection":
    """The collection, or one made for the occasion of a folder of images."""
    try:
        return stack.enter_context(open_folder(ctx, folder, model, device, state, long_text, images))
    except CollectionMissing:
        if not folder.is_dir():
            raise
    from clipsieve.inference.reader import open_source
    from clipsieve.inference.run import embed_collection

    parts: Parts = ctx.obj
    source = open_source(folder)
    if wanted is not None:  # keys stay relative to the folder, by which --only names them
        source = open_source(folder, format="files").only(_files(folder, wanted))
    embedder = parts.load(model or DEFAULT_MODEL, device=device)
    say("Note: This is a folder of images; it is embedded for this once (`clipsieve inference` keeps the vectors).")
    made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clipsieve-")))
    with progress("embedding", "images") as shown:
        summary = embed_collection(
            source,
            embedder,
            made,
            text=False,
            batch_size=batch_size,
            progress=shown.update,
            image_memory=parts.image_memory,
        )
    if summary.skipped:
        say(f"Note: {summary.skipped:,} of {summary.read:,} images could not be read and are left out.")
    from clipsieve.opening import open_collection

    return stack.enter_context(open_collection(made, embedder=embedder, long_text=long_text_of(long_text)))


def _files(folder: Path, wanted: frozenset[str]) -> frozenset[str]:
    """Paths of the folder's files that are named, as text; so that no other one is embedded."""
    from clipsieve.inference.decode import image_extensions
    from clipsieve.labels import short_path
    from clipsieve.path_text import to_text

    known = image_extensions()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in known)
    named = [f for f in files if {to_text(f.relative_to(folder)), short_path(to_text(f))} & wanted]
    if not named:
        raise InputError(f"None of the images named in --only is in {folder}; check the names.")
    return frozenset(to_text(file.absolute()) for file in named)


def _parts_folder(out: Path | None, kind: str, stack: contextlib.ExitStack) -> Path:
    """Where the labels are made: beside what was asked for, so that a killed run goes on."""
    if out is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clipsieve-"))) / "labels"
    if kind == "parts":
        return out
    parts = out.with_name(f"{out.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)  # a folder that is there may have a suffix
    return parts
