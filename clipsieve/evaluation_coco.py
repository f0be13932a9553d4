"""Average precision of boxes against a COCO annotation file, as pycocotools computes it."""

import contextlib
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipsieve.errors import InputError, MissingExtra

RECALL_BOXES = 100
"""Boxes of an image that count, of each class; the surest."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """What is known to be in images.

    images      id -> the image as the file has it
    boxes       the annotations as the file has them
    categories  name -> id
    files       file_name -> id of the image
    """

    images: Mapping[int, Mapping[str, Any]]
    boxes: Sequence[Mapping[str, Any]]
    categories: Mapping[str, int]
    files: Mapping[str, int]

    def image_of(self, key: str) -> int | None:
        """The image that a key names: its file_name is the key, or what the key ends in from some folder on."""
        parts = key.replace("\\", "/").split("/")
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        return next((self.files[end] for end in ends if end in self.files), None)


@dataclass(frozen=True, slots=True)
class CocoScores:
    """What boxes are worth, all in 0..1; None where nothing is annotated.

    ap         mean of the classes' average precision over overlaps of 0.50, 0.55, ... 0.95
    ap50       at 0.50; ap75 at 0.75
    recall100  mean recall of up to RECALL_BOXES boxes an image
    classes    name -> its ap and ap50
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    recall100: float | None
    classes: Mapping[str, tuple[float | None, float | None]]


def read_annotations(path: Path) -> Annotations:
    """The annotations in a COCO file of boxes. InputError names the file and what is wrong in it."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as COCO annotations ({error}).") from error
    try:
        images = {int(one["id"]): one for one in value["images"]}
        boxes = [
            {**one, "id": i, "image_id": int(one["image_id"]), "bbox": [float(number) for number in one["bbox"]]}
            for i, one in enumerate(value["annotations"], start=1)  # pycocotools takes the id 0 for none
        ]
        boxes = [{"area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0, **one} for one in boxes]
        categories = {str(one["name"]): int(one["id"]) for one in value["categories"]}
        files = {str(one["file_name"]): id for id, one in images.items()}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{path} is no COCO file of boxes ({type(error).__name__}: {error}); it needs images, annotations with "
            "their bbox, and categories."
        ) from error
    if len(files) < len(images):
        raise InputError(f"{path} names an image file twice; each image needs a file_name of its own.")
    return Annotations(images, boxes, categories, files)


def evaluate_coco(
    known: Annotations, images: Collection[int], names: Sequence[str], boxes: Sequence[Mapping[str, Any]]
) -> CocoScores:
    """The scores of boxes in some of the annotated images.

    images  those that were looked through, by the annotations' ids; the others count neither way
    names   the classes that count, each of them a category
    boxes   {"image_id": ..., "class": ..., "score": ..., "bbox": [left, top, width, height] in pixels}

    MissingExtra without pycocotools.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingExtra("Average precision is computed by pycocotools; install clipsieve[coco].") from error
    found = [
        {"id": i, "iscrowd": 0, "category_id": known.categories[one["class"]], "area": _area(one["bbox"]), **one}
        for i, one in enumerate(boxes, start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        sides = []
        for annotations in (known.boxes, found):
            side = COCO()
            side.dataset = {
                "images": [{"id": id} for id in images],
                "annotations": [dict(one) for one in annotations if one["image_id"] in images],
                "categories": [{"id": known.categories[name], "name": name} for name in names],
            }
            side.createIndex()
            sides.append(side)
        work = COCOeval(*sides, "bbox")
        work.params.catIds = [known.categories[name] for name in names]
        work.params.imgIds = sorted(images)
        work.params.useCats = 1
        work.evaluate()
        work.accumulate()
        work.summarize()
    # Overlaps, recalls, classes, areas, most boxes; the first area is all, the last number RECALL_BOXES.
    precision = work.eval["precision"][:, :, :, 0, -1]
    order = list(work.params.catIds)
    of = {name: precision[:, :, order.index(known.categories[name])] for name in names}
    ap, ap50, ap75, recall = (_real(float(work.stats[i])) for i in (0, 1, 2, 8))
    return CocoScores(ap, ap50, ap75, recall, {name: (_mean(one), _mean(one[0])) for name, one in of.items()})


def _area(box: Sequence[float]) -> float:
    return box[2] * box[3]


def _mean(values: Any) -> float | None:
    return _real(float(values.mean()))


def _real(value: float) -> float | None:
    """pycocotools says -1 where there is nothing to find."""
    return None if value < 0 else value
