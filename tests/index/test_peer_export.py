"""What is exported for clip-retrieval, read with faiss and pyarrow, and by clip-retrieval itself."""

import json
import subprocess

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.errors import InputError
from clipsieve.index.collection import open_collection
from clipsieve.index.peer_export import export_arrow, export_peer
from clipsieve.manifest import Manifest
from clipsieve.types import Embeddings, Example, MetaClass
from clipsieve.writer import open_writer
from tests.index.made import MODEL, make_vectors

N, DIM = 90, 16
VECTORS = make_vectors(N, DIM)
GONE = [0, 31, 89]
LIVE = [i for i in range(N) if i not in GONE]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos.clip"
    with open_writer(folder, Manifest(MODEL, DIM)) as writer:
        for cut in (slice(0, 40), slice(40, N)):
            names = tuple(f"{i}.jpg" for i in range(N)[cut])
            columns = {"width": list(range(N)[cut])} if cut.start else {}
            images = Embeddings(VECTORS[cut], names, MODEL)
            texts = Embeddings(np.ascontiguousarray(VECTORS[::-1][cut]), names, MODEL)
            writer.append(images, texts=texts, captions=names, image_paths=names, columns=columns)
        writer.remove(GONE)
    return folder


def test_it_opens_here_too(photos, tmp_path):
    out = tmp_path / "peer"
    assert export_peer(photos, out) == len(LIVE)
    assert json.loads((out / "indices_paths.json").read_text()) == {"photos.clip": str(out)}
    rows = np.concatenate([np.load(p) for p in sorted((out / "img_emb").iterdir())])
    np.testing.assert_allclose(rows, VECTORS[LIVE], atol=1e-3)
    for name in ("image", "text"):
        assert faiss.read_index(str(out / f"{name}.index")).ntotal == len(LIVE)
    table = pa.concat_tables([pq.read_table(p, partitioning=None) for p in sorted((out / "metadata").iterdir())],
                             promote_options="default")  # fmt: skip
    assert table["image_path"].to_pylist() == [f"{i}.jpg" for i in LIVE]
    with open_collection(out) as peer:
        hit = peer.search(MetaClass("x", [Example(image=5)]), k=1).hits[0]
        assert (hit.id, hit.key) == (5, f"{LIVE[5]}.jpg")
    with pytest.raises(InputError, match="not empty"):
        export_peer(photos, out)


def test_arrow(photos, tmp_path):
    assert export_arrow(photos, tmp_path / "arrow") == len(LIVE)
    files = sorted((tmp_path / "arrow").iterdir())
    table = pa.concat_tables([pa.ipc.open_file(str(p)).read_all() for p in files])
    assert table["key"].to_pylist() == [f"{i}.jpg" for i in LIVE]
    assert table["width"].to_pylist() == [i if i >= 40 else None for i in LIVE]


BEGIN = """
import importlib.util, json, sys, types
# Its __init__ imports the inference, and with it torch and wandb: the package is entered beside that.
package = types.ModuleType("clip_retrieval")
package.__path__ = list(importlib.util.find_spec("clip_retrieval").submodule_search_locations)
sys.modules["clip_retrieval"] = package
import numpy as np
from clip_retrieval import clip_back
folder = sys.argv[1]
"""

ASK = (
    BEGIN
    + """
queries, answers = np.load(sys.argv[2]), []
for how in ({}, {"use_arrow": True}, {"enable_hdf5": True}):
    for mapped in (False, True):
        at = sys.argv[3] if "use_arrow" in how else folder
        # load_clip_index without the weights of a model, which these questions do not need.
        indices = {m: clip_back.load_index(f"{folder}/{m}.index", mapped) for m in ("image", "text")}
        provider, _ = clip_back.load_metadata_provider(
            at, how.get("enable_hdf5", False), False, indices["image"], ["image_path", "caption"],
            how.get("use_arrow", False))
        options = dict.fromkeys(clip_back.ClipResource.__dataclass_fields__)
        options |= {"image_index": indices["image"], "text_index": indices["text"], "metadata_provider": provider,
                    "metadata_is_ordered_by_ivf": False, "columns_to_return": ["image_path", "caption"]}
        service = clip_back.KnnService(clip_resources={"x": clip_back.ClipResource(**options)})
        for modality in ("image", "text"):
            for query in queries:
                distances, ids = service.knn_search(
                    query[None], modality, 7, service.clip_resources["x"], False, False, False)
                rows = service.map_to_metadata(ids, distances, 7, provider, options["columns_to_return"])
                answers.append([modality, [row["image_path"] for row in rows]])
print(json.dumps(answers))
"""
)

INDEX = (
    BEGIN
    + """
from clip_retrieval.clip_index import clip_index
clip_index(folder, sys.argv[2], nb_cores=1)
provider = clip_back.load_metadata_provider(sys.argv[2], True, False, None, ["image_path", "caption"], False)
"""
)


@pytest.mark.slow
def test_clip_retrieval_finds_the_same(photos, tmp_path, their_python):
    export_peer(photos, tmp_path / "peer")
    export_arrow(photos, tmp_path / "arrows" / "metadata")
    queries = make_vectors(5, DIM, seed=9)
    np.save(tmp_path / "q.npy", queries)
    words = [tmp_path / "peer", tmp_path / "q.npy", tmp_path / "arrows"]
    said = subprocess.run([their_python, "-c", ASK, *words], check=True, capture_output=True, text=True)
    answers = json.loads(said.stdout.splitlines()[-1])
    assert len(answers) == 3 * 2 * 2 * len(queries)
    stored = {"image": VECTORS, "text": VECTORS[::-1]}
    for number, (modality, names) in enumerate(answers):
        scores = stored[modality][LIVE].astype(np.float16).astype(np.float64) @ queries[number % len(queries)]
        assert names == [f"{LIVE[i]}.jpg" for i in np.argsort(-scores)[:7]]


@pytest.mark.slow
def test_what_clip_retrieval_indexes_opens(photos, tmp_path, their_python):
    export_peer(photos, tmp_path / "peer")
    words = [tmp_path / "peer", tmp_path / "index"]
    subprocess.run([their_python, "-c", INDEX, *words], check=True, capture_output=True)
    for metadata in ("parquet", "hdf5"):
        if metadata == "hdf5":
            (tmp_path / "index" / "metadata").rename(tmp_path / "metadata")
        with open_collection(tmp_path / "index") as peer:
            assert peer.count == len(LIVE)
            hit = peer.search(MetaClass("x", [Example(image=5)]), k=1).hits[0]
            assert (hit.id, hit.key) == (5, f"{LIVE[5]}.jpg")
