"""`regions`, and the detectors of the other commands that embed."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.errors import InputError
from clipsieve.parts import Parts, print_json, progress
from clipsieve.progress import duration

if TYPE_CHECKING:
    from clipsieve.inference.finding import Finder
    from clipsieve.manifest import Detection

SHOWN = 10
"""Images without regions that are named in text; --json names all."""


def regions(
    ctx: typer.Context,
    folder: options.Folder,
    detector: Annotated[
        str | None,
        typer.Option("--detector", metavar="MODEL", help="mini, hf:ORG/NAME or local-dir:PATH; as before by default."),
    ] = None,
    region_count: options.RegionCount = None,
    crops: options.Crops = False,
    anew: Annotated[bool, typer.Option("--anew", help="Let go of the regions that there are, and begin anew.")] = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    images: options.Images = None,
    json: options.Json = False,
) -> None:
    """Look for regions in the images of a collection that nobody looked for them in yet.

    Example: clipsieve regions photos.clip --detector hf:google/owlv2-base-patch16-ensemble
    """
    from clipsieve.commands_ask import open_folder
    from clipsieve.inference.region_fill import fill_regions
    from clipsieve.lock import require_free

    require_free(folder)
    with open_folder(ctx, folder, images=images) as collection:
        before = collection.manifest.detection
        if detector is None and before is None:
            raise InputError(f"{folder} has no regions yet; say with --detector what is to find them.")
        chosen = detector or (before.model.name if before is not None else "")
        there = None if anew else before
        embedder = None
        if crops or (there is not None and there.crops):
            if collection.model is None:
                raise InputError(f"{folder} does not say which model made it, so that no crop can be embedded.")
            embedder = load(ctx.obj, collection.model.name, device, precision)
            collection.use(embedder)  # says so if it is another one
        finder = _finder(ctx.obj, chosen, region_count, there, embedder, device, precision)
        with progress("looking", "images") as shown:
            done = fill_regions(
                folder,
                finder,
                lambda id: collection.image_bytes(id, thumbnails=False),
                anew=anew,
                progress=shown.update,
            )
        keys = dict(zip(done.unseen, collection.keys(list(done.unseen)), strict=True))
    unseen = [{"id": str(id), "key": keys[id], "reason": reason} for id, reason in done.unseen.items()]
    if json:
        print_json({**asdict(done), "unseen": unseen, "folder": str(folder), "detector": finder.detection.model.name})
        return
    if not done.images and not unseen:
        typer.echo("Nothing to do: all images were looked through.")
        return
    typer.echo(f"{done.regions:,} regions found in {done.images:,} images in {duration(done.seconds)}.")
    for one in unseen[:SHOWN]:
        say(f"No regions of {one['key']}: {one['reason']}")
    if unseen:
        typer.echo(f"{len(unseen):,} images could not be looked at{' (--json names all)' if unseen[SHOWN:] else ''}.")


def load(parts: Parts, model: str, device: str, precision: str) -> Any:
    """The embedder of that name, announced."""
    say(f"Loading {'the demo model' if model == 'mini' else model}.")  # fetching its weights may take minutes
    return parts.load(model, device=device, precision=precision)


def load_for(parts: Parts, out: Path, model: str, device: str, precision: str, decode: str | None) -> Any:
    """The embedder of images for the collection `out`, which decodes as asked for, or as the collection has it."""
    decoding = options.decoding_of(decode, out)
    return load(parts, model, device, precision).decoding_as(decoding)


def find_with(
    parts: Parts,
    out: Path,
    embedder: Any,
    regions: str | None,
    count: int | None,
    crops: bool,
    device: str,
    precision: str,
) -> "Finder | None":
    """What finds regions while images are embedded into `out`: as asked for, or as the collection has it already.

    None if nothing does. InputError for options that mean nothing without a detector.
    """
    from clipsieve.errors import CollectionMissing
    from clipsieve.manifest import read_manifest

    try:
        there = read_manifest(out).detection
    except CollectionMissing:
        there = None
    if regions is None and there is None:
        if crops or count is not None:
            raise InputError("--crops and --region-count are about regions; say with --regions what is to find them.")
        return None
    name = regions or (there.model.name if there is not None else "")
    cropped = crops or (there is not None and there.crops)
    return _finder(parts, name, count, there, embedder if cropped else None, device, precision)


def finder_as_before(parts: Parts, device: str, precision: str) -> "Callable[[Detection, Any], Finder]":
    """Makes the finder that a collection has, for what is added to it."""

    def make(detection: "Detection", embedder: Any) -> "Finder":
        crops = embedder if detection.crops else None
        return _finder(parts, detection.model.name, None, detection, crops, device, precision)

    return make


def _finder(
    parts: Parts,
    name: str,
    count: int | None,
    there: "Detection | None",
    crops: Any,
    device: str,
    precision: str,
) -> "Finder":
    from clipsieve.inference.finding import Finder

    say(f"Loading {'the demo detector' if name == 'mini' else name}.")
    most = count if count is not None or there is None else there.most
    found = parts.load_detector(name, device=device, precision=precision, regions=most)
    return Finder(found, crops, image_memory=parts.image_memory)
