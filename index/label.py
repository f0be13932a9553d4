"""Labelling and filtering a whole collection, in memory that does not grow with it.

Labels are written as Parquet parts of so many rows each. A part appears at once or not at all, so that a killed run
goes on with the first part that is missing. What the parts were made of is kept beside them, and a folder of other
labels is refused.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.csv_cells import CsvWriter
from clipsieve.durable import write_file
from clipsieve.errors import InputError
from clipsieve.index.calibrate import Scale
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Compiled, Question, compile_classes
from clipsieve.index.scan import Labelled, scan_label, scan_threshold
from clipsieve.lock import writer_lock
from clipsieve.types import ClassVectors, Example, Float32, Int64, MetaClass

PART_ROWS = 1_000_000
JOB = "labels.json"
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("key", pa.string()),
        ("label", pa.string()),  # null: none of the classes
        ("score", pa.float32()),
        ("margin", pa.float32()),  # +inf where the class has no negatives
        ("runner_up", pa.string()),  # null: no other class
        ("example", pa.string()),  # the text or image behind the score; null where label is
    ]
)

Keys = Callable[[Int64], Sequence[str]]


@dataclass(frozen=True, slots=True, eq=False)
class Labelling:
    """What to label with: classes embedded and as people wrote them, in one order.

    scales  per class its calibration, None for cosines
    reject  give no label to items that no class accepts, thresholds included; otherwise every item gets one, and
            thresholds are not looked at
    """

    vectors: tuple[ClassVectors, ...]
    classes: tuple[MetaClass, ...]
    scales: tuple[Scale | None, ...] | None = None
    reject: bool = False

    def __post_init__(self) -> None:
        if [v.name for v in self.vectors] != [c.name for c in self.classes]:
            raise InputError("Labelling got vectors and classes of different names; both name the same, in one order.")
        for v, c in zip(self.vectors, self.classes, strict=True):
            if (len(v.positive), len(v.negative)) != (len(c.positive), len(c.negative)):
                raise InputError(
                    f"Labelling got vectors of class {c.name!r} that are not one for each of its examples."
                )

    def compile(self) -> Compiled:
        """All classes as a matrix."""
        return compile_classes(self.vectors, self.scales)

    @property
    def least(self) -> list[float] | None:
        """Per class its threshold as a level; None unless `reject`."""
        if not self.reject:
            return None
        scales = self.scales or (None,) * len(self.classes)
        pairs = zip(self.vectors, self.classes, scales, strict=True)
        return [Question(v, 1, threshold=c.threshold, scale=s).least for v, c, s in pairs]


def label(
    rows: Rows,
    labelling: Labelling,
    folder: Path,
    keys: Keys,
    *,
    part_rows: int = PART_ROWS,
    progress: Callable[[int], object] | None = None,
) -> dict[str | None, int]:
    """Label every live row into `folder`/labels_000000.parquet, ...; how many items each class got (None: no class).

    keys       ids of a block -> their keys
    progress   called with the number of items of each finished part

    Parts that are there already are kept. InputError if they were made with other classes, rows or part size;
    CollectionLocked if another process is at work on them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with writer_lock(folder):
        _claim(folder, _job(rows, labelling, part_rows))
        compiled = labelling.compile()
        counts: Counter[str | None] = Counter({c.name: 0 for c in labelling.classes})
        for number, span in enumerate(rows.spans(part_rows)):
            path = folder / f"labels_{number:06d}.parquet"
            if not path.exists():
                blocks = scan_label(rows, compiled, labelling.least, span)
                write_file(path, partial(_write, tables=(_table(labelling, b, keys) for b in blocks)))
            names = pq.read_table(path, columns=["label"])["label"]
            found = {row["values"]: row["counts"] for row in names.value_counts().to_pylist()}
            counts.update(found)
            if progress is not None:
                progress(len(names))
    return dict(counts)


def to_csv(folder: Path, path: Path, *, raw: bool = False) -> None:
    """All parts of a finished labelling as one CSV with a header, in id order; empty fields where a value is null.

    raw  as in `CsvWriter`
    """

    def write(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        rows = CsvWriter(text, raw=raw)
        rows.writerow(SCHEMA.names)
        for part in sorted(folder.glob("labels_*.parquet")):
            with pq.ParquetFile(part) as parquet:
                for batch in parquet.iter_batches():
                    rows.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        text.detach()  # flushes, and leaves the file to be synced by its owner

    write_file(path, write)


def filter_ids(question: Question, rows: Rows) -> Iterator[tuple[Int64, Float32]]:
    """Ids and scores of every accepted item, block by block in id order; k and groups are not looked at."""
    for found in scan_threshold(rows, question):
        yield found.ids, found.best if question.scale is None else question.scale.score(found.best)


def _job(rows: Rows, labelling: Labelling, part_rows: int) -> dict[str, object]:
    """What decides the labels, so that parts of two different jobs never lie in one folder."""
    compiled = labelling.compile()
    digest = hashlib.sha256(compiled.matrix.tobytes())
    for array in (compiled.bias, rows.without):
        digest.update(b"" if array is None else array.tobytes())
    digest.update(repr((labelling.classes, labelling.least, labelling.vectors[0].model)).encode())
    spans = rows.spans(part_rows)
    last = spans[-1].stop - 1 if spans else -1
    return {"made_of": digest.hexdigest(), "rows": rows.count, "last_id": last, "part_rows": part_rows}


def _claim(folder: Path, job: dict[str, object]) -> None:
    path = folder / JOB
    if not path.exists():
        if any(folder.glob("labels_*.parquet")):
            raise InputError(f"{folder} holds labels of another run; choose another folder.")
        write_file(path, lambda file: file.write(json.dumps(job).encode()))
    elif json.loads(path.read_bytes()) != job:
        raise InputError(
            f"{folder} holds labels made with other classes, items or part size; choose another folder, or delete it."
        )


def _write(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    with pq.ParquetWriter(file, SCHEMA) as writer:
        for table in tables:
            writer.write_table(table)


def _table(labelling: Labelling, block: Labelled, keys: Keys) -> pa.Table:
    names = pa.array([c.name for c in labelling.classes])
    examples = [[_say(e) for e in c.positive] for c in labelling.classes]
    best, worst = _scores(labelling, block)
    return pa.table(
        [
            pa.array(block.ids),
            pa.array(list(keys(block.ids)), pa.string()),
            names.take(_indices(block.label)),
            pa.array(best),
            pa.array(best - worst),
            names.take(_indices(block.runner_up)),
            pa.array(
                [None if j < 0 else examples[j][e] for j, e in zip(block.label, block.example, strict=True)],
                pa.string(),
            ),
        ],
        schema=SCHEMA,
    )


def _scores(labelling: Labelling, block: Labelled) -> tuple[Float32, Float32]:
    """P and N on the score's scale, which is one and the same tail for every calibrated class."""
    scale = next((s for s in labelling.scales or () if s is not None), None)
    if scale is None:
        return block.best, block.worst
    return scale.score(block.best), np.where(np.isneginf(block.worst), -np.inf, scale.score(block.worst)).astype(
        np.float32
    )


def _indices(label: Int64) -> pa.Array:
    return pa.array(label, mask=label < 0)


def _say(example: Example) -> str:
    if example.text is not None:
        return example.text
    return str(example.image) if example.box is None else f"a part of {example.image}"
