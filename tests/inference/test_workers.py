"""Several who embed parts of one input into one folder at the same time."""

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.errors import InputError
from clipsieve.index.check import check
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.pending import TWICE
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.lock import writer_lock
from clipsieve.manifest import NAME, read_manifest
from clipsieve.shards import read_metadata, read_skipped
from tests.inference.pictures import jpeg, write_tree


def work(root, out, part, parts, embedder=None, **how):
    source = open_source(root, partition=part, partitions=parts)
    return embed_collection(source, embedder or FakeEmbedder(), out, waiting=pytest.fail, **how)


def keys_and_skips(out):
    """The keys of all items by id, and of all that was skipped; all counts and ids must be right."""
    manifest = read_manifest(out)
    assert check(out).problems == ()
    rows = [row for s in manifest.shards if s.rows for row in read_metadata(out, s, ["id", "key"]).to_pylist()]
    assert [row["id"] for row in rows] == list(range(len(rows)))
    skips = [skip for shard in manifest.shards for skip in read_skipped(out, shard)]
    assert sum(source.read for source in manifest.sources) == len(rows) + len(skips)
    return [row["key"] for row in rows], skips


@pytest.mark.slow
def test_many_commits_of_workers_at_once_lose_and_double_nothing(tmp_path):
    root = write_tree(tmp_path / "in", {**{f"{i:02}.jpg": jpeg(i) for i in range(40)}, "bad.jpg": b"?"})
    out = tmp_path / "c"
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(work, root, out, part, 4, batch_size=2, shard_size=2) for part in range(4)]
        assert sum(d.result().embedded for d in done) == 40
    keys, (skipped,) = keys_and_skips(out)
    assert sorted(keys) == [f"{i:02}.jpg" for i in range(40)]
    assert skipped.key == "bad.jpg"
    assert len(read_manifest(out).shards) == 21


class Meanwhile(FakeEmbedder):
    """While it embeds its first batch something else happens."""

    def __init__(self, out, happens):
        super().__init__()
        self._out, self._happens = out, happens

    def embed_tensors(self, batch):
        if (self._out / NAME).exists():  # else it is the probe
            happens, self._happens = self._happens, lambda: None
            happens()
        return super().embed_tensors(batch)


def make_tables(root):
    """Two tables, of which the second has two keys of the first, and one key twice."""
    root.mkdir()
    for name, keys in (("0.parquet", "abcd"), ("1.parquet", "xbydx")):
        images = [jpeg(ord(key)) for key in keys]
        pq.write_table(pa.table({"key": list(keys), "image": images}), root / name)
    return root


def test_no_lock_is_held_while_embedding_and_a_key_that_another_worker_took_is_skipped(tmp_path):
    root, out = make_tables(tmp_path / "in"), tmp_path / "c"

    def another():
        with writer_lock(out):
            pass
        assert work(root, out, 0, 2).embedded == 4

    mine = work(root, out, 1, 2, Meanwhile(out, another), batch_size=2)
    assert (mine.read, mine.embedded, mine.skipped) == (5, 2, 3)
    keys, skips = keys_and_skips(out)
    assert keys == [*"abcd", *"xy"]
    assert sorted(skip.key for skip in skips) == ["b", "d", "x"]
    assert {skip.reason for skip in skips} == {TWICE}
    assert work(root, out, 1, 2).before == 5


def test_two_workers_of_one_part_are_told_so(tmp_path):
    root = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(9)})
    out = tmp_path / "c"
    with pytest.raises(InputError, match=r"holds 5 inputs of part 0 of .* now and not 0; let only one process"):
        work(root, out, 0, 2, Meanwhile(out, lambda: work(root, out, 0, 2)), batch_size=2, shard_size=2)
    assert work(root, out, 0, 2).embedded == 0
    work(root, out, 1, 2)
    assert len(keys_and_skips(out)[0]) == 9


@pytest.mark.parametrize("parts", [2, 3])
def test_workers_that_began_at_once_with_different_inputs_are_told_so(tmp_path, parts):
    here, there = (write_tree(tmp_path / n, {f"{n}{i}.jpg": jpeg(i) for i in range(6)}) for n in "ab")
    out = tmp_path / "c"
    other = there if parts == 2 else here
    with pytest.raises(InputError, match="holds the input" if parts == 2 else "cut into 3, not 2"):
        work(here, out, 0, 2, Meanwhile(out, lambda: work(other, out, 1, parts)))
    assert len(keys_and_skips(out)[0]) == 6 // parts


WORKER = """
import sys
from benchmarks.faults import kill_before
from clipsieve import cli
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.parts import Parts
changes, folder, *words = sys.argv[1:]
if int(changes):
    kill_before(int(changes), folder)
cli.app(words, obj=Parts(lambda name, **_: FakeEmbedder(name=name)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("changes", [3, 11, 20, 26])
def test_four_processes_one_of_which_is_killed(tmp_path, changes):
    """SIGKILL right before a change of the folder: before its first commit, between two, within one."""
    root = write_tree(tmp_path / "in", {f"{i:02}.jpg": jpeg(i) for i in range(80)})
    out = tmp_path / "c"

    def start(part, changes=0):
        words = [sys.executable, "-c", WORKER, str(changes), out, "inference.worker", root, out, "--model", "fake"]
        sizes = ["--batch-size", "5", "--shard-size", "5"]
        return subprocess.Popen([*words, "--partitions", "4", "--tasks", str(part), *sizes])

    running = [start(part, changes if part == 2 else 0) for part in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, -9, 0]
    committed = keys_and_skips(out)[0]
    assert 60 <= len(committed) < 80
    assert start(2).wait(60) == 0
    keys, skips = keys_and_skips(out)
    assert sorted(keys) == [f"{i:02}.jpg" for i in range(80)]
    assert keys[: len(committed)] == committed  # under the same ids
    assert not skips
    numbers = [shard.number for shard in read_manifest(out).shards]
    assert all(a < b for a, b in itertools.pairwise(numbers))
