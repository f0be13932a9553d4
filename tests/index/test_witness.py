"""Copies of a picture are told from other pictures by their perceptual hashes."""

import numpy as np
import pytest
from PIL import Image

from clipsieve.index import witness
from clipsieve.inference.decode import decode
from clipsieve.perceptual import BYTES, hash_of_thumbnail, hashes_as_array, perceptual_hash
from tests.inference.pictures import encoded, picture

SIZE = (180, 150)
PICTURES = [picture(seed, SIZE) for seed in range(30)]


def hashes(images):
    made, known = hashes_as_array([perceptual_hash(image) for image in images])
    assert known.all()
    return made


def cut(image, left, top, right, bottom):
    width, height = image.size
    return image.crop((left, top, width - right, height - bottom))


COPIES = {
    "the same": lambda image: image,
    "JPEG of quality 30": lambda image: decode(encoded(image, "JPEG", quality=30)),
    "half the size": lambda image: image.resize((90, 75)),
    "cut at all sides": lambda image: cut(image, 9, 8, 9, 8),
    "cut at a corner": lambda image: cut(image, 9, 0, 0, 8),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_agree(kind):
    found = witness.difference(hashes(PICTURES), hashes([COPIES[kind](image) for image in PICTURES]))
    assert found.alike.all()


def test_other_pictures_do_not_agree():
    made = hashes(PICTURES)
    one, other = np.triu_indices(len(made), 1)
    assert not witness.difference(made[one], made[other]).alike.any()


def test_neither_do_pictures_that_differ_in_colour_or_in_one_place_alone():
    made = hashes(PICTURES)
    recoloured = []
    for image in PICTURES:
        luminance, blue, red = image.convert("YCbCr").split()
        recoloured.append(Image.merge("YCbCr", [luminance, red, blue]).convert("RGB"))
    found = witness.difference(made, hashes(recoloured))
    assert (found.colour > witness.MOST_COLOUR).mean() > 0.9
    spotted = [image.copy() for image in PICTURES]
    for image in spotted:
        dark = np.asarray(image.convert("L"))[75, 95] < 128
        image.paste(Image.new("RGB", (30, 30), "white" if dark else "black"), (80, 60))
    found = witness.difference(made, hashes(spotted))
    assert (found.spot > witness.MOST_SPOT).all()


def test_what_comes_first_does_not_matter_to_hashes_as_they_lie():
    made = hashes(PICTURES)
    np.testing.assert_allclose(witness.plain_difference(made, made[::-1]), witness.plain_difference(made[::-1], made))
    assert (witness.plain_difference(made, made) == 0).all()


def test_a_blank_picture_has_no_contrast_and_no_direction():
    blank = hashes([Image.new("RGB", SIZE, colour) for colour in ("white", "red")])
    assert (witness.contrast(blank) == 0).all()
    assert (witness.descriptors(blank) == 0).all()
    rows = witness.descriptors(hashes(PICTURES))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (16, 16), (95, 97), (2000, 10)])
def test_a_hash_is_of_one_length_and_of_the_mean_colours(size):
    made = perceptual_hash(Image.new("RGB", size, (200, 30, 60)))
    assert len(made) == BYTES
    y, cb, cr = Image.new("RGB", (1, 1), (200, 30, 60)).convert("YCbCr").tobytes()
    assert made == bytes([y]) * 256 + bytes([cb]) * 64 + bytes([cr]) * 64


def test_that_of_a_thumbnail_is_near_that_of_the_image():
    image = picture(3, (900, 700))
    small = encoded(image.resize((256, 199)), "WEBP", quality=75)
    stored, known = hashes_as_array([perceptual_hash(image), hash_of_thumbnail(small), hash_of_thumbnail(b"no"), None])
    assert known.tolist() == [True, True, False, False]
    assert witness.difference(stored[:1], stored[1:2]).whole[0] < witness.SURELY
