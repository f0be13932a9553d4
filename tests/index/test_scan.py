import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.errors import InputError, NotFound
from clipsieve.index import scan
from clipsieve.index.calibrate import Background
from clipsieve.index.rule import Question, compile_classes, maxima, rank_score, settle
from clipsieve.index.scan import Rows, contains, scan_label, scan_threshold, scan_topk
from tests.index.made import as_items, best_of, everything, group_by, loop, make_class, make_rows, make_vectors


@st.composite
def questions(draw: st.DrawFn) -> tuple[Question, Rows]:
    """A random question to a random small collection."""
    seed, ties = draw(st.integers(0, 10**6)), draw(st.booleans())
    vectors = make_vectors(draw(st.sampled_from([0, 1, 40, 300])), 8, seed, ties)
    rows = make_rows(vectors, seed, removed=draw(st.sampled_from([0, 0.3])), half=draw(st.booleans()))
    c = make_class("c", draw(st.integers(1, 3)), draw(st.integers(0, 3)), 8, seed, ties)
    ids, live = everything(rows)
    pick = np.random.default_rng(seed)
    calibrated = draw(st.booleans()) and len(live) >= 20
    return Question(
        c,
        k=draw(st.sampled_from([1, 3, 20, 1000])),
        threshold=draw(st.sampled_from([None, 0.25, -0.125, 0.5])),
        only=draw(st.sampled_from([None, pick.permutation(ids)[: len(ids) // 2], np.array([3, 10**9])])),
        without=draw(st.sampled_from([None, ids[::3], np.array([10**9])])),
        groups=draw(st.sampled_from([None, group_by(5)])),
        scale=Background(live).scale(c) if calibrated else None,
        view=draw(st.sampled_from(["matched", "matched", "rejected", "below"])),
    ), rows


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
    rows = make_rows(make_vectors(900, ties=True))
    for groups in (None, group_by(7)):
        question = Question(make_class("c", 2, 2, ties=True), 25, groups=groups)
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


def files(folder: Path, vectors: npt.NDArray[np.floating]) -> Rows:
    """Two memory-mapped shards."""
    blocks = []
    for number, part in enumerate(np.array_split(vectors, 2)):
        np.save(folder / f"{number}.npy", part)
        start = number * 1000
        blocks.append((range(start, start + len(part)), np.load(folder / f"{number}.npy", mmap_mode="r")))
    return Rows(vectors.shape[1], blocks, np.array([2, 1001]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_memory_maps_read_as_arrays(tmp_path: Path, dtype: type) -> None:
    vectors: npt.NDArray[np.floating] = make_vectors(101).astype(dtype)
    rows = files(tmp_path, vectors)
    assert (rows.count, rows.dtype) == (99, dtype)
    ids, read = everything(rows)
    keep = np.delete(np.arange(101), [2, 52])
    np.testing.assert_array_equal(read, vectors[keep].astype(np.float32))
    for size in (1, 7, 64):
        np.testing.assert_array_equal(np.concatenate([v.copy() for _, v in rows.blocks(size)]), read)
    backwards = ids[::-1]
    np.testing.assert_array_equal(rows.take(backwards), read[::-1])
    only = np.concatenate([ids[::5], [1001, 5000]])
    np.testing.assert_array_equal(np.concatenate([v.copy() for _, v in rows.blocks(4, only)]), read[::5])


def test_reads_the_same_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = files(tmp_path, make_vectors(101).astype(np.float16))
    monkeypatch.setattr(scan, "TORCH_PAYS", 0)
    with_torch = everything(rows)[1]
    monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` fail
    np.testing.assert_array_equal(everything(rows)[1], with_torch)


def test_spans_cover_every_row_once() -> None:
    rows = make_rows(make_vectors(100), shards=5)
    ids, _ = everything(rows)
    for size in (1, 7, 33, 100, 1000):
        spans = rows.spans(size)
        parts = [np.concatenate([i for i, _ in rows.blocks(10, span=s)] or [ids[:0]]) for s in spans]
        np.testing.assert_array_equal(np.concatenate(parts), ids)
        assert len(spans) == -(-100 // size)
        assert max(map(len, parts)) <= size
    inner = np.concatenate([i for i, _ in rows.blocks(only=ids[::2], span=rows.spans(33)[1])])
    assert set(inner) <= set(ids[::2])
    assert Rows(4, []).spans(5) == []


@pytest.mark.parametrize("count", [0, 1, 30, 88, 200])
def test_sample(count: int) -> None:
    rows = make_rows(make_vectors(100), removed=0.3)
    sample = rows.sample(count, seed=1)
    assert len(sample) == min(count, rows.count)
    assert (np.diff(sample) > 0).all()
    assert rows.has(sample).all()
    np.testing.assert_array_equal(sample, rows.sample(count, seed=1))


def test_a_sample_is_even() -> None:
    rows = Rows(4, [(range(1000), np.zeros((1000, 4), np.float32))], without=np.arange(500, 800))
    drawn = np.concatenate([rows.sample(100, seed) for seed in range(50)])
    assert 0.66 < (drawn < 500).mean() < 0.77  # 5 of 7


def test_unknown_and_removed_ids_are_not_found() -> None:
    rows = Rows(4, [(np.array([3, 5]), np.eye(4, dtype=np.float32)[:2])], without=np.array([5, 99]))
    assert rows.count == 1
    for bad in (0, 4, 5, 6, 99):
        with pytest.raises(NotFound, match=str(bad)):
            rows.take(np.array([3, bad]))
    assert rows.has(np.array([3, 4, 5])).tolist() == [True, False, False]


def test_every_float16_is_widened_as_numpy_does_it() -> None:
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(64, 1024)
    finite = numbers[np.isfinite(numbers)].reshape(62, 1024)
    for block in (finite, finite[::2], numbers, np.zeros((0, 8), np.float16)):  # the second with gaps between its rows
        wide = np.empty(block.shape, np.float32)
        scan.widen(block, wide)
        assert np.array_equal(wide.view(np.int32), block.astype(np.float32).view(np.int32))


def test_wrong_blocks() -> None:
    eye = np.eye(4, dtype=np.float32)
    for blocks in (
        [(range(3), eye)],
        [(range(4), eye.astype(np.float64))],
        [(range(4), eye[:, :3])],
        [(range(4), eye), (range(3, 7), eye)],
        [(np.array([0, 2, 1, 3]), eye)],
        [(range(0, 8, 2), eye)],
    ):
        with pytest.raises(InputError):
            Rows(4, blocks)


def test_contains() -> None:
    assert contains(np.array([1, 4]), np.array([0, 1, 4, 5])).tolist() == [False, True, True, False]
    assert contains(np.array([], np.int64), np.array([0, 1])).tolist() == [False, False]


@pytest.mark.slow
def test_memory_stays_under_a_gibibyte(tmp_path: Path) -> None:
    """Two million rows of 512 float16, 2 GB, labelled and searched in a process of its own."""
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from clipsieve.index.rule import Question, compile_classes
        from clipsieve.index.scan import Rows, scan_label, scan_topk
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
