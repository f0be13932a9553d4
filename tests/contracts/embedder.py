"""What every embedder does. A new one subclasses these and names a fixture or makes itself."""

import io

import numpy as np
import pytest
from PIL import Image

from clipsieve.errors import InputError
from clipsieve.inference.embedder import StagedTextEmbedder
from clipsieve.protocols import ImageEmbedder, TextEmbedder


def _image(seed, format="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((70, 50)).save(file, format)
    return file.getvalue()


class ImageEmbedderContract:
    """Subclass it as `class TestMine(ImageEmbedderContract)` with a fixture `embedder`."""

    @pytest.fixture
    def embedder(self):
        raise NotImplementedError

    def test_it_is_one(self, embedder):
        assert isinstance(embedder, ImageEmbedder)
        assert embedder.dim >= 1
        assert embedder.model.name
        assert embedder.model.weights

    def test_rows_are_unit_float32_in_order(self, embedder):
        images = [_image(i) for i in range(5)]
        rows = embedder.embed_images(images)
        assert rows.shape == (5, embedder.dim)
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(embedder.embed_images(images[::-1])[::-1], rows, atol=1e-5)

    def test_a_row_does_not_depend_on_its_neighbours(self, embedder):
        rows = embedder.embed_images([_image(i) for i in range(3)])
        np.testing.assert_allclose(embedder.embed_images([_image(2)])[0], rows[2], atol=1e-5)

    def test_different_images_differ(self, embedder):
        rows = embedder.embed_images([_image(0), _image(1)])
        assert not np.allclose(rows[0], rows[1], atol=1e-5)

    def test_no_images(self, embedder):
        rows = embedder.embed_images([])
        assert rows.shape == (0, embedder.dim)
        assert rows.dtype == np.float32

    def test_a_broken_image_is_named_by_its_position(self, embedder):
        with pytest.raises(InputError, match="Image 1 "):
            embedder.embed_images([_image(0), b"no image"])


class StagedEmbedderContract(ImageEmbedderContract):
    """The same for one in two steps."""

    def test_two_steps_are_one(self, embedder):
        images = [_image(0), _image(1)]
        rows = embedder.embed_tensors([embedder.preprocess(data) for data in images])
        np.testing.assert_array_equal(rows, embedder.embed_images(images))
        assert embedder.embed_tensors([]).shape == (0, embedder.dim)
        assert embedder.lanes >= 1

    def test_finished_pixels_are_taken_where_they_can_be(self, embedder):
        if embedder.pixels is None:
            return
        shape = embedder.pixels
        assert shape[0] == 3
        pixels = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
        rows = embedder.embed_tensors(embedder.from_pixels(pixels))
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert not np.allclose(rows[0], rows[1], atol=1e-5)
        with pytest.raises(InputError, match="shape"):
            embedder.from_pixels(pixels[:, :, 1:])


class TextEmbedderContract:
    """Subclass it as `class TestMine(TextEmbedderContract)` with a fixture `embedder`."""

    @pytest.fixture
    def embedder(self):
        raise NotImplementedError

    def test_it_is_a_text_embedder(self, embedder):
        assert isinstance(embedder, TextEmbedder)

    def test_text_rows_are_unit_float32_in_order(self, embedder):
        texts = ["a red bus", "a dog", "", "two red truck " * 200]
        rows = embedder.embed_texts(texts)
        assert rows.shape == (4, embedder.dim)
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(embedder.embed_texts(texts[::-1])[::-1], rows, atol=1e-5)
        np.testing.assert_allclose(embedder.embed_texts(texts[:1])[0], rows[0], atol=1e-5)
        assert not np.allclose(rows[0], rows[1], atol=1e-5)

    def test_no_texts(self, embedder):
        assert embedder.embed_texts([]).shape == (0, embedder.dim)


class StagedTextEmbedderContract(TextEmbedderContract):
    """The same for one in two steps."""

    def test_two_text_steps_are_one(self, embedder):
        assert isinstance(embedder, StagedTextEmbedder)
        texts = ["a red bus", "", "two red truck " * 200]
        rows = embedder.embed_tokens(embedder.tokenize(texts))
        np.testing.assert_array_equal(rows, embedder.embed_texts(texts))
        assert embedder.embed_tokens(embedder.tokenize([])).shape == (0, embedder.dim)


class TokenIdsContract(StagedTextEmbedderContract):
    """For those that also take token ids."""

    def test_token_ids_are_as_good_as_their_text(self, embedder):
        for text in ("a red bus", "", "two red truck " * 200):
            (tokens,) = embedder.tokenize([text])
            ids = tokens["input_ids"] if "input_ids" in tokens else next(iter(tokens.values()))
            (made,) = embedder.from_ids(ids[np.newaxis].astype(np.int64))
            assert {name: (v.dtype, v.tolist()) for name, v in made.items()} == {
                name: (v.dtype, v.tolist()) for name, v in tokens.items()
            }
            assert len(ids) == embedder.context

    def test_token_ids_that_cannot_be_are_refused(self, embedder):
        ids = np.zeros((2, embedder.context), np.int64)
        for wrong in (-1, 2**40):
            ids[1, 1] = wrong
            with pytest.raises(InputError, match=f"token id {wrong} "):
                embedder.from_ids(ids)
        with pytest.raises(InputError, match="shape"):
            embedder.from_ids(ids[:, 1:])
