"""Small pictures: upright, on white, and of whatever can be decoded."""

import base64
import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from clipsieve.back.pictures import shrink, small_jpeg, small_webp
from clipsieve.errors import InputError
from clipsieve.image_memory import ImageMemory
from tests.inference.pictures import encoded

ROOM = ImageMemory()
LEFT_RED = Image.fromarray(np.array([[[255, 0, 0]] * 40 + [[0, 0, 255]] * 40] * 20, np.uint8))


def turned(format, orientation, **options):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(LEFT_RED, format, exif=exif, **options)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_was_taken_upright_is_shown_upright(format):
    """6: what was stored on the left is on top."""
    data = turned(format, 6)
    for small in (small_webp(data, 64, ROOM), small_webp(data, 256, ROOM), base64.b64decode(small_jpeg(data, ROOM))):
        with Image.open(io.BytesIO(small)) as shown:
            assert (shown.width < shown.height, shown.getexif().get(ExifTags.Base.Orientation)) == (True, None)
            red, _, blue = np.asarray(shown.convert("RGB"))[4, shown.width // 2]
            assert (red > 200, blue < 60) == (True, True)


def test_what_is_transparent_is_white_and_16_bits_are_not_cut_off():
    clear = encoded(Image.new("RGBA", (80, 80), (0, 0, 0, 0)))
    assert shrink(clear, 20, ROOM).getpixel((9, 9)) == (255, 255, 255)
    grey = encoded(Image.fromarray(np.full((80, 80), 32768, np.uint16)))
    assert shrink(grey, 20, ROOM).getpixel((9, 9)) == (128, 128, 128)


def test_what_is_small_enough_is_left_as_it_is_if_browsers_show_it():
    png, tiff = encoded(LEFT_RED), encoded(LEFT_RED, "TIFF")
    assert small_webp(png, 80, ROOM) == png
    assert small_webp(png, 79, ROOM)[8:12] == small_webp(tiff, 80, ROOM)[8:12] == b"WEBP"


@pytest.mark.parametrize("cut", [10, 60, 200])
def test_a_damaged_image_is_no_picture(cut):
    data = encoded(Image.effect_noise((80, 80), 50))[:cut]
    assert small_jpeg(data, ROOM) is None
    for make in (shrink, small_webp):
        with pytest.raises(InputError, match="cannot be decoded"):
            make(data, 20, ROOM)
