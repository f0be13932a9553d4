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


class TestFake(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self):
        return FakeEmbedder()


class TestOpenClip(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self, open_clip_folder):
        return load_embedder(f"local-dir:{open_clip_folder}", device="cpu")


class TestClip(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self, clip_folder):
        return load_embedder(f"local-dir:{clip_folder}", device="cpu")


class TestSiglip(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self, siglip_folder):
        return load_embedder(f"hf:{siglip_folder}", device="cpu")


class TestSiglip2(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self, siglip2_folder):
        return load_embedder(f"hf_clip:{siglip2_folder}", device="cpu")


class TestDino(StagedEmbedderContract):
    @pytest.fixture
    def embedder(self, dino_folder):
        return load_embedder(str(dino_folder), device="cpu")


class TestSentences(StagedTextEmbedderContract):
    @pytest.fixture
    def embedder(self, sentence_folder):
        return load_text_embedder(f"local-dir:{sentence_folder}", device="cpu")


class TestMclip(StagedTextEmbedderContract):
    @pytest.fixture
    def embedder(self, mclip_folder):
        return load_text_embedder(f"local-dir:{mclip_folder}", device="cpu")


class TestBatchedFake(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self):
        with batched(FakeEmbedder()) as embedder:
            yield embedder


class TestBatchedOpenClip(StagedEmbedderContract, TokenIdsContract):
    @pytest.fixture
    def embedder(self, open_clip_folder):
        with batched(load_embedder(f"local-dir:{open_clip_folder}", device="cpu")) as embedder:
            yield embedder


class TestBatchedDino(StagedEmbedderContract):
    @pytest.fixture
    def embedder(self, dino_folder):
        with batched(load_embedder(str(dino_folder), device="cpu")) as embedder:
            yield embedder


class TestCached(ImageEmbedderContract, TextEmbedderContract):
    @pytest.fixture
    def embedder(self, open_clip_folder):
        with batched(load_embedder(f"local-dir:{open_clip_folder}", device="cpu")) as embedder:
            yield CachedEmbedder(embedder)


class TestBatchedTexts(StagedTextEmbedderContract):
    @pytest.fixture
    def embedder(self, sentence_folder):
        with batched(load_text_embedder(f"local-dir:{sentence_folder}", device="cpu")) as embedder:
            yield embedder


class TestCachedTexts(TextEmbedderContract):
    @pytest.fixture
    def embedder(self, mclip_folder):
        with batched(load_text_embedder(f"local-dir:{mclip_folder}", device="cpu")) as embedder:
            yield TextCache(embedder)
