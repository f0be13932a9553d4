import hashlib
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsieve.errors import CollectionDamaged, CollectionError, CollectionMissing, InputError, ModelMismatch
from clipsieve.manifest import NAME, File, Index, Manifest, Probe, Shard, Source, commit, read_manifest
from clipsieve.types import ModelId

MODEL = ModelId("mini", "abc", "224")
counts = st.integers(0, 5)


def source(read, skipped, cursor, input="in", partition=0, partitions=1):
    return Source(input, cursor, read, read - skipped, skipped, partition, partitions)


def full(rng):
    file = {"img_emb": File("img_emb/img_emb_000000.npy", 12, "ff")}
    return Manifest(
        MODEL,
        8,
        licence="MIT",
        next_id=2**62,
        next_shard=4,
        shards=(Shard(3, 2, 5, 9, file, source(3, 1, 3)),),
        indices=(Index("image", "flat", {"nprobe": 4}, (3,), 2, 0.97, file),),
        probe=Probe(rng.standard_normal((3, 8)).astype(np.float32), None),
        background=(5, 9),
        retired=(source(7, 0, 7, "old"),),
    )


def test_comes_back_as_committed(tmp_path):
    made = full(np.random.default_rng(0))
    commit(tmp_path, made)
    assert read_manifest(tmp_path) == made
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


def test_a_failed_commit_leaves_the_last_one(tmp_path, monkeypatch):
    commit(tmp_path, Manifest(MODEL, 8))
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        commit(tmp_path, Manifest(MODEL, 9))
    assert read_manifest(tmp_path).dim == 8
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


def test_a_made_up_manifest_is_never_written(tmp_path):
    with pytest.raises(InputError, match="read-only"):
        commit(tmp_path, Manifest(None, 8, read_only=True))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format_version": 1, "model": 3}'])
def test_damage_is_named(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(CollectionDamaged, match=NAME):
        read_manifest(tmp_path)


def test_an_unknown_field_is_not_dropped_in_silence(tmp_path):
    commit(tmp_path, Manifest(MODEL, 8))
    value = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps(value | {"colour": "red"}))
    with pytest.raises(CollectionDamaged, match="checksum disagrees"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda v: v["shards"][0]["files"]["img_emb"].update(path="../../etc/passwd"), "File.path"),
        (lambda v: v["shards"][0]["files"]["img_emb"].update(path="/etc/passwd"), "File.path"),
        (lambda v: v["shards"][0]["files"]["img_emb"].update(path="a\0b"), "File.path"),
        (lambda v: v["shards"][0]["files"]["img_emb"].update(path="\ud800"), "File.path"),
        (lambda v: v["shards"][0]["files"]["img_emb"].update(path="a" * 256), "File.path"),
        (lambda v: v["shards"][0]["files"]["img_emb"].update(size=-1), "File.size"),
        (lambda v: v["shards"][0].update(first_id="0"), "Shard.first_id"),
        (lambda v: v["shards"][0].update(last_id=2**63), "Shard.last_id"),
        (lambda v: v["shards"][0].update(replaces=[None]), "Shard.replaces"),
        (lambda v: v["shards"].append({**v["shards"][0], "number": 4}), "overlap"),
        (lambda v: v["indices"][0].update(shards=[True]), "Index.shards"),
        (lambda v: v.update(next_id=1.5), "Manifest.next_id"),
        (lambda v: v.update(background=[[]]), "Manifest.background"),
    ],
)
def test_a_manifest_whose_checksum_is_right_is_checked_all_the_same(tmp_path, change, named):
    commit(tmp_path, full(np.random.default_rng(0)))
    value = json.loads((tmp_path / NAME).read_text())
    del value["checksum"]
    change(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    (tmp_path / NAME).write_text(json.dumps({**value, "checksum": hashlib.sha256(text.encode()).hexdigest()}))
    with pytest.raises(CollectionDamaged, match=named):
        read_manifest(tmp_path)


def test_a_newer_format_is_not_called_damaged(tmp_path):
    (tmp_path / NAME).write_text('{"format_version": 99}')
    with pytest.raises(CollectionError, match="upgrade") as caught:
        read_manifest(tmp_path)
    assert not isinstance(caught.value, CollectionDamaged)


def test_no_manifest(tmp_path):
    with pytest.raises(CollectionMissing, match=NAME):
        read_manifest(tmp_path)


@given(counts, counts, counts, st.integers(0, 15))
def test_read_is_embedded_plus_skipped(read, embedded, skipped, cursor):
    if read == embedded + skipped and cursor >= read:
        Source("in", cursor, read, embedded, skipped)
    else:
        with pytest.raises(InputError):
            Source("in", cursor, read, embedded, skipped)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.booleans())))
def test_progress_adds_up_per_partition(steps):
    """Whatever the order of commits, and whether a shard was compacted since."""
    cursors, shards, retired = [0, 0, 0], [], []
    for number, (partition, read, compacted) in enumerate(steps):
        cursors[partition] += read
        part = source(read, 1, cursors[partition], partition=partition, partitions=3)
        if compacted:
            retired.append(part)
        else:
            shards.append(Shard(number, 0, -1, -1, {}, part))
    manifest = Manifest(MODEL, 8, shards=tuple(shards), retired=tuple(retired))
    for partition in range(3):
        total = manifest.progress("in", partition, 3)
        assert total.cursor == total.read == cursors[partition]
        assert total.skipped == sum(p == partition for p, _, _ in steps)
    assert manifest.progress("another").cursor == 0


def test_probe_tells_models_apart():
    eye = np.eye(3, 8, dtype=np.float32)
    near = eye + np.float32(1e-3)
    Probe(eye, eye).require(Probe(near / np.linalg.norm(near, axis=1, keepdims=True)))
    with pytest.raises(ModelMismatch, match="probe texts"):
        Probe(eye, eye).require(Probe(eye, np.roll(eye, 1, axis=1)))
    with pytest.raises(ModelMismatch, match="9 dimensions"):
        Probe(eye).require(Probe(np.eye(3, 9, dtype=np.float32)))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.slow
def test_no_flipped_bit_and_no_lost_end_is_believed(tmp_path, data):
    commit(tmp_path, Manifest(MODEL, 8, next_id=17, background=(1, 5, 9), licence="mit"))
    whole = (tmp_path / NAME).read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    cut = whole[: data.draw(st.integers(0, len(whole) - 2))]  # without its last newline it is whole still
    for damaged in (bytes(flipped), cut):
        (tmp_path / NAME).write_bytes(damaged)
        if damaged[:-1] != whole[:-1]:
            with pytest.raises(CollectionError, match=r"clipsieve\.json"):
                read_manifest(tmp_path)
