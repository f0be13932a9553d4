"""Vectors of other programs, imported by the command."""

import csv
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from clipsieve import cli, shards
from clipsieve.errors import InputError
from clipsieve.importing import import_vectors
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.parts import Parts
from clipsieve.vector_sources import NpySource, TarSource
from tests.index.made import make_vectors

N, DIM = 12, 8
VECTORS = make_vectors(N, DIM)


def run(*argv, code=0):
    result = CliRunner().invoke(cli.app, [str(a) for a in argv], obj=Parts(lambda name, **_: FakeEmbedder(DIM, name)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.stdout + result.stderr
    return result


def load(folder):
    manifest = shards.open_manifest(folder)
    parts = [s for s in manifest.shards if s.rows]
    vectors = np.concatenate([shards.open_array(folder, s) for s in parts])
    table = pa.concat_tables([shards.read_metadata(folder, s) for s in parts], promote_options="permissive")
    skipped = [one for s in manifest.shards for one in shards.read_skipped(folder, s)]
    assert sum(source.read for source in manifest.sources) == len(vectors) + len(skipped)
    return manifest, vectors, table, skipped


def test_npy_with_a_csv(tmp_path):
    rows = 3 * VECTORS
    rows[4], rows[7, 2] = 0, np.nan
    np.save(tmp_path / "v.npy", rows)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "caption", "id"), *((f"n{i}", f"c{i}", i * 10) for i in range(N))])
    out = tmp_path / "c"
    said = run("import", tmp_path / "v.npy", out, "--table", tmp_path / "t.csv", "--key-column", "name", "--json",
               "--model", "fake", "--shard-size", 5)  # fmt: skip
    assert json.loads(said.stdout) == {"read": 12, "written": 10, "skipped": 2, "before": 0, "kind": "npy",
                                       "folder": str(out)}  # fmt: skip
    manifest, vectors, table, skipped = load(out)
    kept = [i for i in range(N) if i not in (4, 7)]
    np.testing.assert_allclose(vectors, VECTORS[kept], atol=1e-3)
    assert table["key"].to_pylist() == [f"n{i}" for i in kept]
    assert table["caption"].to_pylist() == [f"c{i}" for i in kept]
    assert table["meta.id"].to_pylist() == [10 * i for i in kept]
    assert [(s.key, "zeros" in s.reason) for s in skipped] == [("n4", True), ("n7", False)]
    assert manifest.model == FakeEmbedder(DIM, "fake").model
    assert manifest.decoding == "own"
    again = json.loads(run("import", tmp_path / "v.npy", out, "--table", tmp_path / "t.csv", "--key-column", "name",
                           "--json").stdout)  # fmt: skip
    assert (again["written"], again["before"]) == (0, 12)
    assert run("search", out, "anything", "-k", 3).stdout


def test_a_stopped_import_goes_on(tmp_path):
    (tmp_path / "parts").mkdir()
    np.save(tmp_path / "parts" / "a.npy", VECTORS[:5].astype(np.float16))
    np.save(tmp_path / "parts" / "b.npy", VECTORS[5:].astype(np.float16))

    def stop(done, total, skipped):
        assert total == N
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_vectors(NpySource(tmp_path / "parts"), tmp_path / "c", shard_size=3, progress=stop)
    assert import_vectors(NpySource(tmp_path / "parts"), tmp_path / "c", shard_size=3).before == 3
    manifest, vectors, table, _ = load(tmp_path / "c")
    np.testing.assert_allclose(vectors, VECTORS, atol=2e-3)
    assert table["key"].to_pylist() == [f"a.npy#{i}" for i in range(5)] + [f"b.npy#{i}" for i in range(7)]
    assert manifest.model is None
    assert "give --model" in run("search", tmp_path / "c", "a text", code=2).stderr


def vector_table(kind):
    rows = [*VECTORS.tolist()[:-2], None, [1.0, 2.0]]
    return pa.table({"emb": pa.array(rows, kind), "text": [f"c{i}" for i in range(N)], "url": ["same"] * N})


@pytest.mark.parametrize("form", ["parquet", "file", "stream"])
def test_tables(tmp_path, form):
    table, folder = vector_table(pa.list_(pa.float32())), tmp_path / "saved"
    folder.mkdir()
    if form == "parquet":
        pq.write_table(table, folder / "x.parquet", row_group_size=5)
    else:
        with (pa.ipc.new_file if form == "file" else pa.ipc.new_stream)(str(folder / "x.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=5)
    run("import", folder, tmp_path / "c", "--shard-size", 4)
    manifest, vectors, rows, skipped = load(tmp_path / "c")
    assert [s.source.read for s in manifest.shards] == [4, 4, 4]  # whatever the table's own batches are
    np.testing.assert_allclose(vectors, VECTORS[:-2], atol=1e-3)
    assert rows["caption"].to_pylist() == [f"c{i}" for i in range(N - 2)]
    assert len(set(rows["key"].to_pylist())) == N - 2  # the urls are all one
    assert len(skipped) == 2


def test_tars(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for i, vector in enumerate(VECTORS):
            data = io.BytesIO()
            np.save(data, vector[None])
            content = b"no array" if i == 3 else data.getvalue()
            for suffix, part in (("npy", content), ("txt", f"c{i}".encode()), ("json", b'{"n": %d}' % i)):
                info = tarfile.TarInfo(f"d/{i:04}.{suffix}")
                info.size = len(part)
                tar.addfile(info, io.BytesIO(part))
    run("import", tmp_path / "x.tar", tmp_path / "c", "--shard-size", 5)
    _, vectors, table, skipped = load(tmp_path / "c")
    kept = [i for i in range(N) if i != 3]
    np.testing.assert_allclose(vectors, VECTORS[kept], atol=1e-3)
    assert table["n"].to_pylist() == kept
    assert table["key"].to_pylist()[0] == "x.tar/d/0000"
    assert [s.key for s in skipped] == ["x.tar/d/0003"]


def test_a_folder_of_clip_retrieval(tmp_path):
    peer = tmp_path / "peer"
    for kind in ("img_emb", "text_emb", "metadata"):
        (peer / kind).mkdir(parents=True)
    np.save(peer / "img_emb" / "img_emb_0.npy", VECTORS.astype(np.float16))
    texts = VECTORS[::-1].copy()
    texts[1] = 0
    np.save(peer / "text_emb" / "text_emb_0.npy", texts)
    captions = [None if i == 1 else f"c{i}" for i in range(N)]
    table = pa.table({"image_path": [f"{i}.jpg" for i in range(N)], "caption": captions, "w": range(N)})
    pq.write_table(table, peer / "metadata" / "metadata_0.parquet")
    run("import", peer, tmp_path / "c", "--shard-size", 5)
    run("import", peer, tmp_path / "c", "--shard-size", 5)  # for nothing, and with the same decoding
    manifest, vectors, rows, skipped = load(tmp_path / "c")
    assert not skipped
    assert manifest.decoding == shards.open_manifest(peer).decoding == "reference"
    np.testing.assert_allclose(vectors, VECTORS, atol=2e-3)
    assert rows.select(["key", "image_path", "w"]).to_pydict()["key"] == [f"{i}.jpg" for i in range(N)]
    mask = np.concatenate([shards.read_caption_mask(tmp_path / "c", s) for s in manifest.shards])
    assert mask.tolist() == [i != 1 for i in range(N)]
    own = np.concatenate([shards.open_array(tmp_path / "c", s, "text_emb") for s in manifest.shards])
    np.testing.assert_allclose(own[mask], texts[mask], atol=2e-3)


def test_what_cannot_be_imported(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "e").mkdir()
    np.save(tmp_path / "flat.npy", VECTORS[0])
    for words, why in (
        ([tmp_path / "v.npy", "--table", tmp_path / "t.jsonl"], "has 1 rows for 12 vectors"),
        ([tmp_path / "nothing.npy"], "does not exist"),
        ([tmp_path / "e"], "holds no vectors"),
        ([tmp_path / "flat.npy"], "shape"),
        ([tmp_path / "v.npy", "--key-column", "k"], "no column 'k'"),
        ([tmp_path / "v.npy", "--kind", "x"], "kind 'x'"),
    ):
        said = run("import", words[0], tmp_path / "c", *words[1:], code=2)
        assert why in said.stderr
    with pytest.raises(InputError, match="8 dimensions and the model 9"):
        import_vectors(NpySource(tmp_path / "v.npy"), tmp_path / "c", dim=9)
    assert not (tmp_path / "c").exists()


def test_lance(tmp_path):
    lance = pytest.importorskip("lance")
    lance.write_dataset(vector_table(pa.list_(pa.float32())), str(tmp_path / "x.lance"), max_rows_per_file=5)
    run("import", tmp_path / "x.lance", tmp_path / "c", "--shard-size", 4)
    _, vectors, rows, skipped = load(tmp_path / "c")
    np.testing.assert_allclose(vectors, VECTORS[:-2], atol=1e-3)
    assert rows["caption"].to_pylist() == [f"c{i}" for i in range(N - 2)]
    assert len(skipped) == 2


def test_a_tar_of_vectors_with_a_link_to_nothing(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        link = tarfile.TarInfo("a.npy")
        link.type, link.linkname = tarfile.LNKTYPE, "gone.npy"
        tar.addfile(link)
    with pytest.raises(InputError, match=r"x\.tar cannot be read to its end"):
        list(TarSource(tmp_path / "x.tar").blocks(0, 10))
