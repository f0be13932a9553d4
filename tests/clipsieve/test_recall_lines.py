import numpy as np
import pytest

from clipsieve.commands_build import tell_built, texts_by_model
from clipsieve.errors import InputError, ModelMismatch
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.manifest import Manifest
from clipsieve.parts import Parts
from clipsieve.recall_lines import recall_lines
from clipsieve.types import Embeddings, ModelId
from clipsieve.writer import open_writer

FAKE = FakeEmbedder(8)
KINDS = [
    {"source": "text", "shape": "one", "k": 1000, "effort": None, "recall": None},
    {"source": "text", "shape": "one", "k": 40, "effort": 300, "recall": 0.9712},
    {"source": "image", "shape": "one", "k": 40, "effort": 8, "recall": 0.99},
    {"source": "image", "shape": "far", "k": 40, "effort": None, "recall": None},
]


def test_recall_is_told_by_kinds_of_questions():
    assert list(recall_lines(KINDS)) == [
        "by image: one example 0.990; filtered to what is far rows are read",
        "by text: one example 0.971 (to 1,000: rows are read)",
    ]
    assert list(recall_lines([])) == []


def test_what_an_index_lacks_is_told():
    index = {"name": "image", "action": "built", "kind": "IVF8,Flat", "recall": 0.9, "why": "It was asked for."}
    lines = list(tell_built({"indices": [index | {"kinds": KINDS, "lacks": "the model 'x' embeds no texts"}]}))
    assert lines[0] == "image: built, IVF8,Flat. It was asked for."
    assert lines[-1] == (
        "  Questions by text have no figure, and their answers are partial: the model 'x' embeds no texts."
    )
    (line,) = tell_built({"indices": [index | {"kinds": [], "lacks": ""}]})
    assert line == "image: built, IVF8,Flat, measured recall 0.900. It was asked for."


@pytest.fixture
def folder(tmp_path):
    with open_writer(tmp_path, Manifest(FAKE.model, 8)) as writer:
        writer.append(Embeddings(np.eye(8, dtype=np.float32)[:1], ("a",), FAKE.model))
    return tmp_path


def test_texts_are_embedded_by_the_collections_model_which_is_loaded_once(folder):
    loaded = []

    def load(name):
        loaded.append(name)
        return FAKE

    embed = texts_by_model(Parts(load), folder)
    assert loaded == []
    np.testing.assert_array_equal(embed(["a", "b"]), FAKE.embed_texts(["a", "b"]))
    embed(["c"])
    assert loaded == [FAKE.model.name]


def test_a_model_that_cannot_embed_the_texts_is_named(folder):
    class Images:
        model, dim = FAKE.model, 8

        def embed_images(self, images):
            return FAKE.embed_images(images)

    class Other:
        model, dim = ModelId("other", "1", ""), 8

        def embed_texts(self, texts):
            return FAKE.embed_texts(texts)

    with pytest.raises(InputError, match="embeds no texts"):
        texts_by_model(Parts(lambda name: Images()), folder)(["a"])
    with pytest.raises(ModelMismatch):
        texts_by_model(Parts(lambda name: Other()), folder)(["a"])
