"""What jobs do: label every item of a collection, or write the items of a question as a file.

What is asked is settled when the job is made, examples embedded included: it needs no model later, and a stored set may
change. What it is asked of is the commit that the job begins with; where a compaction does away with that, it begins
again.
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve import classset
from clipsieve.back import schema
from clipsieve.back.boxes import Boxes
from clipsieve.back.flags import Sieve
from clipsieve.back.job import SKIPPED, Job, Result
from clipsieve.back.jobs import Tell, Work
from clipsieve.back.offers import embedded, rank, require_flags
from clipsieve.back.shelf import Served, Shelf
from clipsieve.back.sought import COLUMNS, Sought, require_place
from clipsieve.csv_cells import CsvWriter
from clipsieve.errors import CollectionChanged, InputError, NotFound, quoted
from clipsieve.index.asked import RankedAnswer
from clipsieve.index.collection import Collection
from clipsieve.index.export import As, export
from clipsieve.index.label import SCHEMA
from clipsieve.index.records import Record, hit_records, label_records
from clipsieve.index.rule import Ranked
from clipsieve.labels import write_table
from clipsieve.types import ClassSet, ClassVectors, Int64, MetaClass, ModelId, Skipped

KINDS: dict[str, tuple[str, As]] = {
    "csv": (".csv", "list"),
    "parquet": (".parquet", "list"),
    "jsonl": (".jsonl", "list"),
    "coco": (".json", "coco"),
    "yolo": (".zip", "yolo"),
    "webdataset": (".tar", "tar"),
    "folders": (".zip", "zip"),
}
"""Format -> the result's suffix, and what an export calls it."""

MOST_EXPORTED = 10_000_000
"""Items of one export: some hundreds of MB while they are found."""

BLOCK = 256
"""Items after which a job looks whether it is to end."""

LEAST_PART, MOST_PART = 10_000, 1_000_000
"""Items of a part of a labelling, of which there are about a hundred."""

ATTEMPTS = 3

_TASK, _VECTORS, _IDS = "task.json", "vectors.npz", "ids.npy"
_OF_LABEL = frozenset(
    {"kind", "format", "collection", "set", "reject", "multilingual", "boxes", "box_threshold", "raw_csv"}
)
_OF_EXPORT = frozenset(
    {"threshold", "where", "modality", "view", "sort", "veto", "dedup", "without", "limit", "images"}
)
_OF_QUESTION = frozenset({"multilingual", "rating", "rating_weight", "without"})


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a job is to do.

    classes  the set to label with, or the one class of a question; None where ids alone say what to export
    vectors  the same embedded
    label    what the items of a question are labelled with
    ids      int64, those to export; None for all that the question finds
    options  the other fields of the request
    sought   the boxes that are written; None for a job without
    """

    classes: ClassSet | None
    vectors: tuple[ClassVectors, ...]
    label: str | None
    ids: Int64 | None
    options: dict[str, Any]
    sought: Sought | None = None

    @classmethod
    def of(cls, served: Served, body: schema.NewJob, stored: Any, boxes: Boxes) -> "Task":
        """What a request asks. What is wrong with it is said now, not by a job that fails: InputError, NotFound."""
        collection = served.collection
        if body.raw_csv and body.format != "csv":
            raise InputError(f"raw_csv is for CSV, and not for {body.format}; leave it out.")
        if body.format not in schema.FORMATS[body.kind]:
            raise InputError(f"A job of kind {quoted(body.kind)} writes {', '.join(schema.FORMATS[body.kind])}.")
        if body.boxes:
            require_place(body.format)

        def sought(classes: ClassSet) -> Sought | None:
            return Sought.of(collection, classes, boxes, body.box_threshold) if body.boxes else None

        if body.kind == "label":
            if stray := body.model_fields_set - _OF_LABEL:
                raise InputError(f"A job that labels takes no {min(stray).rstrip('_')}; it is for an export.")
            if body.set is None:
                raise InputError("There is no set to label with; give one.")
            classes = schema.read_set(body.set, stored)
            vectors = embedded(served, classes, body)
            options = {"reject": body.reject, "raw_csv": body.raw_csv}
            return cls(classes, vectors, None, None, options, sought(classes))
        if body.reject:
            raise InputError("An export takes no reject; it is for a job that labels.")
        options = body.model_dump(include={*_OF_EXPORT, "raw_csv"})
        ids = None if body.ids is None else np.array(list(dict.fromkeys(map(int, body.ids))), np.int64)
        if body.set is None and body.class_ is None and ids is not None:
            if body.boxes:
                raise InputError("Boxes are those of a class; give one beside the ids, or leave out boxes.")
            if stray := body.model_fields_set & _OF_QUESTION:
                raise InputError(f"{min(stray)} is of a question; give a class beside the ids, or leave it out.")
            return cls(None, (), None, ids, options)
        whole, name = schema.read_question(body, stored)
        meta = next(c for c in whole.classes if c.name == name)
        one = ClassSet([meta], whole.calibration, whole.templates)
        vectors = embedded(served, one, body)
        collection.fixed(vectors).rank(one, 1, where=body.where, dedup=body.dedup, modality=body.modality)
        unnamed = isinstance(body.class_, dict) and "name" not in body.class_
        label = meta.positive[0].text if unnamed and meta.positive[0].text is not None else meta.name
        named = MetaClass(label, meta.positive, meta.negative)
        seen = ClassSet([named], "none", whole.templates, nms=whole.nms, mode=whole.mode)
        return cls(one, vectors, label, ids, options, sought(seen))

    def write(self, folder: Path) -> None:
        """Keep it in the job's folder."""
        model = self.vectors[0].model if self.vectors else None
        value = {
            "classes": None if self.classes is None else classset.to_json(self.classes),
            "model": None if model is None else dataclasses.asdict(model),
            "label": self.label,
            "options": self.options,
            "sought": None if self.sought is None else self.sought.to_json(),
        }
        (folder / _TASK).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
        sides = {f"{i}{side}": rows for i, v in enumerate(self.vectors) for side, rows in _sides(v)}
        sides |= {} if self.sought is None else self.sought.sides()
        np.savez(folder / _VECTORS, allow_pickle=False, **cast(Any, sides))
        if self.ids is not None:
            np.save(folder / _IDS, self.ids)

    @classmethod
    def read(cls, folder: Path) -> "Task":
        """What `write` kept."""
        value = json.loads((folder / _TASK).read_bytes())
        classes = None if value["classes"] is None else classset.from_json(value["classes"])
        with np.load(folder / _VECTORS) as sides:
            vectors = tuple(
                ClassVectors(c.name, sides[f"{i}+"], sides[f"{i}-"], ModelId(**value["model"]))
                for i, c in enumerate(() if classes is None else classes.classes)
            )
            told = value.get("sought")  # jobs of versions before had none
            sought = None if told is None else Sought.from_json(told, sides)
        ids = np.load(folder / _IDS) if (folder / _IDS).exists() else None
        return cls(classes, vectors, value["label"], ids, value["options"], sought)


def make_work(shelf: Shelf) -> Work:
    """The work of jobs on these collections."""

    def work(job: Job, folder: Path, tell: Tell) -> Result:
        task = Task.read(folder)

        def carry_out() -> Result:
            served, without = shelf[job.collection], task.options.get("without", ())  # earlier versions had none
            require_flags(served, without)  # the service may have been started anew
            sieve = served.flags.sieve(without)
            if job.kind == "label":
                return _label(sieve.collection.fixed(task.vectors), task, job.format, folder, tell)
            return _export(sieve, task, job.format, folder, tell)

        for _ in range(ATTEMPTS - 1):
            try:
                return carry_out()
            except CollectionChanged:
                continue
        return carry_out()

    return work


def title_of(body: schema.NewJob, collection: str, task: Task) -> str:
    """What a download is called: the collection, and what was asked of it."""
    what = "labels" if body.kind == "label" else task.label or "items"
    return re.sub(r"[^\w.-]+", "-", f"{collection}-{what}").strip("-.")[:100]


def part_rows(count: int) -> int:
    """Items of a part of a labelling; the same for the same collection, so that it can be gone on with."""
    return min(max(count // 100, LEAST_PART), MOST_PART)


def _label(collection: Collection, task: Task, format: str, folder: Path, tell: Tell) -> Result:
    assert task.classes is not None
    parts = folder / f"parts-{collection.revision}"
    for other in folder.glob("parts-*"):
        if other != parts:  # of another commit
            shutil.rmtree(other)
    total, done = collection.count, 0
    found = len(list(parts.glob("labels_*.parquet")))  # before a restart; they say nothing of the pace

    def labelled(rows: int) -> None:
        nonlocal done, found
        done, found = done + rows, found - 1
        if found < 0:
            tell("labelling", done, total)

    if not found:
        tell("labelling", 0, total)
    size = part_rows(total)
    collection.label(task.classes, parts, reject=task.options["reject"], progress=labelled, part_rows=size)
    suffix, kind = KINDS[format]
    out = folder / f"result{suffix}"
    skipped: list[Skipped] = []
    raw_csv = task.options.get("raw_csv", False)  # jobs of versions before had none
    if kind == "list":
        tables, columns = _told_tables(parts, total, tell), SCHEMA
        if task.sought is not None:
            tables = task.sought.tables(tables, collection, skipped)
            columns = pa.schema([*SCHEMA, *(pa.field(*column) for column in COLUMNS)])
        write_table(tables, columns, out, format, raw_csv=raw_csv)
        return _done(out, total - len(skipped), skipped, raw_csv)
    records = _told(label_records(parts), total, tell)
    return _write(_with_boxes(records, task, collection, skipped), out, kind, collection, skipped, "", raw_csv)


def _export(sieve: Sieve, task: Task, format: str, folder: Path, tell: Tell) -> Result:
    tell("finding", 0, None)
    collection = sieve.collection
    suffix, kind = KINDS[format]
    if kind == "yolo" and task.options["images"]:
        kind = "yolo-images"
    skipped: list[Skipped] = []
    if task.classes is None:
        ids = cast(Int64, task.ids)[: task.options["limit"]]
        records, total = _of_ids(collection, ids, skipped), len(ids)
    else:
        answer, ranked = _found(sieve, task, skipped)
        records, total = _of_answer(answer, ranked, task.label), len(ranked.ids)
    out = folder / f"result{suffix}"
    told = _told(records, total, tell)
    raw_csv = task.options.get("raw_csv", False)  # jobs of versions before had none
    told = _with_boxes(told, task, collection, skipped)
    return _write(told, out, kind, collection, skipped, task.label or "", raw_csv)


def _found(sieve: Sieve, task: Task, skipped: list[Skipped]) -> tuple[RankedAnswer, Ranked]:
    """The items of the question, and of the ids where some are given; of those, what is not among them is skipped."""
    options = task.options
    most = MOST_EXPORTED + 1 if task.ids is not None or options["limit"] is None else options["limit"]

    def ask(at: Collection, wanted: int) -> RankedAnswer:
        return at.rank(
            cast(ClassSet, task.classes),
            wanted,
            threshold=options["threshold"],
            where=options["where"],
            dedup=options["dedup"],
            modality=options["modality"],
            view=options["view"],
            order=options["sort"],
            veto=options.get("veto", "hard"),  # jobs of before there was a choice
        )

    answer = rank(sieve, task.vectors, min(most, max(sieve.collection.count, 1)), ask)
    ranked = answer.ranked
    if len(ranked.ids) > MOST_EXPORTED:
        raise InputError(f"The question has more than {MOST_EXPORTED:,} items; narrow it, or give a limit.")
    if task.ids is not None:
        others = np.setdiff1d(task.ids, ranked.ids)
        skipped += [Skipped(str(id), "It is no item of the question.") for id in others.tolist()]
        ranked = ranked.pick(np.flatnonzero(np.isin(ranked.ids, task.ids))[: options["limit"]])
    return answer, ranked


def _of_answer(answer: RankedAnswer, ranked: Ranked, label: str | None) -> Iterator[Record]:
    for start in range(0, len(ranked.ids), BLOCK):
        for record in hit_records(answer.hits(ranked.pick(slice(start, start + BLOCK)))):
            yield dataclasses.replace(record, found={"label": label, **record.found})


def _of_ids(collection: Collection, ids: Int64, skipped: list[Skipped]) -> Iterator[Record]:
    def rows(some: Sequence[int]) -> Iterator[Record]:
        for row in collection.items(some):
            yield Record(cast(int, row["id"]), str(row["key"]), {})

    for start in range(0, len(ids), BLOCK):
        block = ids[start : start + BLOCK].tolist()
        try:
            yield from list(rows(block))
        except NotFound:
            for id in block:
                try:
                    yield from list(rows([id]))
                except NotFound as error:
                    skipped.append(Skipped(str(id), str(error)))


def _write(
    records: Iterator[Record],
    out: Path,
    kind: As,
    collection: Collection,
    skipped: list[Skipped],
    note: str,
    raw_csv: bool,
) -> Result:
    out.unlink(missing_ok=True)  # of a service that was killed before it said so
    done = export(records, out, kind, collection, note=note, raw_csv=raw_csv)
    skipped += done.skipped
    return _done(out, done.written, skipped, raw_csv)


def _done(out: Path, written: int, skipped: list[Skipped], raw_csv: bool) -> Result:
    if skipped:
        with (out.parent / SKIPPED).open("w", newline="", encoding="utf-8") as file:
            CsvWriter(file, raw=raw_csv).writerows([("key", "reason"), *((s.key, s.reason) for s in skipped)])
    return Result(out.name, written, len(skipped))


def _with_boxes(
    records: Iterator[Record], task: Task, collection: Collection, skipped: list[Skipped]
) -> Iterator[Record]:
    return records if task.sought is None else task.sought.records(records, collection, skipped)


def _told(records: Iterator[Record], total: int, tell: Tell) -> Iterator[Record]:
    """The records, and word of every BLOCK of them."""
    for done, record in enumerate(records):
        if done % BLOCK == 0:
            tell("writing", done, total)
        yield record
    tell("writing", total, total)


def _told_tables(parts: Path, total: int, tell: Tell) -> Iterator[pa.Table]:
    tell("writing", 0, total)
    done = 0
    for part in sorted(parts.glob("labels_*.parquet")):
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(LEAST_PART):
                yield pa.Table.from_batches([batch])
                done += len(batch)
                tell("writing", done, total)


def _sides(vectors: ClassVectors) -> tuple[tuple[str, Any], ...]:
    return ("+", vectors.positive), ("-", vectors.negative)
