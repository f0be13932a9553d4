"""The demo model as ONNX files."""

import json

import numpy as np
import pytest

from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.inference.embedder import TorchEmbedder, load_checkpoint, load_embedder
from clipsieve.inference.onnx_towers import MADE, export_onnx
from tests.inference.pictures import encoded, picture

IMAGES = [encoded(picture(i, (70, 50))) for i in range(3)]
TEXTS = ["a red bus", "two dogs", ""]


@pytest.fixture(scope="module")
def mini():
    embedder = load_embedder("mini", device="cpu")
    assert isinstance(embedder, TorchEmbedder)
    return embedder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folders of the model in 32 and in 8 bits."""
    folders = {}
    for int8 in (False, True):
        folders[int8] = tmp_path_factory.mktemp("onnx")
        export_onnx(*load_checkpoint("mini"), folders[int8], int8=int8)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize(("int8", "least"), [(False, 0.99999), (True, 0.97)])
def test_its_vectors_are_near_the_models(mini, made, int8, least):
    onnx = load_embedder(f"onnx:{made[int8]}")
    assert isinstance(onnx, TorchEmbedder)
    assert (onnx.dim, onnx.context, onnx.pixels) == (mini.dim, mini.context, mini.pixels)
    for ours, expected in (
        (onnx.embed_images(IMAGES), mini.embed_images(IMAGES)),
        (onnx.embed_texts(TEXTS), mini.embed_texts(TEXTS)),
    ):
        assert np.einsum("nd,nd->n", ours, expected).min() > least
    assert onnx.count_tokens(TEXTS) == mini.count_tokens(TEXTS)


@pytest.mark.slow
def test_each_is_a_model_of_its_own(mini, made):
    hashes = {load_embedder(f"onnx:{made[int8]}").model.weights for int8 in (False, True)}
    assert len({*hashes, mini.model.weights}) == 3


@pytest.mark.slow
def test_eight_bits_are_smaller_and_no_float_file_is_left(made):
    sizes = [{file.name: file.stat().st_size for file in made[int8].glob("*.onnx")} for int8 in (False, True)]
    assert set(sizes[0]) == set(sizes[1]) == {"image.onnx", "text.onnx"}
    assert sizes[1]["text.onnx"] < 0.6 * sizes[0]["text.onnx"]
    assert json.loads((made[True] / MADE).read_text())["int8"] is True


def test_a_folder_without_one_is_said(tmp_path):
    with pytest.raises(ModelUnavailable, match="holds no ONNX model; make one with"):
        load_embedder(f"onnx:{tmp_path}")


def test_it_is_not_for_a_gpu(tmp_path):
    with pytest.raises(InputError, match="run on the CPU"):
        load_embedder(f"onnx:{tmp_path}", device="cuda")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="is not empty"):
        export_onnx(*load_checkpoint("mini"), tmp_path)
