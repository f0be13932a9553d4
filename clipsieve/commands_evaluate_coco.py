"""`evaluate --coco`: how good the boxes of a detector's class set are, with its negative examples and without."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from clipsieve.command import say
from clipsieve.commands_ask import open_folder, tell
from clipsieve.commands_detect import load_detector_of, mode_of, size_of, tell_left_out, told
from clipsieve.errors import InputError
from clipsieve.evaluation_coco import Annotations, evaluate_coco, read_annotations
from clipsieve.parts import Parts, print_json, progress

if TYPE_CHECKING:
    from clipsieve.index.collection import Collection
    from clipsieve.index.suppress import CompiledDetection
    from clipsieve.types import ClassSet, Int64

SHOWN = 5
"""Names that are given in a note."""


def evaluate_folder(
    ctx: typer.Context,
    folder: Path,
    coco: Path,
    set_: Path,
    agnostic: bool | None,
    nms: float | None,
    device: str,
    precision: str,
    state: Path | None,
    json: bool,
) -> None:
    """Print the average precision of a class set's boxes on the regions that a collection has."""
    from clipsieve.question import read_asked

    known, asked = read_annotations(coco), read_asked(set_)
    with open_folder(ctx, folder, None, device, state) as collection:
        for data in asked.uploads.values():
            collection.keep_example_image(data)
        found = evaluate_boxes(ctx.obj, collection, known, asked.classes, agnostic, nms, device, precision)
        lacking, unseen = collection.regions.lacking, collection.regions.unseen
    if json:
        print_json({"folder": str(folder), "coco": str(coco), "without_regions": lacking, "unseen": unseen, **found})
        return
    typer.echo(to_text(found))
    tell_left_out(folder, lacking, unseen)
    if found["other_classes"]:
        say(f"Note: The annotations have no category {_some(found['other_classes'])}; these classes are not graded.")
    if found["other_categories"]:
        say(f"Note: The set has no class {_some(found['other_categories'])}; these categories are not graded.")
    if found["images_left_out"]:
        say(f"Note: {found['images_left_out']:,} annotated images are not in the collection, or have no regions there.")


def evaluate_boxes(
    parts: Parts,
    collection: "Collection",
    known: Annotations,
    classes: "ClassSet",
    agnostic: bool | None,
    nms: float | None,
    device: str,
    precision: str,
) -> dict[str, Any]:
    """The scores with the set's negative examples and, if it has some, without, as JSON values.

    Thresholds play no part: precision is averaged over all of them.

    InputError if no class is a category, or no image is in the collection.
    """
    from clipsieve.index.detecting import compile_set

    names = [c.name for c in classes.classes if c.name in known.categories]
    if not names:
        raise InputError(
            f"No class of the set is a category of the annotations, which have {_some(list(known.categories))}; give "
            "the classes their names."
        )
    detector = load_detector_of(parts, collection.regions, device, precision)
    tell(notes := collection.box_notes(classes, detector))
    items = _items(collection, known)
    results: dict[str, Any] = {}
    how: dict[str, Any] = {"nms": nms, "mode": mode_of(agnostic), "threshold": 0, "pictures": collection.example_bytes}
    for what, variant in _variants(classes).items():
        compiled = compile_set(variant, detector, **how)
        boxes = _boxes(collection, known, compiled, [c.name for c in classes.classes], items, what)
        graded = [one for one in boxes if one["class"] in known.categories]
        results[what] = asdict(evaluate_coco(known, set(items.values()), names, graded))
        for name, (ap, ap50) in results[what]["classes"].items():
            results[what]["classes"][name] = {"ap": ap, "ap50": ap50}
    return {
        "images": len(items),
        "images_left_out": len(known.images) - len(items),
        "other_classes": [c.name for c in classes.classes if c.name not in known.categories],
        "other_categories": [name for name in known.categories if name not in names],
        "notes": list(notes),
        **results,
    }


def to_text(found: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{found['images']:,} annotated images", f"{'':24}      AP    AP50    AP75   AR100"]
    kinds = [(what, found[what]) for what in ("with_negatives", "without_negatives") if what in found]
    for what, scores in kinds:
        figures = [scores[name] for name in ("ap", "ap50", "ap75", "recall100")]
        lines.append(f"{what.replace('_', ' '):24}{''.join(map(_figure, figures))}")
    for what, scores in kinds:
        lines += ["", f"{what.replace('_', ' '):24}      AP    AP50"]
        lines += [f"  {name:22}{_figure(one['ap'])}{_figure(one['ap50'])}" for name, one in scores["classes"].items()]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.4f}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if names[SHOWN:] else "")


def _variants(classes: "ClassSet") -> dict[str, "ClassSet"]:
    """The set without thresholds; and, where it has negative examples, without those too."""
    from clipsieve.types import ClassSet, MetaClass

    def stripped(negatives: bool) -> ClassSet:
        own = [MetaClass(c.name, c.positive, c.negative if negatives else ()) for c in classes.classes]
        return ClassSet(own, classes.calibration, classes.templates, classes.nms, classes.mode)

    if any(c.negative for c in classes.classes):
        return {"with_negatives": stripped(True), "without_negatives": stripped(False)}
    return {"without_negatives": stripped(False)}


def _items(collection: "Collection", known: Annotations) -> dict[int, int]:
    """Item -> annotated image, of the items that were looked through."""
    from clipsieve.index.detecting import wanted_ids

    found: dict[int, int] = {}
    taken: dict[int, str] = {}
    for ids in wanted_ids(collection.regions):
        for start in range(0, len(ids), 10_000):
            block = ids[start : start + 10_000]
            for id, key in zip(block.tolist(), collection.keys(block), strict=True):
                image = known.image_of(key)
                if image is None:
                    continue
                if image in taken:
                    name = known.images[image]["file_name"]
                    raise InputError(f"{taken[image]} and {key} are both the annotated image {name}; keep one of them.")
                found[id], taken[image] = image, key
    if not found:
        raise InputError("None of the annotated images is in the collection with regions; compare file_name with keys.")
    return found


def _boxes(
    collection: "Collection",
    known: Annotations,
    compiled: "CompiledDetection",
    names: list[str],
    items: Mapping[int, int],
    what: str,
) -> list[dict[str, Any]]:
    """All boxes that are kept, in pixels of the annotated images."""
    import numpy as np

    from clipsieve.index.detecting import record, walk

    only: Int64 = np.array(sorted(items), np.int64)
    boxes: list[dict[str, Any]] = []
    with progress(f"detecting {what.replace('_', ' ')}", "images") as shown:
        for found in told(collection.regions, walk(collection.regions, compiled, only), only, shown.update):
            image = items[found.id]
            row = {**collection.items([found.id], ["width", "height"])[0], **known.images[image]}
            size = size_of(collection, found.id, row)
            for one in record(found, "", size, names).found["boxes"]:
                boxes.append({"image_id": image, "class": one["class"], "score": one["score"], "bbox": one["box"]})
    return boxes
