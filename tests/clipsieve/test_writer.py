import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve import shards
from clipsieve.errors import CollectionLocked, CollectionMissing, InputError, ModelMismatch, NotFound
from clipsieve.manifest import Manifest, Source
from clipsieve.types import Embeddings, ModelId, Skipped
from clipsieve.whole import verify
from clipsieve.writer import open_writer

MODEL = ModelId("mini", "abc", "224")
NEW = Manifest(MODEL, 8)


def embeddings(n, d=8, model=MODEL):
    return Embeddings(np.tile(np.eye(1, d, dtype=np.float32), (n, 1)), tuple(map(str, range(n))), model)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=4))
@settings(max_examples=15, deadline=None)
@pytest.mark.slow
def test_every_item_is_counted_once_over_several_runs(tmp_path_factory, runs):
    """Each run reopens the folder, goes on from the recorded cursor, and commits one shard."""
    folder = tmp_path_factory.mktemp("runs")
    expected_ids = 0
    with open_writer(folder, NEW):
        pass
    for n, bad in runs:
        if n + bad == 0:
            continue
        with open_writer(folder, NEW) as writer:
            cursor = writer.manifest.progress("in").cursor + n + bad
            skipped = [Skipped("x", "Broken.")] * bad
            shard = writer.append(embeddings(n), skipped=skipped, source=Source("in", cursor, n + bad, n, bad))
        if n:
            assert (shard.first_id, shard.last_id) == (expected_ids, expected_ids + n - 1)
        expected_ids += n
    manifest = shards.open_manifest(folder)
    assert manifest.rows == manifest.next_id == manifest.progress("in").embedded == sum(n for n, _ in runs)
    assert manifest.progress("in").cursor == sum(n + bad for n, bad in runs)
    assert verify(folder, manifest) == {}


def test_ids_and_shard_numbers_never_come_again(tmp_path):
    with open_writer(tmp_path, NEW) as writer:
        writer.append(embeddings(3))
        # as compaction would, with everything removed
        writer.commit(Manifest(MODEL, 8, next_id=3, next_shard=1))
        shard = writer.append(embeddings(1))
        assert (shard.first_id, shard.number) == (3, 1)
        with pytest.raises(InputError, match="again"):
            writer.commit(NEW)


def test_one_writer(tmp_path):
    with open_writer(tmp_path, NEW), pytest.raises(CollectionLocked), open_writer(tmp_path):
        pass


def test_garbage_goes_and_what_is_not_ours_stays(tmp_path):
    with open_writer(tmp_path, NEW) as writer:
        writer.append(embeddings(1))
    ours = ["img_emb/img_emb_000001.npy", "img_emb/.img_emb_000002.npy.tmp", ".clipsieve.json.tmp"]
    theirs = ["img_emb/notes.txt", "metadata/img_emb_000009.npy", ".secret.tmp", "sets/a.json"]
    (tmp_path / "sets").mkdir()
    for path in ours + theirs:
        (tmp_path / path).write_text("x")
    assert verify(tmp_path, shards.open_manifest(tmp_path)) == {}
    with open_writer(tmp_path):
        pass
    assert [p for p in ours if (tmp_path / p).exists()] == []
    assert [p for p in theirs if not (tmp_path / p).exists()] == []
    assert shards.open_manifest(tmp_path).rows == 1
    assert verify(tmp_path, shards.open_manifest(tmp_path)) == {}


def test_an_append_that_fails_commits_nothing(tmp_path, monkeypatch):
    with open_writer(tmp_path, NEW) as writer:
        before = writer.manifest
        monkeypatch.setattr("pyarrow.parquet.write_table", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            writer.append(embeddings(1))
        assert writer.manifest == before
    assert shards.open_manifest(tmp_path) == before


def test_removed_ids(tmp_path):
    with open_writer(tmp_path, NEW) as writer:
        writer.append(embeddings(5))
        writer.remove([4, 1])
        writer.remove([1])
        writer.remove([])
        with pytest.raises(NotFound, match="no item 5"):
            writer.remove([0, 5])
    assert shards.read_removed(tmp_path, writer.manifest).tolist() == [1, 4]


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"images": embeddings(2, model=ModelId("other", "abc", "224"))}, ModelMismatch, "'other'"),
        ({"images": embeddings(2, d=4)}, InputError, "4 dimensions"),
        ({"images": embeddings(0)}, InputError, "no items"),
        ({"texts": embeddings(1)}, InputError, "keys"),
        ({"captions": ["a"]}, InputError, "'caption' has 1 values for 2"),
        ({"columns": {"id": [1, 2]}}, InputError, "'id' is taken"),
        ({"columns": {"size": [1, "x"]}}, InputError, "'size' mixes types"),
        ({"source": Source("in", 3, 3, 3, 0)}, InputError, "3 embedded"),
    ],
)
def test_append_refuses(tmp_path, fields, error, says):
    with open_writer(tmp_path, NEW) as writer:
        with pytest.raises(error, match=says):
            writer.append(**({"images": embeddings(2)} | fields))
        assert writer.manifest == NEW
    assert not (tmp_path / "img_emb").exists()


def test_a_folder_keeps_its_model(tmp_path):
    with pytest.raises(CollectionMissing), open_writer(tmp_path):
        pass
    with open_writer(tmp_path, NEW):
        pass
    with pytest.raises(ModelMismatch), open_writer(tmp_path, Manifest(ModelId("other", "", ""), 8)):
        pass
    with pytest.raises(InputError, match="not 9"), open_writer(tmp_path, Manifest(MODEL, 9)):
        pass


WRITE_FOR_EVER = """
import sys
import numpy as np
from clipsieve.manifest import Manifest, Source
from clipsieve.types import Embeddings, ModelId
from clipsieve.writer import open_writer

model = ModelId("mini", "abc", "224")
items = Embeddings(np.tile(np.eye(1, 8, dtype=np.float32), (50, 1)), tuple(map(str, range(50))), model)
with open_writer(sys.argv[1], Manifest(model, 8)) as writer:
    print("writing", flush=True)
    while True:
        cursor = writer.manifest.progress("in").cursor + 50
        writer.append(items, source=Source("in", cursor, 50, 50, 0))
"""


@pytest.mark.slow
def test_a_writer_killed_anywhere_leaves_a_whole_collection(tmp_path):
    """And the next one takes its lock and goes on."""
    rng = random.Random(0)
    rows = 0
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"writing\n"
            time.sleep(rng.uniform(0, 0.3))
            child.send_signal(signal.SIGKILL)
        manifest = shards.open_manifest(tmp_path)
        assert verify(tmp_path, manifest) == {}
        assert manifest.rows == manifest.progress("in").cursor == manifest.next_id >= rows
        rows = manifest.rows
    assert rows > 0
