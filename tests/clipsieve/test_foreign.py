import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve import shards
from clipsieve.errors import CollectionDamaged, CollectionReadOnly
from clipsieve.manifest import Manifest
from clipsieve.types import ModelId
from clipsieve.whole import verify
from clipsieve.writer import open_writer


def write(folder, part, rows, first, text=False, **columns):
    for kind in ("img_emb", "text_emb")[: 1 + text]:
        (folder / kind).mkdir(exist_ok=True)
        values = np.arange(first, first + rows, dtype=np.float16)[:, None] * np.ones((1, 4), np.float16)
        np.save(folder / kind / f"{kind}_{part}.npy", values)
    (folder / "metadata").mkdir(exist_ok=True)
    columns = columns or {"image_path": [f"{first + i}.jpg" for i in range(rows)]}
    pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{part}.parquet")


def test_rows_count_in_lexicographic_order(tmp_path):
    write(tmp_path, "2", 1, first=3)
    write(tmp_path, "10", 2, first=1)
    write(tmp_path, "0", 1, first=0)
    manifest = shards.open_manifest(tmp_path)
    assert (manifest.read_only, manifest.model, manifest.dim, manifest.rows) == (True, None, 4, 4)
    rows = np.concatenate([shards.open_array(tmp_path, s) for s in manifest.shards])
    ids = np.concatenate([shards.read_ids(tmp_path, s) for s in manifest.shards])
    keys = [k for s in manifest.shards for k in shards.read_metadata(tmp_path, s)["key"].to_pylist()]
    assert rows[:, 0].tolist() == ids.tolist() == [0, 1, 2, 3]
    assert keys == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert verify(tmp_path, manifest) == {}


def test_its_own_id_column_is_not_taken_for_ours(tmp_path):
    write(tmp_path, "0", 3, 0, text=True, id=[7, 8, 9], url=["u", None, "w"], caption=["a", None, ""])
    (shard,) = shards.open_manifest(tmp_path).shards
    table = shards.read_metadata(tmp_path, shard, ["id", "key", "has_caption"])
    assert table.to_pydict() == {
        "id": [0, 1, 2],
        "key": ["u", "metadata_0.parquet#1", "w"],
        "has_caption": [True, False, False],
    }


def test_vectors_alone_will_do(tmp_path):
    write(tmp_path, "0", 2, 0)
    (tmp_path / "metadata" / "metadata_0.parquet").unlink()
    (shard,) = shards.open_manifest(tmp_path).shards
    assert shards.read_metadata(tmp_path, shard)["key"].to_pylist() == ["img_emb_0.npy#0", "img_emb_0.npy#1"]


def test_a_partner_is_missing(tmp_path):
    write(tmp_path, "0", 1, 0)
    write(tmp_path, "1", 1, 1)
    (tmp_path / "metadata" / "metadata_1.parquet").unlink()
    with pytest.raises(CollectionDamaged, match=r"no metadata_1\.parquet"):
        shards.open_manifest(tmp_path)


def test_partners_differ_in_rows(tmp_path):
    write(tmp_path, "0", 2, 0, image_path=["a.jpg"])
    with pytest.raises(CollectionDamaged, match=r"img_emb_0.npy 2, metadata_0.parquet 1"):
        shards.open_manifest(tmp_path)


def test_opens_for_reading_only(tmp_path):
    write(tmp_path, "0", 1, 0)
    with pytest.raises(CollectionReadOnly), open_writer(tmp_path, Manifest(ModelId("mini", "", ""), 4)):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["img_emb", "metadata"]


def test_captions_may_be_float32_beside_images_in_float16(tmp_path):
    write(tmp_path, "0", 2, 0, text=True)
    np.save(tmp_path / "text_emb" / "text_emb_0.npy", np.eye(2, 4, dtype=np.float32))
    manifest = shards.open_manifest(tmp_path)
    assert manifest.dtype == "float16"
    assert shards.open_array(tmp_path, manifest.shards[0], "text_emb").dtype == np.float32
    np.save(tmp_path / "text_emb" / "text_emb_0.npy", np.eye(2, 4))
    with pytest.raises(CollectionDamaged, match="holds float64"):
        shards.open_manifest(tmp_path)
