import os
import shutil

import numpy as np
import pytest

from clipsieve import shards
from clipsieve.errors import CollectionDamaged
from clipsieve.manifest import Manifest, read_manifest
from clipsieve.types import Embeddings, ModelId
from clipsieve.whole import require_whole, verify
from clipsieve.writer import open_writer


@pytest.fixture
def folder(tmp_path):
    model = ModelId("mini", "abc", "224")
    three = Embeddings(np.eye(3, 8, dtype=np.float32), ("a", "b", "c"), model)
    with open_writer(tmp_path / "c", Manifest(model, 8)) as writer:
        writer.append(three, texts=three, captions=["a bus", None, "  "])
    return tmp_path / "c"


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_delete(path):
    path.unlink()


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_delete])
@pytest.mark.parametrize("role", ["img_emb", "text_emb", "metadata"])
def test_a_damaged_file_is_named(folder, role, damage):
    manifest = shards.open_manifest(folder)
    assert verify(folder, manifest) == {}
    require_whole(folder, manifest)
    path = manifest.shards[0].files[role].path
    damage(folder / path)
    ((named, problem),) = verify(folder, manifest).items()
    assert named == path
    assert problem.startswith(path)
    with pytest.raises(CollectionDamaged, match=rf"{path} .*check .* --repair"):
        require_whole(folder, manifest)
    with pytest.raises(CollectionDamaged, match=path), open_writer(folder):
        pass


def test_a_copy_is_compared_once(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    compared = []
    manifest = read_manifest(copy)
    require_whole(copy, manifest, lambda done, total: compared.append((done, total)))
    files = [file for shard in manifest.shards for file in shard.files.values()]
    assert len(compared) == len(files)
    assert compared[-1] == (sum(file.size for file in files),) * 2
    compared.clear()
    require_whole(copy, manifest, lambda done, total: compared.append((done, total)))
    assert compared == []


def test_what_changes_without_a_trace_is_found_by_verify_alone(folder):
    manifest = read_manifest(folder)
    file = manifest.shards[0].files["img_emb"]
    damage_flip(folder / file.path)
    os.utime(folder / file.path, ns=(file.mtime_ns, file.mtime_ns))
    require_whole(folder, manifest)
    assert list(verify(folder, manifest)) == [file.path]


def test_several_damaged_files_are_counted(folder):
    manifest = read_manifest(folder)
    for file in manifest.shards[0].files.values():
        damage_flip(folder / file.path)
    with pytest.raises(CollectionDamaged, match=r"\(2 more of its files are damaged\.\)"):
        require_whole(folder, manifest)
