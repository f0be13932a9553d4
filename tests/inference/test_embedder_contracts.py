import functools

import pytest

from clipsieve.inference.batcher import batched
from clipsieve.inference.embedder import load_embedder, load_text_embedder
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.text_cache import CachedEmbedder, TextCache
from tests.contracts.embedder import (
    ImageEmbedderContract,
    StagedEmbedderContract,
    StagedTextEmbedderContract,
    TextEmbedderContract,
    TokenIdsContract,
)


@functools.cache
def image_model(name):
    """Loaded once: an embedder keeps nothing of what it was asked."""
    return load_embedder(name, device="cpu")


@functools.cache
def text_model(name):
    return load_text_embedder(name, device="cpu")


class TestFake(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self):
        return FakeEmbedder()


class TestOpenClip(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self, open_clip_folder):
        return image_model(f"local-dir:{open_clip_folder}")


class TestClip(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self, clip_folder):
        return image_model(f"local-dir:{clip_folder}")


class TestSiglip(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self, siglip_folder):
        return image_model(f"hf:{siglip_folder}")


class TestSiglip2(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self, siglip2_folder):
        return image_model(f"hf_clip:{siglip2_folder}")


class TestDino(StagedEmbedderContract):
    @pytest.fixture
    def embedder(self, dino_folder):
        return image_model(str(dino_folder))


@pytest.mark.slow
class TestSentences(StagedTextEmbedderContract):
    @pytest.fixture
    def embedder(self, sentence_folder):
        return text_model(f"local-dir:{sentence_folder}")


class TestMclip(StagedTextEmbedderContract):
    @pytest.fixture
    def embedder(self, mclip_folder):
        return text_model(f"local-dir:{mclip_folder}")


class TestBatchedFake(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self):
        with batched(FakeEmbedder()) as embedder:
            yield embedder


@pytest.mark.slow
class TestBatchedOpenClip(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self, open_clip_folder):
        with batched(image_model(f"local-dir:{open_clip_folder}")) as embedder:
            yield embedder


class TestBatchedDino(StagedEmbedderContract):
    @pytest.fixture
    def embedder(self, dino_folder):
        with batched(image_model(str(dino_folder))) as embedder:
            yield embedder


class TestCached(ImageEmbedderContract, TextEmbedderContract):
    @pytest.fixture
    def embedder(self, open_clip_folder):
        with batched(image_model(f"local-dir:{open_clip_folder}")) as embedder:
            yield CachedEmbedder(embedder)


@pytest.mark.slow
class TestBatchedTexts(StagedTextEmbedderContract):
    @pytest.fixture
    def embedder(self, sentence_folder):
        with batched(text_model(f"local-dir:{sentence_folder}")) as embedder:
            yield embedder


class TestCachedTexts(TextEmbedderContract):
    @pytest.fixture
    def embedder(self, mclip_folder):
        with batched(text_model(f"local-dir:{mclip_folder}")) as embedder:
            yield TextCache(embedder)
