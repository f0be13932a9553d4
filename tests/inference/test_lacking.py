"""Models of which something is lacking, or is another model's: an error that names it, and never an answer."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clipsieve.errors import ClipsieveError, ModelUnavailable
from clipsieve.inference.checkpoint import fetching
from clipsieve.inference.detector import open_detector
from clipsieve.inference.embedder import load_embedder, load_text_embedder
from clipsieve.inference.self_check import check_texts, require_apart

KINDS = ["clip_folder", "siglip_folder", "siglip2_folder"]
TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"]


@pytest.fixture
def copy(request, tmp_path):
    return lambda fixture: shutil.copytree(request.getfixturevalue(fixture), tmp_path / fixture)


def load(folder):
    return load_embedder(f"local-dir:{folder}", device="cpu")


def refused(open_model, folder, words):
    with pytest.raises(ClipsieveError, match=words) as caught:
        open_model(f"local-dir:{folder}", device="cpu")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def take_away(folder, names):
    for name in names:
        (folder / name).unlink(missing_ok=True)


def change_weights(path, change):
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("names", [TOKENIZER, TOKENIZER[:1]])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_without_a_tokenizer(kind, names, copy):
    folder = copy(kind)
    take_away(folder, names)
    refused(load_embedder, folder, "has no tokenizer")


@pytest.mark.parametrize("kind", ["owlvit_folder", "owlv2_folder"])
def test_a_detector_without_a_tokenizer(kind, copy):
    folder = copy(kind)
    take_away(folder, TOKENIZER)
    refused(open_detector, folder, "has no tokenizer")


@pytest.mark.parametrize("kind", [*KINDS, "dino_folder"])
def test_without_what_says_how_images_are_scaled(kind, copy):
    folder = copy(kind)
    take_away(folder, ["preprocessor_config.json", "processor_config.json"])
    refused(load_embedder, folder, "has no preprocessor_config.json")


def test_a_detector_without_it(copy):
    folder = copy("owlvit_folder")
    take_away(folder, ["preprocessor_config.json", "processor_config.json"])
    refused(open_detector, folder, "has no preprocessor_config.json")


@pytest.mark.parametrize("kind", KINDS)
def test_without_weights(kind, copy):
    folder = copy(kind)
    take_away(folder, ["model.safetensors"])
    refused(load_embedder, folder, "could not be fetched or opened")


@pytest.mark.parametrize("kind", KINDS)
def test_with_half_of_the_weights_file(kind, copy):
    folder = copy(kind)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    refused(load_embedder, folder, "could not be fetched or opened")


def test_with_a_tokenizer_of_more_tokens_than_the_model_has(copy):
    folder, other = copy("clip_folder"), copy("siglip2_folder")
    for name in TOKENIZER[:2]:
        shutil.copy(other / name, folder / name)
    refused(load_embedder, folder, r"tokenizer .* is another model's: its token ids go up to \d+ and the model has 12")


def test_with_weights_beyond_the_configuration(copy):
    folder = copy("clip_folder")
    weights = folder / "model.safetensors"

    def another_layer(tensors):
        for name in [n for n in tensors if n.startswith("text_model.encoder.layers.0.")]:
            tensors[name.replace("layers.0", "layers.1")] = tensors[name].clone()

    change_weights(weights, another_layer)
    refused(load_embedder, folder, r"has 16 weights for which its config.json has no place \(text_model.encoder")


def test_a_head_beside_the_model_is_not_in_the_way(copy):
    folder = copy("dino_folder")

    def head(tensors):
        tensors["classifier.weight"] = next(iter(tensors.values())).clone()

    change_weights(folder / "model.safetensors", head)
    assert load(folder).dim == 16


def test_open_clip_names_the_weights_that_are_lacking(copy):
    folder = copy("open_clip_folder")
    change_weights(folder / "open_clip_model.safetensors", lambda tensors: tensors.pop("text_projection"))
    refused(load_embedder, folder, "text_projection")


def test_open_clip_without_what_says_how_images_are_scaled(copy):
    folder = copy("open_clip_folder")
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    del config["preprocess_cfg"]["mean"]
    path.write_text(json.dumps(config))
    refused(load_embedder, folder, "lacks preprocess_cfg with mean and std")
    path.write_text("{")
    refused(load_embedder, folder, "cannot be read")


def test_mini_without_its_tokenizer(tmp_path):
    from clipsieve.inference.models import MINI

    folder = shutil.copytree(MINI, tmp_path / "mini")
    take_away(folder, TOKENIZER)
    refused(load_embedder, folder, "tokenizer")


@pytest.mark.parametrize("fixture", [pytest.param("sentence_folder", marks=pytest.mark.slow), "mclip_folder"])
def test_a_text_tower_without_its_tokenizer(fixture, copy):
    folder = copy(fixture)
    take_away(folder, TOKENIZER)
    refused(load_text_embedder, folder, "tokenizer")


def test_a_model_to_which_all_texts_are_the_same(copy):
    folder = copy("siglip_folder")

    def forget(tensors):
        tensors["text_model.embeddings.token_embedding.weight"].zero_()

    change_weights(folder / "model.safetensors", forget)
    refused(load_embedder, folder, "gives the texts 'red bus' and 'two dogs' one vector")


def test_a_model_to_which_all_images_are_the_same(copy):
    folder = copy("clip_folder")

    def forget(tensors):
        tensors["vision_model.embeddings.patch_embedding.weight"].zero_()

    change_weights(folder / "model.safetensors", forget)
    refused(load_embedder, folder, "gives two different images one vector")


def test_weights_that_are_no_numbers(copy):
    folder = copy("clip_folder")
    change_weights(folder / "model.safetensors", lambda tensors: tensors["text_projection.weight"].fill_(np.nan))
    refused(load_embedder, folder, "no finite vector for text")


def test_texts_that_change_in_a_batch_are_found():
    def embed(texts):
        rows = np.eye(4, dtype=np.float32)[: len(texts)]
        return rows if len(texts) > 1 else rows[:, ::-1]

    with pytest.raises(ModelUnavailable, match="other vectors in a batch than alone"):
        check_texts("mine", embed)
    with pytest.raises(ModelUnavailable, match="two different images one vector"):
        require_apart("mine", np.ones((2, 4), np.float32), "images")


@pytest.mark.slow
def test_a_text_tower_of_random_numbers(copy):
    folder = copy("sentence_folder")
    weights = torch.load(folder / "pytorch_model.bin")
    del weights["transformer.layer.0.ffn.lin1.bias"]
    torch.save(weights, folder / "pytorch_model.bin")
    refused(load_text_embedder, folder, r"lacks 1 of its model's weights \(transformer.layer.0.ffn.lin1.bias\)")


@pytest.mark.slow
def test_a_text_tower_without_its_projection(copy):
    folder = copy("sentence_folder")
    torch.save({}, folder / "2_Dense" / "pytorch_model.bin")
    refused(load_text_embedder, folder, r"Missing key\(s\) .* \"linear.weight\"")


def test_an_onnx_folder_without_a_tower(tmp_path):
    from clipsieve.inference.embedder import load_checkpoint
    from clipsieve.inference.onnx_towers import MADE, load_onnx

    checkpoint, files = load_checkpoint("mini")
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    made = {"int8": False, "vocabulary": checkpoint.vocabulary, "preprocess": None}
    (tmp_path / MADE).write_text(json.dumps(made))
    with pytest.raises(ModelUnavailable, match=r"holds no text\.onnx, though the model takes texts"):
        load_onnx(tmp_path)
    (tmp_path / MADE).write_text("{}")
    with pytest.raises(ModelUnavailable, match="is not whole; export the model again"):
        load_onnx(tmp_path)


def test_without_memory_no_connection_is_blamed():
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        OSError("allocate memory"),
    ):
        with (
            pytest.raises(ModelUnavailable, match="not enough memory to load the model 'a'") as caught,
            fetching("a", "or give a folder"),
        ):
            raise error
        assert "connection" not in str(caught.value)
