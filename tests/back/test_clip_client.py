"""clip-retrieval's own client against a running service, and ours beside it."""

import inspect
import json
import subprocess

import pytest

import clipsieve
from clipsieve import Client
from clipsieve.inference.embedder import load_embedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from tests.back.service import running
from tests.inference.pictures import jpeg, write_tree
from tests.inference.text_models import make_sentence_folder

ASK = """
import importlib.util, inspect, json, sys, types
# Its __init__ imports the inference, and with it torch and wandb: the package is entered beside that.
package = types.ModuleType("clip_retrieval")
package.__path__ = list(importlib.util.find_spec("clip_retrieval").submodule_search_locations)
sys.modules["clip_retrieval"] = package
from clip_retrieval.clip_client import ClipClient, Modality
url, image = sys.argv[1:]
ask = {m: ClipClient(url=f"{url}/knn-service", indice_name="photos", modality=m, num_images=5).query for m in Modality}
vector = json.load(sys.stdin)
print(json.dumps([
    ask[Modality.IMAGE](text="red"),
    ask[Modality.IMAGE](image=image),
    ask[Modality.IMAGE](embedding_input=vector),
    ask[Modality.TEXT](text="number 3"),
    ClipClient(url=f"{url}/knn-service", indice_name="nobody").query(text="red"),
    {p.name: None if p.default is p.empty else getattr(p.default, "value", p.default)
     for f in (ClipClient, ClipClient.query) for p in inspect.signature(f).parameters.values()},
]))
"""


@pytest.mark.slow
def test_its_client_works_unchanged(tmp_path, their_python):
    files = {f"{i}.jpg": jpeg(i) for i in range(12)} | {f"{i}.txt": f"number {i}".encode() for i in range(12)}
    root, folder = write_tree(tmp_path / "in", files), tmp_path / "photos.clip"
    mini = load_embedder("mini")
    embed_collection(open_source(root), mini, folder)
    vector = mini.embed_images([jpeg(7)])[0].tolist()
    with running(folder) as service:
        words = [their_python, "-c", ASK, service.url, str(root / "4.jpg")]
        said = subprocess.run(words, input=json.dumps(vector), check=True, capture_output=True, text=True)
        with Client(f"{service.url}/knn-service", "photos", num_images=5) as client:
            ours = [client.query(text="red"), client.query(image=root / "4.jpg"), client.query(embedding_input=vector)]
    *theirs, by_caption, refused, signatures = json.loads(said.stdout)
    by_text, by_image, by_vector = theirs
    assert ours == theirs
    assert signatures == {
        name: getattr(p.default, "value", None if p.default is p.empty else p.default)
        for function in (Client, Client.query)
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is not p.KEYWORD_ONLY
    }
    assert len(by_text) == 5
    assert set(by_text[0]) == {"image_path", "caption", "image", "id", "similarity"}
    assert by_image[0]["caption"] == "number 4"
    assert by_image[0]["similarity"] == pytest.approx(1, abs=1e-2)
    assert by_vector[0]["caption"] == "number 7"
    assert by_caption[0]["caption"] == "number 3"
    assert "there is photos" in refused["message"]


MULTILINGUAL = """
import importlib.util, json, sys, types
package = types.ModuleType("clip_retrieval")
package.__path__ = list(importlib.util.find_spec("clip_retrieval").submodule_search_locations)
sys.modules["clip_retrieval"] = package
from clip_retrieval.clip_client import ClipClient
client = ClipClient(url=f"{sys.argv[1]}/knn-service", indice_name="photos", num_images=5, use_mclip=True)
print(json.dumps(client.query(text="dog")))
"""


@pytest.mark.slow
def test_its_client_asks_in_other_languages(tmp_path, their_python):
    from sentence_transformers import SentenceTransformer

    files = {f"{i}.jpg": jpeg(i) for i in range(12)}
    root, folder = write_tree(tmp_path / "in", files), tmp_path / "photos.clip"
    mini = load_embedder("mini")
    embed_collection(open_source(root), mini, folder)
    model = make_sentence_folder(tmp_path, mini.dim)
    with running(folder, "--mclip", model) as service:
        said = subprocess.run([their_python, "-c", MULTILINGUAL, service.url], check=True, capture_output=True)
    with clipsieve.open(folder) as photos:
        vector = SentenceTransformer(str(model), device="cpu").encode(["dog"], normalize_embeddings=True)[0]
        ids, products = photos.nearest(vector, 5)
    found = json.loads(said.stdout)
    assert [hit["id"] for hit in found] == ids.tolist()
    assert [hit["similarity"] for hit in found] == pytest.approx(products.tolist(), abs=1e-6)
