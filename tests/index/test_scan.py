import itertools
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from clipsieve.index import scan
from clipsieve.index.calibrate import Background
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question, Veto, compile_classes, maxima, rank_score, settle
from clipsieve.index.scan import scan_label, scan_threshold, scan_topk
from tests.index.made import (
    as_items,
    best_of,
    everything,
    group_by,
    loop,
    make_class,
    make_rows,
    make_vectors,
    questions,
)

VETOES: tuple[Veto, ...] = ("hard", "soft")


@given(questions())
@settings(max_examples=60, deadline=None)
def test_topk_is_the_loop(asked: tuple[Question, Rows]) -> None:
    question, rows = asked
    (ranked,), whole = scan_topk(rows, [question])
    assert whole
    assert as_items(ranked) == best_of(question, rows)


@given(questions())
@settings(max_examples=30, deadline=None)
def test_threshold_is_the_loop_in_id_order(asked: tuple[Question, Rows]) -> None:
    question, rows = asked
    found = [item for ranked in scan_threshold(rows, question) for item in as_items(ranked)]
    assert found == sorted(loop(question, rows), key=lambda item: item[1])


def test_topk_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "LEAST_ROWS", 16)
    monkeypatch.setattr(scan, "SCORES", 1)
    for ties, veto, groups in itertools.product([True, False], VETOES, [None, group_by(7)]):
        rows = make_rows(make_vectors(900, ties=ties))
        question = Question(make_class("c", 2, 2, ties=ties), 25, groups=groups, veto=veto)
        assert as_items(scan_topk(rows, [question])[0][0]) == best_of(question, rows)


def test_many_questions_in_one_pass() -> None:
    rows = make_rows(make_vectors(500))
    asked = [
        Question(make_class("same name", 2, 1, seed=1), 5),
        Question(make_class("same name", 1, 0, seed=2), 50, threshold=0.2),
        Question(make_class("c", 3, 3, seed=3), 7, only=rows.sample(60)),
        Question(
            make_class("d", 1, 1, seed=4), 7, scale=Background(everything(rows)[1]).scale(make_class("d", 1, 1, seed=4))
        ),
    ]
    together, _ = scan_topk(rows, asked)
    for question, ranked in zip(asked, together, strict=True):
        assert as_items(ranked) == best_of(question, rows)
    assert scan_topk(rows, []) == ([], True)


def test_a_deadline_ends_the_scan() -> None:
    (ranked,), whole = scan_topk(make_rows(make_vectors(50)), [Question(make_class("c", 1, 0), 5)], time.perf_counter())
    assert not whole
    assert len(ranked.ids) == 0


@pytest.mark.parametrize("ties", [False, True])
def test_labels_are_the_argmax_of_rank_score(ties: bool) -> None:
    rows = make_rows(make_vectors(400, ties=ties), half=True)
    classes = [make_class(str(j), 1 + j % 3, j % 4, seed=j, ties=ties) for j in range(6)]
    compiled = compile_classes(classes)
    ids, vectors = everything(rows)
    best, worst = maxima(compiled, settle(compiled, vectors))
    rank = rank_score(best, worst)
    blocks = list(scan_label(rows, compiled))
    label = np.concatenate([b.label for b in blocks])
    np.testing.assert_array_equal(np.concatenate([b.ids for b in blocks]), ids)
    np.testing.assert_array_equal(label, rank.argmax(axis=0))
    at = np.arange(len(ids))
    np.testing.assert_allclose(np.concatenate([b.best for b in blocks]), best[label, at], atol=1e-6)
    np.testing.assert_allclose(np.concatenate([b.worst for b in blocks]), worst[label, at], atol=1e-6)


def test_labels_with_thresholds() -> None:
    rows = make_rows(make_vectors(300))
    compiled = compile_classes([make_class(str(j), 2, 1, seed=j) for j in range(3)])
    _, vectors = everything(rows)
    best, worst = maxima(compiled, settle(compiled, vectors))
    least = [0.3, 0.2, 0.4]
    ok = (best > worst) & (best >= np.array(least, np.float32)[:, None])
    label = np.concatenate([b.label for b in scan_label(rows, compiled, least)])
    wanted = np.where(ok.any(axis=0), np.where(ok, best, -9).argmax(axis=0), -1)
    assert set(wanted) == {-1, 0, 1, 2}
    np.testing.assert_array_equal(label, wanted)


@pytest.mark.slow
def test_memory_stays_under_a_gibibyte(tmp_path: Path) -> None:
    """Two million rows of 512 float16, 2 GB, labelled and searched in a process of its own."""
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from clipsieve.index.rule import Question, compile_classes
        from clipsieve.index.rows import Rows
        from clipsieve.index.scan import scan_label, scan_topk
        from clipsieve.types import ClassVectors, ModelId
        n = 200_000
        array = np.lib.format.open_memmap(sys.argv[1], "w+", np.float16, (n, 512))
        array[:] = 0
        array[:, 0] = 1
        del array
        maps = [(range(i * n, i * n + n), np.load(sys.argv[1], mmap_mode="r")) for i in range(10)]
        rows = Rows(512, maps)
        classes = [ClassVectors(str(j), np.eye(512, dtype=np.float32)[j:j+2], np.eye(512, dtype=np.float32)[9:10],
                   ModelId("m", "0", "")) for j in range(4)]
        assert sum(len(b.ids) for b in scan_label(rows, compile_classes(classes))) == 10 * n
        assert scan_topk(rows, [Question(classes[1], 100)])[1]
        # not getrusage's: a process that another one started inherits that one's greatest
        peak = next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l)
        assert peak < 2**20, f"{peak} KiB"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "rows.npy")], check=True)
