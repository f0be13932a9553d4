"""`search` and `filter`: one question, its best images or all of them."""

import itertools
import json as json_
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.commands_boxes import note_lacking
from clipsieve.errors import InputError, quoted
from clipsieve.output_path import refuse_address
from clipsieve.parts import Parts, print_json, progress

if TYPE_CHECKING:
    from clipsieve.index.collection import Collection
    from clipsieve.index.first_line import Proposal
    from clipsieve.index.rule import Veto
    from clipsieve.output import Known
    from clipsieve.question import Asked
    from clipsieve.reading import LongText
    from clipsieve.types import Hit, QueryResult, Skipped

SHOWN = 5

ONLY_NOT = (
    "Without --threshold, --not alone decides: an image is written if it is nearer to what was asked for than to what "
    "it must not be, even where it looks like neither."
)


def search(
    ctx: typer.Context,
    folder: options.Folder,
    text: options.Text = None,
    not_: options.Not = None,
    image: options.Image = None,
    not_image: options.NotImage = None,
    set_: options.SetFile = None,
    class_: options.ClassName = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many images.")] = 20,
    threshold: options.Threshold = None,
    veto: options.VetoName = "soft",
    calibration: options.CalibrationName = None,
    where: options.Where = None,
    dedup: options.Dedup = False,
    modality: options.Modality = "image",
    regions: Annotated[bool, typer.Option("--regions", help="Find boxes instead of whole images.")] = False,
    every_box: Annotated[
        bool, typer.Option("--every-box", help="With --regions: all boxes of an image, not its best one alone.")
    ] = False,
    budget_ms: Annotated[
        float | None, typer.Option("--budget-ms", help="Stop after so many milliseconds, and say so.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="table|jsonl|csv|parquet|html", help="By default what --out ends in, or a table."
        ),
    ] = None,
    long_text: options.LongTextName = "cut",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write there instead of printing.", callback=refuse_address),
    ] = None,
    model: options.QuestionModel = None,
    device: options.Device = "auto",
    state: options.State = None,
    images: options.Images = None,
    raw_csv: options.RawCsv = False,
    json: options.Json = False,
) -> None:
    """Show the best images for a question, and why each is there.

    Example: clipsieve search photos.clip "red bus" --not "red truck"

    Example: clipsieve search photos.clip --image bus.jpg --not-image truck.jpg --where "width > 800" --out sheet.html

    Example: clipsieve search photos.clip --regions "red circle" --where "count('red circle') >= 3"
    """
    from clipsieve.index.counting import counts
    from clipsieve.output import choose_format

    chosen = choose_format(format, out)
    options.require_csv(raw_csv, chosen == "csv")
    if every_box and not regions:
        raise InputError("--every-box is about boxes; give --regions with it.")
    if regions and (calibration or dedup or modality != "image" or budget_ms is not None):
        raise InputError(
            "--regions finds boxes on the detector's own scale; leave out --calibration, --dedup, --modality and "
            "--budget-ms."
        )
    # On the detector's scale texts and images meet.
    asked = _asked(text, not_, image, not_image, set_, class_, threshold, "background" if regions else calibration)
    chosen_veto = _veto(veto)
    with open_folder(ctx, folder, model, device, state, long_text, images) as collection:
        if regions or counts(where or ""):
            note_lacking(collection)
        if regions:
            for data in asked.uploads.values():
                collection.keep_example_image(data)
            result = collection.search_regions(asked.classes, k=k, where=where, every_box=every_box)
        else:
            upload(collection, asked)
            result = collection.search(
                asked.classes,
                k,
                where=where,
                dedup=dedup,
                modality=cast(Any, _modality(modality)),
                budget_ms=budget_ms,
                veto=chosen_veto,
            )
        tell(result.notes)
        if json and out is None:
            from clipsieve.output import to_json

            print_json(to_json(result, asked.names, _known(collection, result)))
            return
        _deliver(collection, asked, result, chosen, out, regions, raw_csv)
    if json:
        print_json(
            {
                "out": str(out),
                "hits": len(result.hits),
                "claim": result.claim,
                "recall": result.recall,
                "notes": list(result.notes),
            }
        )
    elif out is not None:
        typer.echo(f"{len(result.hits):,} hits written to {out}.")


def filter_(
    ctx: typer.Context,
    folder: options.Folder,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the images go.", callback=refuse_address)],
    text: options.Text = None,
    as_: Annotated[
        str,
        typer.Option(
            "--as", metavar="copy|link|list|webdataset|datasets", help="As files, links, a list, tars, Parquet."
        ),
    ] = "copy",
    not_: options.Not = None,
    image: options.Image = None,
    not_image: options.NotImage = None,
    set_: options.SetFile = None,
    class_: options.ClassName = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Only the best so many.")] = None,
    threshold: options.Threshold = None,
    calibration: options.CalibrationName = None,
    where: options.Where = None,
    dedup: options.Dedup = False,
    modality: options.Modality = "image",
    long_text: options.LongTextName = "cut",
    model: options.QuestionModel = None,
    device: options.Device = "auto",
    state: options.State = None,
    images: options.Images = None,
    raw_csv: options.RawCsv = False,
    json: options.Json = False,
) -> None:
    """Export every image that matches a question: as copies, links, a list, webdataset tars or Parquet.

    An image matches if it looks more like a positive example than like any negative one and scores --threshold or more.

    Example: clipsieve filter photos.clip "red bus" --not "red truck" --threshold 0.24 --out buses
    """
    options.require_csv(raw_csv, as_ == "list" and out.suffix.lower() in ("", ".csv"))
    asked = _asked(text, not_, image, not_image, set_, class_, threshold, calibration)
    from clipsieve.durable import naming
    from clipsieve.index.counting import counts
    from clipsieve.index.export import export
    from clipsieve.index.records import hit_records

    counting = counts(where or "")
    with open_folder(ctx, folder, model, device, state, long_text, images) as collection:
        upload(collection, asked)
        notes = collection.notes(asked.classes, where=where, modality=cast(Any, _modality(modality)))
        if k is None and asked.question.threshold is None and not counting:
            found = collection.propose(asked.classes, where=where, modality=cast(Any, _modality(modality)))
            if not asked.question.negative:
                raise InputError(
                    "Every image would match: there is no --threshold, --not or -k, and --where counts nothing; give "
                    f"one. {_proposed(found)}"
                )
            notes += (f"{ONLY_NOT} {_about(found, found.without)} would be written. {_proposed(found)}",)
        tell(notes)
        if counting:
            note_lacking(collection)
        wanted: dict[str, Any] = {"where": where, "dedup": dedup, "modality": _modality(modality)}
        hits: Iterator[Hit] = (
            collection.filter(asked.classes, **wanted)
            if k is None
            else iter(collection.search(asked.classes, k, veto="hard", **wanted).hits)
        )
        with progress("writing", "images") as shown, naming(out):
            records = hit_records(_counted(hits, shown.update))
            exported = export(records, out, cast(Any, as_), collection, note=_note(asked), raw_csv=raw_csv)
    if json:
        skipped = [{"key": s.key, "reason": s.reason} for s in exported.skipped]
        print_json({"written": exported.written, "path": str(exported.path), "skipped": skipped, "notes": list(notes)})
    else:
        typer.echo(f"{exported.written:,} images written to {exported.path}.")
    if exported.skipped:
        if not json:
            tell_skipped(exported.skipped)
        raise typer.Exit(1)


def tell_skipped(skipped: "Sequence[Skipped]") -> None:
    """Say on stderr how many images could not be written, and why the first few."""
    for one in skipped[:SHOWN]:
        say(f"Not written: {one.key}: {one.reason}")
    more = " (--json names all)" if skipped[SHOWN:] else ""
    say(f"Error: {len(skipped):,} images could not be written{more}.")


def open_folder(
    ctx: typer.Context,
    folder: Path,
    model: str | None = None,
    device: str = "auto",
    state: Path | None = None,
    long_text: str = "cut",
    images: list[Path] | None = None,
) -> "Collection":
    """The collection, to be asked with the model that made it."""
    from clipsieve.opening import open_collection

    parts: Parts = ctx.obj

    def load_detector(name: str, *, device: str) -> Any:
        say(f"Loading the detector {name}.")
        return parts.load_detector(name, device=device, regions=None)

    how: dict[str, Any] = {"load": parts.load, "load_detector": load_detector, "long_text": long_text_of(long_text)}
    how |= {"image_memory": parts.image_memory, "images": images or ()}
    with progress("reading metadata", "rows") as shown:
        return open_collection(folder, model=model, device=device, state=state, progress=shown.update, **how)


def _asked(
    text: list[str] | None,
    not_: list[str] | None,
    image: list[Path] | None,
    not_image: list[Path] | None,
    set_: Path | None,
    class_: str | None,
    threshold: float | None,
    calibration: str | None,
) -> "Asked":
    from clipsieve.question import ask, ask_set

    if calibration not in (None, "none", "background"):
        raise InputError(f"The calibration {quoted(calibration)} is not known; choose none or background.")
    scale = cast(Any, calibration)
    if set_ is None:
        if class_ is not None:
            raise InputError(f"--class {class_} is of no set; give --set FILE with it.")
        asked = ask(text or (), not_ or (), image or (), not_image or (), threshold=threshold, calibration=scale)
    elif text or not_ or image or not_image:
        raise InputError("A question is either --set FILE or texts and images; give one of the two.")
    else:
        asked = ask_set(set_, class_, threshold=threshold, calibration=scale)
    tell(asked.notes)
    return asked


def long_text_of(name: str) -> "LongText":
    """The value of --long-text. InputError for another."""
    from clipsieve.reading import LongText

    if name not in get_args(LongText):
        raise InputError(f"--long-text {name} is not known; choose one of {', '.join(get_args(LongText))}.")
    return cast("LongText", name)


def tell(notes: Iterable[str]) -> None:
    """Notes on stderr, a line each."""
    for note in notes:
        say(f"Note: {note}")


def upload(collection: "Collection", asked: "Asked") -> None:
    """Embed the image files of a question. InputError names one that is no image."""
    for digest, data in asked.uploads.items():
        try:
            collection.add_example_image(data)
        except InputError as error:
            raise InputError(f"{asked.names.get(digest, 'The image')} cannot be an example: {error}") from error


def _modality(name: str) -> str:
    if name not in ("image", "text"):
        raise InputError(f"The modality {quoted(name)} is not known; choose image or text.")
    return name


def _about(found: "Proposal", number: int) -> str:
    return f"{'' if found.exact else 'About '}{number:,} of {found.count:,} images"


def _proposed(found: "Proposal") -> str:
    """What the first line would write, in a sentence."""
    within = _about(found, found.within).lower()
    return f"From the shape of the scores --threshold {found.thresholds[0]:g} is a first line: it writes {within}."


def _veto(name: str) -> "Veto":
    if name not in ("soft", "hard"):
        raise InputError(f"The veto {quoted(name)} is not known; choose soft or hard.")
    return cast("Veto", name)


def _counted(hits: Iterator["Hit"], update: Any) -> Iterator["Hit"]:
    for done, hit in zip(itertools.count(1), hits, strict=False):
        yield hit
        update(done)


def _note(asked: "Asked") -> str:
    """What was asked, for those who find the export later."""
    from clipsieve.classset import to_json

    return json_.dumps(to_json(asked.classes), ensure_ascii=False)


def _deliver(
    collection: "Collection",
    asked: "Asked",
    result: "QueryResult",
    format: str,
    out: Path | None,
    regions: bool,
    raw_csv: bool,
) -> None:
    """Print the answer, or write it to the file."""
    from clipsieve import output
    from clipsieve.durable import naming

    if format == "parquet":
        assert out is not None
        with naming(out):
            output.write_parquet(out, result, asked.names, _known(collection, result))
        return
    if format == "table" and out is None:
        from rich.console import Console

        # Not cut off where nobody looks: a pipe has no width.
        output.print_table(Console(width=None if sys.stdout.isatty() else 160), result, asked.names)
        return
    match format:
        case "jsonl":
            text = output.to_jsonl(result, asked.names, _known(collection, result))
        case "csv":
            text = output.to_csv(result, asked.names, _known(collection, result), raw=raw_csv)
        case "html":
            text = _sheet(collection, asked, result, regions)
        case _:
            text = output.to_text(result, asked.names)
    if out is None:
        typer.echo(text, nl=False)
    else:
        with naming(out):
            out.write_text(text, encoding="utf-8")


def _known(collection: "Collection", result: "QueryResult") -> "Known":
    """The metadata of the hits, where the collection knows URLs."""
    return collection.items([hit.id for hit in result.hits]) if "url" in collection.columns else ()


def _sheet(collection: "Collection", asked: "Asked", result: "QueryResult", regions: bool) -> str:
    from clipsieve.contact_sheet import contact_sheet
    from clipsieve.pictures import sheet_answer

    answer = sheet_answer(collection, asked, result)
    lacking = [hit for hit in result.hits if hit.id not in answer.pictures]
    if lacking:
        say(
            f"Note: {len(lacking):,} of {len(result.hits):,} hits have no picture, since their images cannot be read; "
            f"the first is {lacking[0].key}. `clipsieve add {collection.folder} FOLDER` follows files that moved."
        )
    return contact_sheet(
        collection.folder.name,
        [answer],
        about(collection.count, None if collection.model is None else collection.model.name),
        "regions" if regions else asked.classes.calibration,
    )


def about(count: int, model: str | None) -> str:
    """How many images, and which model made their vectors."""
    made = {None: "", "mini": ", embedded by the demo model"}.get(model, f", embedded by {model}")
    return f"{count:,} images{made}"
