"""The work of `label`: labels made in parts, counted, and written as what was asked for."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from clipsieve.durable import naming
from clipsieve.index.collection import Collection
from clipsieve.index.export import export
from clipsieve.index.label import SCHEMA
from clipsieve.index.records import Record
from clipsieve.labels import tables, truth_of, write_directai, write_table
from clipsieve.types import ClassSet, Skipped


def label_parts(
    collection: Collection, classes: ClassSet, parts: Path, reject: bool, update: Callable[[int, int], None]
) -> dict[str | None, int]:
    """Label everything into the folder `parts`; how many images each class got. `update` takes (done, total)."""
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        update(done, collection.count)

    return collection.label(classes, parts, reject=reject, progress=count)


def count_labels(
    collection: Collection, parts: Path, every: Iterable[str | None], wanted: frozenset[str]
) -> dict[str | None, int]:
    """How many of the wanted images each class got; `every` lists the classes, None among them."""
    found = Counter(dict.fromkeys(every, 0))
    for table, _ in tables(parts, collection.items, wanted):
        found.update(table["label"].to_pylist())
    return dict(found)


def write_labels(
    collection: Collection,
    parts: Path,
    out: Path,
    kind: str,
    names: tuple[str, ...],
    truth: str | None,
    wanted: frozenset[str] | None,
    *,
    raw_csv: bool = False,
) -> tuple[Skipped, ...]:
    """The labels in `parts` as the file or folder asked for; which images could not be written, and why.

    kind    parquet, csv, directai, or what `clipsieve.index.export` knows
    truth   for directai's CSV, as in `labels.truth_of`; None takes the folders for it if each image lies in one
    wanted  only these images, as from `labels.read_only`
    raw_csv  as in `CsvWriter`
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind in ("parquet", "csv"):
        write_table((table for table, _ in tables(parts, collection.items, wanted)), SCHEMA, out, kind, raw_csv=raw_csv)
        return ()
    if kind == "directai":
        write_directai(_directai(collection, parts, names, truth, wanted), out, raw_csv=raw_csv)
        return ()
    stream = (
        Record(row.pop("id"), row.pop("key"), {k: v if v != math.inf else None for k, v in row.items()})
        for table, _ in tables(parts, collection.items, wanted)
        for row in table.to_pylist()
    )
    with naming(out):
        return export(stream, out, cast(Any, kind), collection).skipped


def _directai(
    collection: Collection, parts: Path, names: tuple[str, ...], truth: str | None, wanted: frozenset[str] | None
) -> Iterator[tuple[list[str], list[str | None], list[str | None] | None]]:
    """What `write_directai` takes."""

    def told() -> Iterator[bool]:
        for table, _ in tables(parts, collection.items, wanted):
            rows = collection.items(table["id"].to_pylist())
            for row, (_, at) in zip(rows, truth_of(rows, "folder", names), strict=True):
                yield at >= 0 or ("/" in str(row["key"]) and bool(row.get("image_path")))

    if truth is None and all(told()):
        truth = "folder"
    for table, places in tables(parts, collection.items, wanted):
        said = None
        if truth is not None:
            rows = collection.items(table["id"].to_pylist())
            said = [names[at] if at >= 0 else name for name, at in truth_of(rows, truth, names)]
        yield places, table["label"].to_pylist(), said
