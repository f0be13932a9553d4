import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from clipsieve.errors import ModelMismatch
from clipsieve.inference.embedder import load_embedder
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.probe import probe, probe_images


def test_the_images_never_change():
    """A collection on disk was probed with these very pixels."""
    digest = hashlib.sha256()
    for data in probe_images():
        image = Image.open(io.BytesIO(data))
        assert image.mode == "RGB"
        digest.update(str(image.size).encode() + image.tobytes())
    assert digest.hexdigest() == "7a6b9fe91c42734c90bd8e0bb84ae94c71eaac0215914799df2ce50484f26b3a"


@pytest.mark.slow
def test_an_embedder_agrees_with_itself(open_clip_folder, dino_folder):
    for folder in (open_clip_folder, dino_folder):
        embedder = load_embedder(f"local-dir:{folder}", device="cpu")
        probe(embedder).require(probe(embedder))
    assert probe(embedder).texts is None
    assert probe(FakeEmbedder()) == probe(FakeEmbedder())


@pytest.mark.slow
def test_another_model_does_not(open_clip_folder):
    embedder = load_embedder(f"local-dir:{open_clip_folder}", device="cpu")
    seen = probe(embedder)
    module, device = embedder._lanes._idle.get()
    module.visual.proj.copy_(module.visual.proj.flip(0))
    embedder._lanes._idle.put((module, device))
    with pytest.raises(ModelMismatch, match="probe images"):
        seen.require(probe(embedder))


def test_each_is_another_picture():
    rows = FakeEmbedder().embed_images(probe_images())
    assert np.abs(rows @ rows.T - np.eye(3)).max() < 0.9
