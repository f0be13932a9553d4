"""The recipe of the demo model: graded truth, losses that ask for it, and a run that resumes."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipsieve.inference.mini import train
from clipsieve.inference.mini.captions import CLASSES
from clipsieve.inference.mini.scenes import COLOURS, SHAPES, Ask, Part, sample_scene


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_many_scenes_are_graded_as_one_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng) for _ in range(8)]
    codes = np.stack([train.encode(scene) for scene in scenes])
    captions = train.draw_captions(rng, codes)
    asks = [ask for ask in captions.asks if ask is not None]
    # parts that overlap are the hard case: one object may fit both, and then two are needed
    asks += [Ask((Part(colour), Part(shape=shape))) for colour in COLOURS for shape in SHAPES[:4]]
    asks += [Ask((Part(colour), Part(colour))) for colour in COLOURS]
    for ask in asks:
        assert train.matches(ask, codes).tolist() == [ask.matches(scene) for scene in scenes], ask


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
@pytest.mark.slow
def test_a_detailed_caption_implies_its_plain_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.stack([train.encode(sample_scene(rng)) for _ in range(16)])
    captions = train.draw_captions(rng, codes)
    assert captions.details
    for less, more in captions.details:
        plain, detailed = captions.asks[less], captions.asks[more]
        assert plain is not None
        assert detailed is not None
        assert not (train.matches(detailed, codes) & ~train.matches(plain, codes)).any()


def test_the_losses_fall_as_the_logits_near_the_truth() -> None:
    rng = np.random.default_rng(3)
    codes = np.stack([train.encode(sample_scene(rng)) for _ in range(16)])
    labels = rng.integers(0, 10, 8)
    captions = train.draw_captions(rng, codes)
    truth = np.zeros((24, len(captions.texts)), np.float32)
    for i, ask in enumerate(captions.asks):
        if ask is None:
            truth[16:, i] = captions.classes[i][labels]
        else:
            truth[:16, i] = train.matches(ask, codes)
            truth[:16, i] *= 1 + 0.5 * any(i == more for _, more in captions.details)  # detail scores higher
    right = train.losses(torch.from_numpy(16 * truth - 8), captions, codes, labels)
    wrong = train.losses(torch.from_numpy(8 - 16 * truth), captions, codes, labels)
    for name in right:
        assert right[name] < 0.25 * wrong[name], name


@pytest.mark.slow
def test_a_run_resumes_and_its_folder_is_open_clips_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = []
    for _ in range(40):
        data = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(data, "JPEG")
        photos.append(data.getvalue())
    table = pa.table({"image": photos, "label": [CLASSES[i % 10] for i in range(40)]})
    pq.write_table(table, tmp_path / "photos.parquet")

    def run(steps: int) -> list[int]:
        options = f"--steps {steps} --batch 16 --scenes 40 --log-every 1 --save-every 2".split()
        paths = ["--cifar", str(tmp_path / "photos.parquet"), "--out", str(tmp_path / "run")]
        subprocess.run([sys.executable, "-m", "clipsieve.inference.mini.train", *paths, *options], check=True)
        return [json.loads(line)["step"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]

    assert run(3) == [1, 2, 3]
    assert run(5) == [1, 2, 3, 4, 5]
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'run/clip'}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'run/clip'}")(["a red circle", "a xylophone"])
    assert tokens.shape == (2, 20)
    assert tokens[1, :4].tolist() == [2, tokens[0, 1], 1, tokens.max()]  # [BOS] a [UNK] [EOS]
    model.eval()
    with torch.inference_mode():
        images = preprocess(Image.new("RGB", (90, 70))).unsqueeze(0)
        assert model.encode_image(images).shape == model.encode_text(tokens[:1]).shape == (1, 256)
