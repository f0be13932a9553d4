"""`detect`: which of a collection's stored regions a class set keeps, as boxes in files."""

import itertools
import json as json_
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.commands_ask import long_text_of, open_folder, tell, tell_skipped
from clipsieve.errors import InputError, NotFound
from clipsieve.output_path import refuse_address
from clipsieve.parts import Parts, print_json, progress

if TYPE_CHECKING:
    from clipsieve.index.collection import Collection
    from clipsieve.index.detecting import Counts, ImageBoxes
    from clipsieve.index.records import Record, Tally
    from clipsieve.index.regions import CollectionRegions
    from clipsieve.types import Int64, Mode


def detect(
    ctx: typer.Context,
    folder: options.Folder,
    set_: Annotated[Path, typer.Option("--set", metavar="FILE", help="The class set: our JSON, or DirectAI's.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="A .json (COCO) or .parquet file, or a folder.", callback=refuse_address
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="coco|yolo|parquet|webdataset|drawn", help="By default what --out ends in."),
    ] = None,
    agnostic: options.Agnostic = None,
    nms: options.Nms = None,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Least score, for classes without a threshold of their own.")
    ] = 0.1,
    where: options.Where = None,
    long_text: options.LongTextName = "cut",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    state: options.State = None,
    images: options.Images = None,
    json: options.Json = False,
) -> None:
    """Write the boxes that the classes of a set keep, of the regions that the collection has.

    Example: clipsieve detect photos.clip --set detectors.json --out boxes.json

    Example: clipsieve detect photos.clip --set detectors.json --format drawn --out drawn
    """
    from clipsieve.classset import to_json
    from clipsieve.durable import naming
    from clipsieve.index import detecting
    from clipsieve.index.detections_out import choose_detect_format, require_place, write_detections
    from clipsieve.index.records import Tally
    from clipsieve.pictures import draw_boxes
    from clipsieve.question import read_asked

    kind = choose_detect_format(format, out)
    require_place(out, kind)
    asked = read_asked(set_)
    classes = asked.classes
    with open_folder(ctx, folder, None, device, state, images=images) as collection:
        for data in asked.uploads.values():
            collection.keep_example_image(data)
        regions = collection.regions
        detector = load_detector_of(ctx.obj, regions, device, precision)
        how: dict[str, Any] = {"nms": nms, "mode": mode_of(agnostic), "threshold": threshold}
        how["long_text"] = long_text_of(long_text)
        compiled = detecting.compile_set(classes, detector, **how, pictures=collection.example_bytes)
        tell(notes := collection.box_notes(classes, detector))
        only = None if where is None else collection.select(where)
        counts, tally = detecting.Counts(), Tally()
        names = [c.name for c in classes.classes]
        with progress("detecting", "images") as shown, naming(out):
            walked = told(regions, detecting.walk(regions, compiled, only), only, shown.update)
            rows = _records(collection, walked, names, counts, tally)
            note = json_.dumps(to_json(classes), ensure_ascii=False)
            done = write_detections(rows, out, kind, classes, collection, tally, draw_boxes, note)
        lacking, unseen = regions.lacking, regions.unseen
    boxes = {name: counts.boxes[i] for i, name in enumerate(names)}
    if json:
        skipped = [{"key": s.key, "reason": s.reason} for s in done.skipped]
        found = {"images": counts.images, "with_boxes": counts.with_boxes, "written": done.written, "boxes": boxes}
        left_out = {"without_regions": lacking, "unseen": unseen, "skipped": skipped}
        print_json({"out": str(out), "format": kind, **found, **left_out, "notes": list(notes)})
        if done.skipped:
            raise typer.Exit(1)
        return
    for name, count in boxes.items():
        typer.echo(f"{count:>9,}  {name}")
    typer.echo(f"Boxes in {counts.with_boxes:,} of {counts.images:,} images written to {out}.")
    tell_left_out(folder, lacking, unseen)
    if done.skipped:
        tell_skipped(done.skipped)
        raise typer.Exit(1)


def mode_of(agnostic: bool | None) -> "Mode | None":
    """What --agnostic and --class-wise mean; None for neither."""
    if agnostic is None:
        return None
    return "agnostic" if agnostic else "class-wise"


def load_detector_of(parts: Parts, regions: "CollectionRegions", device: str, precision: str) -> Any:
    """The detector that found the regions, for the texts. ModelMismatch if its name stands for another one now."""
    name = regions.model.name
    say(f"Loading {'the demo detector' if name == 'mini' else name}.")
    detector = parts.load_detector(name, device=device, precision=precision)
    regions.model.require(detector.model, "The set")
    return detector


def told(
    regions: "CollectionRegions",
    walked: "Iterator[ImageBoxes]",
    only: "Int64 | None",
    update: Callable[[int, int], None],
) -> "Iterator[ImageBoxes]":
    """The same, telling how many of all are through."""
    from clipsieve.index.detecting import wanted_ids

    total = sum(len(ids) for ids in wanted_ids(regions, only))
    for done, found in enumerate(walked):
        update(done, total)
        yield found
    update(total, total)


def tell_left_out(folder: Path, lacking: int, unseen: int) -> None:
    """How many images could not be answered for, and what to do about it."""
    if lacking:
        say(f"Note: In {lacking:,} images nobody looked for regions; `clipsieve regions {folder}` does.")
    if unseen:
        say(f"Note: {unseen:,} images could not be looked at when regions were found; they are left out.")


def size_of(collection: "Collection", id: int, row: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of an item in pixels, upright: as the metadata says, else as its file is.

    NotFound or InputError where neither says it.
    """
    if row.get("width") and row.get("height"):
        return int(row["width"]), int(row["height"])
    return collection.image_size(id)


def _records(
    collection: "Collection", walked: "Iterator[ImageBoxes]", names: list[str], counts: "Counts", tally: "Tally"
) -> "Iterator[tuple[Record, Mapping[str, Any]]]":
    from clipsieve.index.detecting import BLOCK_IMAGES, record, unknown_size
    from clipsieve.index.records import Record

    while block := list(itertools.islice(walked, BLOCK_IMAGES)):
        for found, row in zip(block, collection.items([one.id for one in block]), strict=True):
            key = str(row["key"])
            try:
                size = size_of(collection, found.id, row)
            except (NotFound, InputError) as error:
                tally.skip(Record(found.id, key, {}), unknown_size(error))
                continue
            counts.add(found)
            yield record(found, key, size, names), row
