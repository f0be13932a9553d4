import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.inference import models, owl
from clipsieve.inference.detector import OwlDetector, open_detector, region_bytes
from clipsieve.inference.lanes import Lanes
from clipsieve.inference.square import fit_square
from tests.contracts.detector import same
from tests.inference.pictures import encoded, jpeg, picture

SIZES = [(33, 100), (64, 48), (48, 48), (7, 5), (301, 299)]
KINDS = ["owlvit_folder", "owlv2_folder"]
TEXTS = ["a red bus", "two dogs", "!"]


def detector_of(folder, regions=300):
    """By default one that keeps every box that its model gives."""
    return open_detector(f"local-dir:{folder}", device="cpu", regions=regions)


def theirs(folder):
    """The model and the processor as transformers itself loads them."""
    from transformers import AutoImageProcessor, AutoModelForZeroShotObjectDetection, AutoTokenizer

    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    return model, AutoImageProcessor.from_pretrained(folder, backend="pil"), AutoTokenizer.from_pretrained(folder)


def pixels_of(detector, processor, *images):
    """What the model takes of the images; that it is what the processor makes of them is tested by itself."""
    stacked = np.stack([detector.preprocess_image(image)["pixel_values"] for image in images])
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (processor.image_mean, processor.image_std))
    return torch.from_numpy(((stacked * processor.rescale_factor - mean) / std).astype(np.float32))


def boxes_in_image(processor, outputs, image):
    """Their boxes of one image, as fractions of it: (patches, 4)."""
    (found,) = processor.post_process_object_detection(outputs, threshold=-1.0, target_sizes=[image.size[::-1]])
    return np.clip(found["boxes"].numpy() / np.tile(image.size, 2), 0, 1)


@pytest.mark.parametrize("fixture", KINDS)
@pytest.mark.parametrize("size", [SIZES[0], *(pytest.param(size, marks=pytest.mark.slow) for size in SIZES[1:])])
def test_boxes_and_logits_are_those_of_the_model_itself(fixture, size, request):
    folder = request.getfixturevalue(fixture)
    detector = detector_of(folder)
    model, processor, tokenizer = theirs(folder)
    image = picture(size[0], size)
    given = {"padding": "max_length", "max_length": 16, "truncation": True, "return_tensors": "pt"}
    with torch.no_grad():
        outputs = model(pixel_values=pixels_of(detector, processor, image), **tokenizer(TEXTS, **given))
    boxes, logits = boxes_in_image(processor, outputs, image), outputs.logits[0].numpy()

    regions = detector.detect([encoded(image)])
    mine = (regions.vectors @ detector.embed_texts(TEXTS).T + regions.shift[:, None]) * regions.scale[:, None]
    far = np.abs(regions.boxes[:, None] - boxes[None]).max(axis=2) + np.abs(mine[:, None] - logits[None]).max(axis=2)
    patch = far.argmin(axis=1)
    assert len(set(patch.tolist())) == len(patch)
    np.testing.assert_allclose(regions.boxes, boxes[patch], atol=1e-5)
    np.testing.assert_allclose(mine, logits[patch], atol=1e-4)
    if fixture == "owlv2_folder":
        np.testing.assert_allclose(regions.objectness, outputs.objectness_logits[0].numpy()[patch], atol=1e-5)
    else:
        np.testing.assert_array_equal(regions.objectness, regions.shift)
    with_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    assert len(regions.item) > 0.8 * with_area.sum()  # the others are near-duplicates, or lie in the padding


@pytest.mark.parametrize("size", [*SIZES, (4, 1000), (700, 333)])
def test_the_square_is_the_processors_own(size):
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

    processor = Owlv2ImageProcessorPil(size={"height": 96, "width": 96})
    pixels = np.asarray(picture(1, size))
    given = {"do_normalize": False, "return_tensors": "np", "input_data_format": "channels_last"}
    expected = processor(images=pixels, **given)["pixel_values"][0]
    assert np.abs(fit_square(pixels, 96) - 255 * expected).max() < 0.5001  # rounded, else the same


@pytest.mark.parametrize("fixture", KINDS)
def test_pixels_reach_the_model_as_the_processor_makes_them(fixture, request):
    folder = request.getfixturevalue(fixture)
    _, processor, _ = theirs(folder)
    detector, seen = detector_of(folder), []

    class Spy:
        def image_embedder(self, pixels):
            seen.append(pixels)
            raise StopIteration

    images = [picture(i, size) for i, size in enumerate(SIZES)]
    pixels = np.stack([detector.preprocess_image(image)["pixel_values"] for image in images])
    with pytest.raises(StopIteration):
        detector._owl.encode_images(Spy(), {"pixel_values": torch.from_numpy(pixels)}, 1)
    np.testing.assert_allclose(seen[0], pixels_of(detector, processor, *images), atol=1e-5)
    expected = processor(images=images, return_tensors="np")["pixel_values"]
    rounding = 0.501 / 255 / min(processor.image_std) if fixture == "owlv2_folder" else 1e-5
    np.testing.assert_allclose(seen[0], expected, atol=rounding)


def test_images_are_turned_upright_first(owlv2_folder):
    image = picture(3, (64, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    detector = detector_of(owlv2_folder)
    same(detector.detect([turned]), detector.detect([encoded(image)]), atol=1e-6)


@pytest.mark.slow
def test_the_likeliest_are_kept(owlv2_folder):
    every, few = (detector_of(owlv2_folder, n).detect([jpeg(0), jpeg(1)]) for n in (300, 5))
    for i in (0, 1):
        np.testing.assert_array_equal(few.objectness[few.item == i], every.objectness[every.item == i][:5])


def test_by_default_an_image_takes_40_kilobytes_at_most(owlvit_folder):
    assert detector_of(owlvit_folder, None).regions == 32
    assert 32 * region_bytes(512) <= 40_000 < 32 * region_bytes(768)
    narrow = detector_of(owlvit_folder)._owl
    assert narrow.dim == 16
    wide = OwlDetector("wide", dataclasses.replace(narrow, dim=768), Lanes(narrow.module, [torch.device("cpu")], None))
    assert wide.regions * region_bytes(768) <= 40_000 < (wide.regions + 1) * region_bytes(768)


@pytest.mark.parametrize("regions", [0, 301])
def test_a_count_of_regions_that_cannot_be(owlvit_folder, regions):
    with pytest.raises(InputError, match="1 to 300"):
        detector_of(owlvit_folder, regions)


@pytest.mark.parametrize("fixture", KINDS)
def test_an_example_asks_for_what_the_model_itself_would(fixture, request):
    folder = request.getfixturevalue(fixture)
    model, processor, _ = theirs(folder)
    detector, image = detector_of(folder), picture(5, (60, 60))  # else theirs may choose a box in the padding
    with torch.no_grad():
        features = model.image_embedder(pixels_of(detector, processor, image))[0].flatten(1, 2)
        if fixture == "owlv2_folder":
            vector = model.embed_image_query(features, features)[0][0, 0]
        else:  # it has no objectness; ours is the shift
            patch = model.class_head.logit_shift(features)[0, :, 0].argmax()
            vector = model.class_predictor(features)[1][0, patch]
    expected = (vector / vector.norm()).numpy()
    np.testing.assert_allclose(detector.embed_example(encoded(image)), expected, atol=1e-5)


def test_an_example_in_a_box_is_the_region_there(owlv2_folder):
    detector, data = detector_of(owlv2_folder), jpeg(2, (60, 60))
    regions = detector.detect([data])
    last = len(regions.item) - 1  # the least likely one
    box = tuple(regions.boxes[last].tolist())
    np.testing.assert_allclose(detector.embed_example(data, box), regions.vectors[last], atol=1e-5)


def test_an_example_where_nothing_is(owlvit_folder):
    detector = detector_of(owlvit_folder)
    module, device = detector._lanes._idle.get()
    module.box_bias[:, :2] = 20  # every box lies at the right, below
    detector._lanes._idle.put((module, device))
    with pytest.raises(InputError, match="sees nothing in"):
        detector.embed_example(jpeg(2), (0, 0, 0.1, 0.1))


def test_the_id_follows_weights_and_preprocessing(owlvit_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    original = detector_of(owlvit_folder).model
    folder = shutil.copytree(owlvit_folder, tmp_path / "copy")
    copy = detector_of(folder).model
    assert (copy.weights, copy.preprocessing) == (original.weights, original.preprocessing)
    weights = load_file(folder / "model.safetensors")
    weights["class_head.logit_shift.bias"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert detector_of(folder).model.weights != original.weights


def test_mini_is_the_folder_that_comes_along(owlvit_folder, monkeypatch):
    monkeypatch.setattr(models, "MINI_DETECTOR", owlvit_folder)
    assert open_detector("mini", device="cpu").model.name == "mini"


def test_half_precision_agrees(owlv2_folder):
    whole = detector_of(owlv2_folder)
    half = open_detector(f"local-dir:{owlv2_folder}", device="cpu", precision="bf16", regions=300)
    for box in ((0, 0, 0.4, 0.4), (0.5, 0.5, 1, 1)):
        assert whole.embed_example(jpeg(0), box) @ half.embed_example(jpeg(0), box) > 0.98
    assert np.einsum("ij,ij->i", whole.embed_texts(TEXTS), half.embed_texts(TEXTS)).min() > 0.98


def test_flash_attention_is_asked_for_where_it_is_installed(owlvit_folder, monkeypatch):
    from transformers import OwlViTForObjectDetection
    from transformers.utils import import_utils

    load, asked = OwlViTForObjectDetection.from_pretrained, []

    def spy(*args, attn_implementation, **options):
        asked.append(attn_implementation)
        return load(*args, **options)

    monkeypatch.setattr(OwlViTForObjectDetection, "from_pretrained", spy)
    for installed in (True, False):
        monkeypatch.setattr(import_utils, "is_flash_attn_2_available", lambda installed=installed: installed)
        for flash in (True, False):
            owl.load_owl(str(owlvit_folder), flash=flash)
    assert asked == ["flash_attention_2", "sdpa", "sdpa", "sdpa"]


def test_numbers_that_are_not_finite_are_an_error(owlvit_folder):
    detector = detector_of(owlvit_folder)
    module, device = detector._lanes._idle.get()
    module.class_head.dense0.bias.fill_(float("nan"))
    detector._lanes._idle.put((module, device))
    with pytest.raises(InputError, match="no finite numbers for image 0"):
        detector.detect([jpeg(0)])


def test_a_detector_that_is_not_there(tmp_path, clip_folder):
    with pytest.raises(ModelUnavailable, match="is not there"):
        open_detector(f"local-dir:{tmp_path}", device="cpu")
    with pytest.raises(InputError, match="is not known; give mini, hf:ORG/NAME"):
        open_detector("owlv2", device="cpu")
    with pytest.raises(InputError, match="is a clip; what finds regions is an OWL-ViT or an OWLv2"):
        open_detector(f"local-dir:{clip_folder}", device="cpu")


def test_a_checkpoint_that_lacks_weights_is_refused(owlvit_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(owlvit_folder, tmp_path / "owlvit")
    weights = load_file(folder / "model.safetensors")
    weights.pop("box_head.dense2.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its model's weights \(box_head"):
        detector_of(folder)


@pytest.mark.parametrize(
    "odd",
    [{"size": {"height": 64, "width": 64}}, {"do_normalize": False}, {"do_center_crop": True}],
)
def test_preprocessing_that_is_not_known_is_refused(owlvit_folder, tmp_path, odd):
    folder = shutil.copytree(owlvit_folder, tmp_path / "owlvit")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    with pytest.raises(InputError, match=r"preprocessing of .* is not one that is known"):
        detector_of(folder)


@pytest.mark.parametrize("fixture", KINDS)
def test_a_strip_is_no_trouble(fixture, request):
    strips = [encoded(Image.new("RGB", size, "red")) for size in ((3000, 1), (1, 3000))]
    boxes = detector_of(request.getfixturevalue(fixture)).detect(strips).boxes
    assert (boxes[:, :2] < boxes[:, 2:]).all()
