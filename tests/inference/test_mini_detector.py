"""The demo detector: boxes and texts are true of what is drawn, losses ask for it, and what is shipped finds things."""

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, OwlViTForObjectDetection

from clipsieve.inference.mini import train_detector
from clipsieve.inference.mini.captions import CLASSES, vocabulary
from clipsieve.inference.mini.detector_data import PHOTO, Pictures, draw_mosaic, draw_pictures, draw_scene, draw_texts
from clipsieve.inference.mini.scenes import (
    COLOURS,
    SHAPES,
    Scene,
    SceneObject,
    render,
    tight_boxes,
)
from clipsieve.inference.models import MINI_DETECTOR

RED = COLOURS["red"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turn", [-14.0, 0.0, 9.0])
def test_an_object_fills_its_tight_box_to_the_edges(shape: str, turn: float) -> None:
    thing = SceneObject(shape, "red", "plain", "medium", 0.37, 0.58, 0.31, turn, RED)
    scene = Scene((thing,), "plain", (40, 90, 160), 0)
    background = np.asarray(render(Scene((), "plain", (40, 90, 160), 0), 150), int)
    rows, columns = np.nonzero(np.abs(np.asarray(render(scene, 150), int) - background).sum(axis=2))
    (box,) = tight_boxes(scene, 150)
    drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(np.array(box) * 150 - drawn).max() <= 0.5  # drawn at twice the size: half a pixel is one


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_mosaic_shows_each_photograph_in_its_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tones = [40 + 20 * i for i in range(9)]
    photos = [Image.new("RGB", (32, 32), (tone, 0, 255)) for tone in tones]
    mosaic = draw_mosaic(rng, photos, list(range(9)), 128)
    pixels = np.asarray(mosaic.image, int)
    for box, codes in zip(mosaic.boxes, mosaic.codes, strict=True):
        left, top, right, bottom = (round(v * 128) for v in box)
        assert 0 <= left < right <= 128
        assert 0 <= top < bottom <= 128
        if codes[PHOTO] >= 0:
            assert (pixels[(top + bottom) // 2, (left + right) // 2] == (tones[codes[PHOTO]], 0, 255)).all()


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_texts_are_true_of_what_they_name_and_of_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.array([*draw_scene(rng, 32).codes, (-1, -1, -1, -1, 5)], np.int8)
    texts = draw_texts(rng, codes)
    true = texts.true(codes)
    assert len(texts.texts) == true.shape[1]
    for thing, row in zip(codes.tolist(), true, strict=True):
        pairs, colours, shapes, classes = np.split(row[: 144 + 12 + 12 + 10], [144, 156, 168])
        assert np.flatnonzero(pairs).tolist() == ([] if thing[0] < 0 else [thing[0] * 12 + thing[1]])
        assert np.flatnonzero(colours).tolist() == ([] if thing[0] < 0 else [thing[0]])
        assert np.flatnonzero(shapes).tolist() == ([] if thing[0] < 0 else [thing[1]])
        assert np.flatnonzero(classes).tolist() == ([] if thing[PHOTO] < 0 else [thing[PHOTO]])
    for less, more in texts.details:
        assert (true[:, less] >= true[:, more]).all()
    assert not true[:, -10:].any()  # unknown words


@pytest.fixture(scope="module")
def small() -> tuple[argparse.Namespace, Pictures]:
    args = argparse.Namespace(side=48, patch=8, width=48, layers=2, heads=2, text_width=32)
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    both = [draw_pictures(8, 3, 48), draw_pictures(8, 4, 48, photos, np.arange(20) % 10)]
    return args, Pictures.join(both)


def test_every_object_has_a_patch_that_answers_for_it_and_only_patches_in_its_box_do(
    small: tuple[argparse.Namespace, Pictures],
) -> None:
    pictures = small[1]
    answers = train_detector.assign(torch.from_numpy(pictures.boxes), 6)
    for boxes, owner, middle in zip(pictures.boxes, answers.owner.numpy(), answers.middle.numpy(), strict=True):
        there = np.flatnonzero(boxes[:, 2] > 0)
        assert set(owner[middle].tolist()) == set(there.tolist())
        for patch in np.flatnonzero(owner >= 0):
            center = (np.array([patch % 6, patch // 6]) + 0.5) / 6
            away = np.abs(center - boxes[owner[patch], :2]) - boxes[owner[patch], 2:] / 2
            assert (away < 0.5 / 6).all()  # inside, or the patch nearest to a small box
        assert (owner[middle] >= 0).all()


@pytest.mark.slow
def test_a_few_steps_lower_the_loss(small: tuple[argparse.Namespace, Pictures]) -> None:
    args, pictures = small
    torch.manual_seed(0)
    tokenizer = train_detector.build_tokenizer()
    model = train_detector.build_model(args, tokenizer)
    inner = train_detector.Inner(model.owlvit.vision_model)
    optimiser = torch.optim.Adam([*model.parameters(), *inner.parameters()], 1e-3)
    rng = np.random.default_rng(0)
    texts = draw_texts(rng, pictures.codes[pictures.boxes[:, :, 2] > 0])
    totals = []
    for _ in range(12):
        flat, boxes = train_detector._forward(model, pictures.pixels)
        text = train_detector._embed(model, tokenizer, texts.texts)
        parts = train_detector.losses(model, inner, flat, text, texts, pictures, boxes)
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        optimiser.step()
        totals.append({name: value.item() for name, value in parts.items()})
    for name in ("focal", "choice", "there", "inner"):  # detail comes when the plain is known, and boxes last
        assert totals[-1][name] < totals[0][name], name


@given(st.integers(2, 4), st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_head_begins_by_looking_at_one_neighbour(quarters: int, seed: int) -> None:
    dims = 4 * quarters
    rng = np.random.default_rng(seed)
    places, (x, y) = torch.from_numpy(rng.uniform(0, 12, (5, 2)).astype(np.float32)), rng.uniform(-2, 2, 2)
    turned = train_detector._waves(places, dims) @ train_detector._turn(x, y, dims).T
    moved = train_detector._waves(places + torch.tensor([x, y], dtype=torch.float32), dims)
    assert torch.allclose(turned, moved, atol=1e-4)


def test_the_tokenizer_knows_the_words_of_the_grammar_and_spells_others() -> None:
    tokenizer = train_detector.build_tokenizer()
    for word in vocabulary():
        assert len(tokenizer(word)["input_ids"]) == 2 + sum(c.isdigit() for c in word) + (not word.isdigit()) * 1
    ids = tokenizer("a zébra 猫")["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 1
    assert max(ids) == ids[-1] == tokenizer.eos_token_id  # where OWL-ViT reads
    assert tokenizer.pad_token_id == 0 < ids[0]


@pytest.mark.slow
def test_a_run_resumes_and_its_folder_is_transformers_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = []
    for _ in range(40):
        data = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(data, "JPEG")
        photos.append(data.getvalue())
    table = pa.table({"image": photos, "label": [CLASSES[i % 10] for i in range(40)]})
    pq.write_table(table, tmp_path / "photos.parquet")

    def run(steps: int) -> list[int]:
        size = "--side 48 --drawn 48 --width 48 --layers 2 --heads 2 --text-width 32"
        options = f"--steps {steps} --batch 8 --scenes 40 --mosaics 40 --log-every 1 --save-every 2 {size}".split()
        paths = ["--cifar", str(tmp_path / "photos.parquet"), "--out", str(tmp_path / "run")]
        command = [sys.executable, "-m", "clipsieve.inference.mini.train_detector", *paths, *options]
        subprocess.run(command, check=True)
        return [json.loads(line)["step"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]

    def words() -> dict[str, int]:
        read = json.loads((tmp_path / "run/owlvit/tokenizer.json").read_text())
        return dict(read["model"]["vocab"])

    assert run(2) == [1, 2]
    before = words()
    assert run(3) == [1, 2, 3]
    assert words() == before  # its weights were trained with these
    model = OwlViTForObjectDetection.from_pretrained(tmp_path / "run/owlvit")
    processor = AutoProcessor.from_pretrained(tmp_path / "run/owlvit")
    inputs = processor(text=[["a red circle", "a zebra"]], images=Image.new("RGB", (90, 70)), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 48, 48)
    with torch.inference_mode():
        assert model(**inputs).logits.shape == (1, 36, 2)


@pytest.mark.slow
def test_the_shipped_detector_finds_a_red_circle_with_plain_transformers() -> None:
    model = OwlViTForObjectDetection.from_pretrained(MINI_DETECTOR, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(MINI_DETECTOR)
    things = [("circle", "red", 0.3, 0.6), ("square", "red", 0.72, 0.7), ("circle", "blue", 0.6, 0.2)]
    objects = tuple(SceneObject(s, c, "plain", "medium", x, y, 0.3, rgb=COLOURS[c]) for s, c, x, y in things)
    scene = Scene(objects, "plain", (150, 160, 140), 0)
    texts = [f"a {thing.colour} {thing.shape}" for thing in objects]
    inputs = processor(text=[[*texts, "a green star"]], images=render(scene, 192), return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    score, patch = outputs.logits[0].sigmoid().max(dim=0)
    assert (score[:3] > 0.3).all()
    assert score[3] < 0.2
    for best, box in zip(patch[:3].tolist(), tight_boxes(scene, 192), strict=True):
        x, y, width, height = outputs.pred_boxes[0, best].tolist()
        found = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        assert np.abs(np.array(found) - box).max() < 0.06
