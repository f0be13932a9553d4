import io
import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.inference import models
from clipsieve.inference.embedder import TorchEmbedder, load_embedder
from clipsieve.protocols import TextEmbedder
from tests.inference.pictures import encoded, jpeg, picture


def unit(rows):
    rows = rows.detach().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


SIZES = [(64, 48), (33, 100), (32, 32), (7, 5), (301, 299)]


@pytest.mark.slow
def test_open_clip_gives_what_open_clip_itself_gives(open_clip_folder):
    import open_clip

    embedder = load_embedder(f"local-dir:{open_clip_folder}", device="cpu")
    assert isinstance(embedder, TorchEmbedder)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{open_clip_folder}")
    model.eval()
    images = [picture(i, size) for i, size in enumerate(SIZES)]
    with torch.no_grad():
        expected = unit(model.encode_image(torch.stack([transform(image) for image in images])))
        words = unit(model.encode_text(open_clip.get_tokenizer(f"local-dir:{open_clip_folder}")(["a red bus", "dog"])))
    np.testing.assert_allclose(embedder.embed_images([encoded(image) for image in images]), expected, atol=1e-6)
    np.testing.assert_allclose(embedder.embed_texts(["a red bus", "dog"]), words, atol=1e-6)


def test_open_clip_preprocessing_is_the_same_float_for_float(open_clip_folder):
    import open_clip

    checkpoint = load_embedder(f"local-dir:{open_clip_folder}", device="cpu")._checkpoint
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{open_clip_folder}")
    seen = []

    class Spy:
        def encode_image(self, pixels):
            seen.append(pixels)
            return pixels

    images = [picture(i, size) for i, size in enumerate(SIZES)]
    batch = torch.stack([torch.from_numpy(checkpoint.prepare(image)["pixels"]) for image in images])
    checkpoint.encode_images(Spy(), {"pixels": batch})
    assert torch.equal(seen[0], torch.stack([transform(image) for image in images]))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK", "L"])
def test_the_reference_decoding_is_that_of_each_library(open_clip_folder, clip_folder, mode):
    import open_clip

    exif = Image.Exif()
    exif[0x0112] = 6
    if mode == "I;16":
        data = encoded(Image.fromarray(np.linspace(0, 999, 40 * 70).reshape(40, 70).astype(np.uint16)), exif=exif)
    else:
        image = picture(1, (70, 40)).convert("RGBA")
        image.putalpha(Image.linear_gradient("L").resize((70, 40)))
        data = encoded(
            (picture(1, (70, 40)) if mode == "P" else image).convert(mode), "TIFF" if mode == "CMYK" else "PNG"
        )
    opened = Image.open(io.BytesIO(data))
    assert opened.mode == mode
    ours = load_embedder(f"local-dir:{open_clip_folder}", device="cpu").decoding_as("reference").preprocess(data)
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{open_clip_folder}")
    np.testing.assert_array_equal(ours["pixels"], transform_to_pixels(transform, opened))
    ours = load_embedder(f"local-dir:{clip_folder}", device="cpu").decoding_as("reference").preprocess(data)
    own = load_embedder(f"local-dir:{clip_folder}", device="cpu").preprocess(encoded(opened.convert("RGB")))
    np.testing.assert_array_equal(ours["pixel_values"], own["pixel_values"])


def transform_to_pixels(transform, image):
    """uint8 (h, w, 3): what open_clip's transform makes before it makes floats."""
    for step in transform.transforms[:-2]:
        image = step(image)
    return np.asarray(image)


@pytest.mark.parametrize("fixture", ["clip_folder", "siglip_folder", "siglip2_folder", "dino_folder"])
@pytest.mark.slow
def test_transformers_gives_what_its_own_processor_and_model_give(fixture, request):
    from transformers import AutoImageProcessor, AutoModel

    folder = request.getfixturevalue(fixture)
    embedder = load_embedder(f"local-dir:{folder}", device="cpu")
    model = AutoModel.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    images = [picture(i, size) for i, size in enumerate(SIZES)]
    with torch.no_grad():
        inputs = processor(images=images, return_tensors="pt")
        output = model.get_image_features(**inputs) if hasattr(model, "get_image_features") else model(**inputs)
    expected = unit(output.pooler_output)
    np.testing.assert_allclose(embedder.embed_images([encoded(image) for image in images]), expected, atol=1e-5)


@pytest.mark.parametrize("fixture", ["clip_folder", "siglip_folder", "siglip2_folder"])
@pytest.mark.slow
def test_transformers_texts_are_padded_to_full_length(fixture, request):
    from transformers import AutoModel, AutoTokenizer

    folder = request.getfixturevalue(fixture)
    embedder = load_embedder(f"local-dir:{folder}", device="cpu")
    assert isinstance(embedder, TorchEmbedder)
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = ["a photo of a red bus", "dog !"]
    length = model.config.text_config.max_position_embeddings
    with torch.no_grad():
        tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        expected = unit(model.get_text_features(**tokens).pooler_output)
        short = unit(model.get_text_features(**tokenizer(texts[1:], return_tensors="pt")).pooler_output)
    np.testing.assert_allclose(embedder.embed_texts(texts), expected, atol=1e-5)
    if fixture == "siglip_folder":  # the mistake that this guards against is not a small one
        assert not np.allclose(short[0], expected[1], atol=1e-2)


@pytest.mark.parametrize("fixture", ["clip_folder", "siglip_folder", "dino_folder"])
def test_pixels_that_transformers_has_scaled_are_as_good_as_the_picture(fixture, request):
    from transformers import AutoImageProcessor

    folder = request.getfixturevalue(fixture)
    embedder = load_embedder(f"local-dir:{folder}", device="cpu")
    images = [picture(i, (40, 30)) for i in range(2)]
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=images, return_tensors="np")
    rows = embedder.embed_tensors(embedder.from_pixels(np.asarray(pixels["pixel_values"], np.float32)))
    np.testing.assert_allclose(rows, embedder.embed_images([encoded(image) for image in images]), atol=1e-5)


def test_and_those_that_open_clip_has_scaled(open_clip_folder):
    import open_clip

    embedder = load_embedder(f"local-dir:{open_clip_folder}", device="cpu")
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{open_clip_folder}")
    images = [picture(i, (40, 30)) for i in range(2)]
    rows = embedder.embed_tensors(embedder.from_pixels(np.stack([transform(image).numpy() for image in images])))
    np.testing.assert_allclose(rows, embedder.embed_images([encoded(image) for image in images]), atol=1e-5)


def test_a_tower_without_text_embeds_no_text(dino_folder):
    assert not isinstance(load_embedder(f"local-dir:{dino_folder}", device="cpu"), TextEmbedder)


def test_an_untrained_pooler_is_not_used(tmp_path):
    """A classifier's ViT is saved without a pooler; transformers would make up a random one."""
    from transformers import AutoModel, ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    first, second = (load_embedder(f"local-dir:{tmp_path}", device="cpu") for _ in range(2))
    np.testing.assert_array_equal(first.embed_images([jpeg(0)]), second.embed_images([jpeg(0)]))
    processed = first.preprocess(jpeg(0))["pixel_values"][None].astype(np.float32) / 127.5 - 1
    with torch.no_grad():
        output = AutoModel.from_pretrained(tmp_path)(pixel_values=torch.from_numpy(processed))
    np.testing.assert_allclose(first.embed_images([jpeg(0)]), unit(output.last_hidden_state[:, 0]), atol=1e-5)


def test_a_checkpoint_that_lacks_weights_is_refused(clip_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its model's weights \(visual_projection"):
        load_embedder(f"local-dir:{folder}", device="cpu")


def test_an_open_clip_folder_without_weights_is_refused(open_clip_folder, tmp_path):
    shutil.copy(open_clip_folder / "open_clip_config.json", tmp_path)
    with pytest.raises(ModelUnavailable, match="--model mini"):
        load_embedder(f"local-dir:{tmp_path}", device="cpu")


def test_damaged_weights_are_refused(open_clip_folder, tmp_path):
    folder = shutil.copytree(open_clip_folder, tmp_path / "model")
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="could not be fetched or opened"):
        load_embedder(f"local-dir:{folder}", device="cpu")


def test_a_text_only_checkpoint_is_refused(tmp_path):
    from transformers import BertConfig, BertModel, CLIPImageProcessor

    config = BertConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    BertModel(config).save_pretrained(tmp_path)
    CLIPImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="takes no images"):
        load_embedder(f"local-dir:{tmp_path}", device="cpu")


@pytest.mark.parametrize("name", ["hf:no-such-org/no-such-model", "open_clip:ViT-B-32/laion2b_s34b_b79k"])
def test_weights_that_cannot_be_fetched_say_what_to_do(name, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailable, match="--model mini") as caught:
        load_embedder(name, device="cpu")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_missing_or_holds_no_model(tmp_path):
    with pytest.raises(ModelUnavailable, match="is no folder"):
        load_embedder(f"local-dir:{tmp_path / 'gone'}")
    with pytest.raises(InputError, match="holds no model"):
        load_embedder(f"local-dir:{tmp_path}")


def test_mini_is_the_folder_that_comes_along(open_clip_folder, monkeypatch):
    monkeypatch.setattr(models, "MINI", open_clip_folder)
    assert load_embedder("mini", device="cpu").model.name == "mini"


@pytest.mark.slow
def test_the_weights_hash_follows_the_weights_alone(open_clip_folder, tmp_path):
    folder = shutil.copytree(open_clip_folder, tmp_path / "model")
    original = load_embedder(f"local-dir:{open_clip_folder}", device="cpu").model
    assert load_embedder(f"local-dir:{folder}", device="cpu").model.weights == original.weights

    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["interpolation"] = "bilinear"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    changed = load_embedder(f"local-dir:{folder}", device="cpu").model
    assert (changed.weights, changed.preprocessing) != (original.weights, original.preprocessing)
    assert changed.weights == original.weights

    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "open_clip_model.safetensors")
    weights["logit_scale"] += 0.01
    save_file(weights, folder / "open_clip_model.safetensors")
    assert load_embedder(f"local-dir:{folder}", device="cpu").model.weights != original.weights


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_precisions_agree(open_clip_folder, precision):
    whole = load_embedder(f"local-dir:{open_clip_folder}", device="cpu").embed_images([jpeg(0), jpeg(1)])
    half = load_embedder(f"local-dir:{open_clip_folder}", device="cpu", precision=precision).embed_images(
        [jpeg(0), jpeg(1)]
    )
    assert np.einsum("ij,ij->i", whole, half).min() > 0.998


def test_strips_are_refused_with_a_sentence(open_clip_folder):
    embedder = load_embedder(f"local-dir:{open_clip_folder}", device="cpu")
    embedder.preprocess_image(Image.new("RGB", (1, 3000)))
    with pytest.raises(InputError, match="strip of 1 x 200000 pixels"):
        embedder.preprocess_image(Image.new("RGB", (1, 200_000)))


def test_a_row_that_is_not_finite_is_an_error(open_clip_folder):
    embedder = load_embedder(f"local-dir:{open_clip_folder}", device="cpu")
    module, device = embedder._lanes._idle.get()
    module.visual.conv1.weight.fill_(float("nan"))
    embedder._lanes._idle.put((module, device))
    with pytest.raises(InputError, match="no finite vector for image 0"):
        embedder.embed_images([jpeg(0)])


def test_short_memory_halves_the_batch(open_clip_folder, monkeypatch):
    embedder = load_embedder(f"local-dir:{open_clip_folder}", device="cpu")
    images = [jpeg(i) for i in range(7)]
    expected = embedder.embed_images(images)
    forward, sizes = embedder._lanes._forward, []

    def short(encode, module, device, batch):
        n = len(next(iter(batch.values())))
        sizes.append(n)
        if n > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(encode, module, device, batch)

    monkeypatch.setattr(embedder._lanes, "_forward", short)
    np.testing.assert_allclose(embedder.embed_images(images), expected, atol=1e-6)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"device": "tpu"}, "'tpu' is not known"), ({"device": "meta"}, "not known"), ({"precision": "int8"}, "'int8'")],
)
def test_devices_and_precisions_that_do_not_exist(open_clip_folder, options, words):
    with pytest.raises(InputError, match=words):
        load_embedder(f"local-dir:{open_clip_folder}", **options)


def test_a_gpu_that_is_not_there(open_clip_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="sees 0 CUDA devices"):
        load_embedder(f"local-dir:{open_clip_folder}", device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_cuda_agrees_with_the_cpu(open_clip_folder, siglip_folder, precision):
    for folder in (open_clip_folder, siglip_folder):
        cpu = load_embedder(f"local-dir:{folder}", device="cpu")
        gpu = load_embedder(f"local-dir:{folder}", device="cuda", precision=precision)
        assert isinstance(cpu, TorchEmbedder)
        assert isinstance(gpu, TorchEmbedder)
        images = [jpeg(i) for i in range(70)]
        assert np.einsum("ij,ij->i", cpu.embed_images(images), gpu.embed_images(images)).min() > 0.998
        texts = ["a red bus", "two dog"]
        assert np.einsum("ij,ij->i", cpu.embed_texts(texts), gpu.embed_texts(texts)).min() > 0.998
        assert cpu.model == gpu.model


@pytest.mark.slow
def test_tokens_are_counted_before_a_text_is_cut():
    mini = load_embedder("mini", device="cpu")
    assert isinstance(mini, TorchEmbedder)
    short, long = mini.count_tokens(["a dog", "a dog " * 50])
    (ids,) = mini.tokenize(["a dog"])
    assert short == int((ids["text"] != ids["text"][-1]).sum())
    assert long > mini.context > short
