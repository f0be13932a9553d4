"""The boxes that a job writes beside its items. What is looked for is settled when the job is made, as the rest is."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from clipsieve.back.boxes import Boxes
from clipsieve.errors import InputError
from clipsieve.index import detecting
from clipsieve.index.boxes import NMS
from clipsieve.index.collection import Collection
from clipsieve.index.export import boxes_type
from clipsieve.index.records import Record, Tally
from clipsieve.index.suppress import compile_detection
from clipsieve.types import ClassSet, ClassVectors, Mode, ModelId, Skipped


@dataclass(frozen=True, slots=True, eq=False)
class Sought:
    """Classes whose boxes are written, and which of them.

    vectors    the classes in the space of the collection's regions
    threshold  least score of a box
    nms, mode  as in ClassSet
    """

    vectors: tuple[ClassVectors, ...]
    threshold: float
    nms: float
    mode: Mode

    @classmethod
    def of(cls, collection: Collection, classes: ClassSet, boxes: Boxes, threshold: float) -> "Sought":
        """All classes of a set. NotFound where there are no regions; else the errors are those of `Boxes.embed`."""
        vectors = boxes.embed(collection, classes.classes, classes.templates)
        return cls(vectors, threshold, NMS if classes.nms is None else classes.nms, classes.mode or detecting.MODE)

    def to_json(self) -> dict[str, Any]:
        """All but the vectors."""
        names = [v.name for v in self.vectors]
        model = dataclasses.asdict(self.vectors[0].model)
        return {"names": names, "model": model, "threshold": self.threshold, "nms": self.nms, "mode": self.mode}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], sides: Mapping[str, Any]) -> "Sought":
        """What `to_json` and `sides` gave."""
        vectors = tuple(
            ClassVectors(name, sides[f"sought{i}+"], sides[f"sought{i}-"], ModelId(**value["model"]))
            for i, name in enumerate(value["names"])
        )
        return cls(vectors, value["threshold"], value["nms"], value["mode"])

    def sides(self) -> dict[str, Any]:
        """The vectors by a name for each side of a class."""
        positive = {f"sought{i}+": v.positive for i, v in enumerate(self.vectors)}
        return positive | {f"sought{i}-": v.negative for i, v in enumerate(self.vectors)}

    def records(self, records: Iterable[Record], collection: Collection, skipped: list[Skipped]) -> Iterator[Record]:
        """The records with `width`, `height` and `boxes`, in pixels; those whose size is not known are skipped.

        ModelMismatch where the regions are another detector's by now.
        """
        compiled = compile_detection(self.vectors, [self.threshold] * len(self.vectors), self.nms, self.mode)

        def size(id: int, row: Mapping[str, Any]) -> tuple[int, int]:
            if row.get("width") and row.get("height"):
                return int(row["width"]), int(row["height"])
            return collection.image_size(id)

        names = [v.name for v in self.vectors]
        tally = Tally(skipped=skipped)
        return detecting.with_boxes(records, collection, collection.regions, compiled, names, size, tally)

    def tables(self, tables: Iterable[pa.Table], collection: Collection, skipped: list[Skipped]) -> Iterator[pa.Table]:
        """The rows of `id`, `key` and more with the same three columns, without those that are skipped."""
        for table in tables:
            ids, keys = table["id"].to_pylist(), table["key"].to_pylist()
            bare = (Record(id, key, {}) for id, key in zip(ids, keys, strict=True))
            found = {one.id: one.found for one in self.records(bare, collection, skipped)}
            kept = table.filter(pa.array([id in found for id in ids], pa.bool_()))
            rows = [found[id] for id in ids if id in found]
            for name, kind in COLUMNS:
                kept = kept.append_column(pa.field(name, kind), pa.array([row[name] for row in rows], kind))
            yield kept


COLUMNS: tuple[tuple[str, pa.DataType], ...] = (("width", pa.int64()), ("height", pa.int64()), ("boxes", boxes_type()))
"""What `Sought.tables` adds."""


def require_place(format: str) -> None:
    """InputError for a format that holds no boxes."""
    if format == "folders":
        raise InputError("Folders have no place for boxes; choose another format, or leave out boxes.")
