import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsieve.errors import InputError
from clipsieve.index.calibrate import Background
from clipsieve.index.label import Labelling, filter_ids, label, to_csv
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question, compile_classes, maxima, rank_score, settle
from clipsieve.types import Int64, MetaClass
from tests.index.made import everything, loop, make_class, make_rows, make_vectors


def keys(ids: Int64) -> Sequence[str]:
    return [f"{i}.jpg" for i in ids]


def labelling(
    classes: int = 3, reject: bool = False, threshold: float | None = None, rows: Rows | None = None
) -> Labelling:
    vectors = tuple(make_class(f"class {j}", 2, j % 2, seed=j) for j in range(classes))
    meta = tuple(
        MetaClass(v.name, [f"{v.name} +{i}" for i in range(2)], ["no"] * len(v.negative), threshold) for v in vectors
    )
    scales = None
    if rows is not None:
        background = Background(everything(rows)[1])
        scales = tuple(background.scale(v) for v in vectors)
    return Labelling(vectors, meta, scales, reject)


def read(folder: Path) -> list[dict[str, object]]:
    return [row for part in sorted(folder.glob("labels_*")) for row in pq.read_table(part).to_pylist()]


def test_every_row_gets_its_label(tmp_path: Path) -> None:
    rows, what = make_rows(make_vectors(500)), labelling()
    finished: list[int] = []
    counts = label(rows, what, tmp_path, keys, part_rows=120, progress=finished.append)
    written = read(tmp_path)
    ids, vectors = everything(rows)
    assert [row["id"] for row in written] == ids.tolist()
    assert [row["key"] for row in written] == keys(ids)
    compiled = compile_classes(what.vectors)
    best, worst = maxima(compiled, settle(compiled, vectors))
    order = np.argsort(-rank_score(best, worst), axis=0, kind="stable")
    for i, row in enumerate(written):
        j = order[0, i]
        assert row["label"] == f"class {j}"
        assert row["runner_up"] == f"class {order[1, i]}"
        assert row["score"] == pytest.approx(best[j, i], abs=1e-6)
        assert row["margin"] == pytest.approx(best[j, i] - worst[j, i], abs=1e-6)
        assert row["example"] == f"class {j} +{(what.vectors[j].positive @ vectors[i]).argmax()}"
    assert counts == {f"class {j}": int((order[0] == j).sum()) for j in range(3)}
    assert sum(finished) == len(ids)
    assert len(finished) == 5


def test_reject_leaves_items_without_a_label(tmp_path: Path) -> None:
    rows = make_rows(make_vectors(300))
    counts = label(rows, labelling(reject=True, threshold=0.3), tmp_path, keys)
    written = read(tmp_path)
    none = [row for row in written if row["label"] is None]
    assert counts[None] == len(none) > 0
    assert all(row["example"] is None for row in none)
    assert all(row["score"] >= 0.3 and row["margin"] > 0 for row in written if row["label"] is not None)  # type: ignore[operator]
    found = {i for c in labelling().vectors for _, i, _ in loop(Question(c, 1, threshold=0.3), rows)}
    assert {row["id"] for row in written} - {row["id"] for row in none} == found


def test_calibrated_labels(tmp_path: Path) -> None:
    rows = make_rows(make_vectors(300))
    what = labelling(reject=True, threshold=1.0, rows=rows)
    label(rows, what, tmp_path, keys)
    assert what.scales is not None
    found = {
        i
        for c, s in zip(what.vectors, what.scales, strict=True)
        for _, i, _ in loop(Question(c, 1, threshold=1.0, scale=s), rows)
    }
    labelled = [row for row in read(tmp_path) if row["label"] is not None]
    assert {row["id"] for row in labelled} == found
    assert min(row["score"] for row in labelled) >= 1 - 1e-6  # type: ignore[type-var, operator]


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    rows = make_rows(make_vectors(500))
    asked: list[int] = []

    def dying(ids: Int64) -> Sequence[str]:
        asked.extend(ids.tolist())
        if len(asked) > 200:
            raise KeyboardInterrupt
        return keys(ids)

    with pytest.raises(KeyboardInterrupt):
        label(rows, labelling(), tmp_path / "a", dying, part_rows=100)
    left = sorted(p.name for p in (tmp_path / "a").glob("labels*"))
    assert left == ["labels.json", "labels_000000.parquet", "labels_000001.parquet"]
    before = (tmp_path / "a" / left[1]).stat().st_mtime_ns
    counts = label(rows, labelling(), tmp_path / "a", keys, part_rows=100)
    assert (tmp_path / "a" / left[1]).stat().st_mtime_ns == before
    assert counts == label(rows, labelling(), tmp_path / "b", keys, part_rows=100)
    assert read(tmp_path / "a") == read(tmp_path / "b")


def test_labels_of_another_job_are_refused(tmp_path: Path) -> None:
    rows = make_rows(make_vectors(100))
    label(rows, labelling(), tmp_path, keys)
    label(rows, labelling(), tmp_path, keys)
    for other_rows, what, part_rows in (
        (rows, labelling(2), 10**6),
        (rows, labelling(reject=True), 10**6),
        (make_rows(make_vectors(101)), labelling(), 10**6),
        (rows, labelling(), 50),
    ):
        with pytest.raises(InputError, match="another folder"):
            label(other_rows, what, tmp_path, keys, part_rows=part_rows)
    (tmp_path / "labels.json").unlink()
    with pytest.raises(InputError, match="another folder"):
        label(rows, labelling(), tmp_path, keys)


def test_csv(tmp_path: Path) -> None:
    rows = make_rows(make_vectors(100))
    label(rows, labelling(reject=True, threshold=0.3), tmp_path / "out", keys, part_rows=30)
    to_csv(tmp_path / "out", tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    written = read(tmp_path / "out")
    assert [int(row["id"]) for row in table] == [row["id"] for row in written]
    assert [row["label"] or None for row in table] == [row["label"] for row in written]


def test_filter_ids() -> None:
    rows = make_rows(make_vectors(400))
    c = make_class("c", 2, 1)
    for scale in (None, Background(everything(rows)[1]).scale(c)):
        question = Question(c, 1, threshold=0.2, scale=scale)
        pairs = [
            (int(i), float(s)) for ids, scores in filter_ids(question, rows) for i, s in zip(ids, scores, strict=True)
        ]
        assert [i for i, _ in pairs] == sorted(i for _, i, _ in loop(question, rows))
        assert min(s for _, s in pairs) >= 0.2 - 1e-6


def test_an_empty_collection(tmp_path: Path) -> None:
    assert label(Rows(16, []), labelling(), tmp_path, keys) == {"class 0": 0, "class 1": 0, "class 2": 0}


def test_vectors_and_classes_must_agree() -> None:
    a = make_class("a", 2, 0)
    with pytest.raises(InputError, match="names"):
        Labelling((a,), (MetaClass("b", ["x", "y"]),))
    with pytest.raises(InputError, match="each of its examples"):
        Labelling((a,), (MetaClass("a", ["x"]),))
