import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from clipsieve.errors import InputError, NotFound
from clipsieve.index import rows as rows_module
from clipsieve.index.rows import Rows, contains, widen
from tests.index.made import everything, make_rows, make_vectors


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
    monkeypatch.setattr(rows_module, "TORCH_PAYS", 0)
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
        widen(block, wide)
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
