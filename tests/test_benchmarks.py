"""The benchmarks run, keep what they measured, and the report says what that amounts to."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import demo_detector, report
from benchmarks.__main__ import ALL, APART
from benchmarks.figure import Figure
from benchmarks.measuring import alternate, unit_rows
from benchmarks.report import section
from benchmarks.search import make_question, make_rows, rejected

ROOT = Path(__file__).parent.parent
MINE = [name for name in ALL if name not in ("pipeline", "regions", "triton")]  # a model of 150M parameters, a server


@pytest.mark.slow
@pytest.mark.parametrize("name", MINE)
def test_a_quick_run_ends_well_and_keeps_every_timing(name, tmp_path):
    raw, scratch = tmp_path / "raw", tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", name, "--raw", raw, "--scratch", scratch]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stderr
    assert [path.name for path in raw.iterdir()] == [f"{name}.json"]
    assert [path for path in scratch.iterdir() if not path.name.startswith("torchinductor_")] == []  # torch's own
    record = json.loads((raw / f"{name}.json").read_text())
    assert (record["benchmark"], record["quick"]) == (name, True)
    assert {"cpu", "cores", "versions", "python", "when", "load_after"} <= set(record["machine"])
    assert "numpy" in record["machine"]["versions"]
    table = section(name, record)
    assert table in done.stdout
    assert "MISSED" not in table
    if name == "search":
        shares = [case["rejected"] for case in record["cases"].values()]
        assert shares == sorted(shares)
        assert shares[0] < 0.1
        assert shares[-1] == pytest.approx(0.99, abs=0.02)
    if name == "qdrant" and importlib.util.find_spec("qdrant_edge") is None:
        assert "not installed" in table


def test_every_benchmark_has_a_report_and_a_module():
    assert {*ALL, *APART} == set(report.FIGURES)
    for name in (*ALL, *APART):
        assert (ROOT / "benchmarks" / f"{name}.py").exists()


def test_every_benchmark_is_in_the_page():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {*ALL, *APART}


def test_competitors_alternate_and_no_timing_is_lost():
    calls: list[str] = []
    seconds = alternate({name: partial(calls.append, name) for name in "abc"}, rounds=4)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4, "c": 4}
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc" + "bca"


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("x", 1.25, most=1.25), True),
        (Figure("x", 1.26, most=1.25, aim=1.15), False),
        (Figure("x", 3.0, least=3), True),
        (Figure("x", 2.9, least=3), False),
        (Figure("x", 2.9), None),
        (Figure("x", "not installed", least=3), None),
    ],
)
def test_a_target_is_met_or_missed(figure, met):
    assert figure.met is met


def made_record(label):
    seconds = {"product_numpy_blocks": [1.0, 1.0, 9.0], "product_torch_whole": [2.0] * 3, "label": label}
    seconds |= {"label_float16_on_disk": [3.0] * 3, "flat_scatter_whole": [6.0] * 3, "flat_scatter_blocks": [5.0] * 3}
    return {"quick": False, "cases": {"100 x (10 + 10)": {"seconds": seconds}}}


def test_the_report_is_of_medians_over_the_fastest_floor():
    lines = section("labelling", made_record([1.2, 1.2, 50.0])).splitlines()
    assert "| labelling, 100 x (10 + 10): over the matrix product (product_numpy_blocks) | 1.2 | " in lines[4]
    assert lines[4].endswith("| at most 1.25, aim 1.15 | met |")
    assert lines[5].endswith("| 5 | at least 3 | met |")
    assert "MISSED" in section("labelling", made_record([1.3, 1.3, 1.0]))
    assert "MISSED" not in section("labelling", made_record([1.3] * 3) | {"quick": True})


def test_the_report_says_what_was_not_measured_and_what_it_cannot_read(tmp_path):
    assert report.report(tmp_path).count("not measured yet") == len(report.FIGURES)
    (tmp_path / "labelling.json").write_text(json.dumps({"quick": False}))
    assert "another version" in report.report(tmp_path, ["labelling"])


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_questions_reject_the_share_that_they_are_made_for(share):
    centres, vectors = make_rows(4_000, clusters=4)

    def near(positive):
        return vectors[np.argsort(-(vectors @ positive.T).max(axis=1))[:600]]

    question, reached = make_question(np.random.default_rng(0), centres, near, share)
    assert reached == pytest.approx(share, abs=0.01)
    examples = question.vectors
    assert rejected(near(examples.positive), examples.positive, examples.negative) == reached


def test_the_older_formulation_finds_the_same_maxima():
    torch = pytest.importorskip("torch")
    from benchmarks.labelling import scatter_maxima, sides_of
    from benchmarks.measuring import classes_of
    from clipsieve.index.rule import compile_classes, maxima, products

    rng = np.random.default_rng(0)
    vectors, compiled = unit_rows(rng, 50, 16), compile_classes(classes_of(rng, 7, 3, 2, 16))
    scores = (1 + torch.from_numpy(vectors) @ torch.from_numpy(compiled.matrix).T) / 2
    for found, expected in zip(
        scatter_maxima(scores, sides_of(compiled), 7), maxima(compiled, products(compiled, vectors)), strict=True
    ):
        np.testing.assert_allclose(2 * found.numpy().T - 1, expected, atol=1e-6)


def _found(*boxes: tuple[int, tuple[float, float, float, float], float]) -> demo_detector.Found:
    items, corners, scores = zip(*boxes, strict=True)
    return demo_detector.Found(np.array(items), np.array(corners, np.float32), np.array(scores))


def test_a_boxs_average_precision_is_cocos():
    square, shifted, away = (0.1, 0.1, 0.5, 0.5), (0.2, 0.1, 0.6, 0.5), (0.6, 0.6, 0.9, 0.9)
    truth = {0: np.array([square], np.float32), 3: np.array([square, away], np.float32)}
    every = [(0, square, 0.9), (3, shifted, 0.8), (3, away, 0.7)]  # shifted: intersection over union 0.6
    assert demo_detector.box_average_precision(_found(*every), truth) == pytest.approx(1)
    twice = _found((0, square, 0.9), (0, shifted, 0.8), (3, away, 0.7), (1, square, 0.6))
    # right, wrong (taken already), right, wrong: precision 1 up to recall 1/3, 2/3 up to 2/3, one object is missed
    assert demo_detector.box_average_precision(twice, truth) == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)


def test_two_answers_are_compared_where_they_find_as_much():
    square, away = (0.1, 0.1, 0.5, 0.5), (0.6, 0.6, 0.9, 0.9)
    truth = {0: np.array([square, away], np.float32)}
    plain = _found((0, square, 0.9), (2, square, 0.8), (4, square, 0.7), (0, away, 0.6), (5, square, 0.05))
    ruled = _found((0, square, 0.9), (0, away, 0.6), (4, square, 0.2), (5, square, 0.05))
    figures = demo_detector.compared(plain, ruled, truth)
    assert (figures["precision_0.9"], figures["precision_0.9_with"]) == (0.5, 1)  # what scores less is not counted
    assert (figures["precision_above_0.1"], figures["recall_above_0.1"]) == (0.5, 1)
    assert figures["precision_above_0.1_with"] == pytest.approx(2 / 3)
    vetoed = demo_detector.compared(plain, _found((0, square, 0.9)), truth)
    assert (vetoed["precision_0.9_with"], vetoed["recall_above_0.1_with"]) == (0, 0.5)
    assert demo_detector.precision_at(np.array([True, False, True]), 2, 0.5) == 1  # the first is half of them
