import shutil
import sys

import numpy as np
import pytest
import torch

from clipsieve.errors import InputError, MissingExtra
from clipsieve.inference.batcher import batched
from clipsieve.inference.embedder import TorchEmbedder, load_embedder, load_text_embedder
from clipsieve.protocols import ImageEmbedder

TEXTS = ["a photo of a red bus", "dog !", "", "two red truck " * 4]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def prompted(sentence_folder, tmp_path):
    """One that puts words before each text and gives less than it has."""
    from sentence_transformers import SentenceTransformer

    options = {"prompts": {"query": "a photo of "}, "default_prompt_name": "query", "truncate_dim": 8}
    SentenceTransformer(str(sentence_folder), device="cpu", **options).save(str(tmp_path), create_model_card=False)
    return tmp_path


@pytest.mark.parametrize("fixture", ["sentence_folder", "prompted"])
@pytest.mark.slow
def test_vectors_are_those_of_sentence_transformers(fixture, request):
    from sentence_transformers import SentenceTransformer

    folder = request.getfixturevalue(fixture)
    embedder = load_text_embedder(str(folder), device="cpu")
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert embedder.dim == expected.shape[1]
    np.testing.assert_allclose(embedder.embed_texts(TEXTS), unit(expected), atol=1e-6)


def test_vectors_are_those_of_mclip(mclip_folder):
    from multilingual_clip.Config_MCLIP import MCLIPConfig
    from multilingual_clip.pt_multilingual_clip import MultilingualCLIP
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    # Its own from_pretrained is one of transformers 4.
    model = MultilingualCLIP(MCLIPConfig.from_pretrained(mclip_folder))
    model.load_state_dict(load_file(mclip_folder / "model.safetensors"))
    with torch.no_grad():
        expected = model.eval()(TEXTS, AutoTokenizer.from_pretrained(mclip_folder)).numpy()
    embedder = load_text_embedder(f"local-dir:{mclip_folder}", device="cpu")
    np.testing.assert_allclose(embedder.embed_texts(TEXTS), unit(expected), atol=1e-6)


def test_a_clip_will_do_and_keeps_its_images(clip_folder, dino_folder):
    assert isinstance(load_text_embedder(str(clip_folder), device="cpu"), TorchEmbedder)
    with pytest.raises(InputError, match="takes no texts"):
        load_text_embedder(str(dino_folder), device="cpu")


@pytest.mark.slow
def test_one_of_texts_alone_embeds_no_images(sentence_folder):
    with batched(load_text_embedder(str(sentence_folder), device="cpu")) as embedder:
        assert not isinstance(embedder, ImageEmbedder)
        embedder.embed_texts(TEXTS)
        assert embedder.statistics().kinds.keys() == {"text"}
    with pytest.raises(InputError, match="takes no images"):
        load_embedder(str(sentence_folder), device="cpu")


def test_weights_that_are_lacking_are_said(mclip_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(mclip_folder, tmp_path / "mclip")
    weights = load_file(folder / "model.safetensors")
    weights.pop("LinearTransformation.bias")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its model's weights \(LinearTransformation"):
        load_text_embedder(str(folder), device="cpu")


@pytest.mark.slow
def test_the_extra_is_named_where_it_is_missing(sentence_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"clipsieve\[multilingual\]"):
        load_text_embedder(str(sentence_folder), device="cpu")
