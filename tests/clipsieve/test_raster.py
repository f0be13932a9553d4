"""Large images are reduced strip by strip; what that costs is told beforehand, and stays what it was for others."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from clipsieve import raster
from clipsieve.errors import InputError
from clipsieve.image_files import open_raster, upright_size
from clipsieve.image_memory import ImageMemory
from clipsieve.raster import LARGE_PIXELS, Raster, reduction
from tests.inference.pictures import encoded, picture

ROOM = ImageMemory()


def as_before(data):
    """The plain way: the whole image turned upright, laid on white and made RGB at once."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if "A" in image.mode or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def stored(mode, orientation, format, size=(67, 45)):
    image = picture(3, size).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(size))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image.convert(mode), format, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "format"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("L", "PNG"), ("CMYK", "JPEG"), ("RGB", "TIFF")],
)
def test_strips_give_what_the_whole_gives(monkeypatch, mode, format, orientation):
    monkeypatch.setattr(raster, "STRIP_PIXELS", 200)
    data = stored(mode, orientation, format)
    expected = as_before(data)
    with open_raster(data, ROOM) as found:
        assert found.size == expected.size
        np.testing.assert_array_equal(np.asarray(found.whole()), np.asarray(expected))
        for box in [(0, 0, 9, 7), (11, 5, 30, 44), (1, 2, *expected.size)]:
            np.testing.assert_array_equal(np.asarray(found.crop(box)), np.asarray(expected.crop(box)))


@pytest.mark.parametrize("values", [np.arange(3015).reshape(45, 67) * 20, np.linspace(-3, 9, 3015).reshape(45, 67)])
def test_values_of_many_bits_are_scaled_alike_in_all_strips(monkeypatch, values):
    for kind in (np.uint16, np.int32, np.float32):
        data = encoded(Image.fromarray(values.clip(0 if kind is np.uint16 else None).astype(kind)), "TIFF")
        with open_raster(data, ROOM) as found:
            expected = np.asarray(found.whole())
        with monkeypatch.context() as patched, open_raster(data, ROOM) as found:
            patched.setattr(raster, "STRIP_PIXELS", 100)
            np.testing.assert_array_equal(np.asarray(found.whole()), expected)


@pytest.mark.parametrize(
    ("size", "factor"), [((9400, 9500), 4), ((7000, 7000), 1), ((7100, 7100), 2), ((60_000, 1000), 2)]
)
def test_how_far_is_reduced(size, factor):
    assert reduction(*size) == factor
    assert factor == 1 or size[0] * size[1] > LARGE_PIXELS


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("mode", "format"), [("RGB", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("L", "JPEG"), ("P", "PNG")]
)
def test_reduced_is_the_mean_of_pixels(monkeypatch, mode, format, orientation):
    monkeypatch.setattr(raster, "STRIP_PIXELS", 200)
    data = stored(mode, orientation, format, (64, 48) if orientation > 1 else (67, 45))
    with open_raster(data, ROOM, factor=4) as found:
        small = found.reduced(4)
        whole = as_before(data)
        assert (found.size, small.size) == (whole.size, tuple(-(-side // 4) for side in whole.size))
        expected = np.asarray(whole.reduce(4), np.int16)
        assert np.abs(np.asarray(small, np.int16) - expected).mean() < (3 if format == "JPEG" else 0.6)


def test_exif_behind_the_pixels_counts_as_well():
    data = stored("RGB", 6, "PNG")
    start = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[start : start + 4], "big")
    end = data.index(b"IEND") - 4
    moved = data[:start] + data[start + length : end] + data[start : start + length] + data[end:]
    assert upright_size(moved, ROOM) == (45, 67)


def test_a_picture_keeps_its_profile_and_no_exif():
    data = encoded(picture(0), "JPEG", icc_profile=b"profile", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")
    with open_raster(data, ROOM) as found:
        image = found.whole()
    assert (type(image), image.info) == (Image.Image, {"icc_profile": b"profile"})


def test_an_icon_that_holds_a_bomb_is_not_opened(monkeypatch):
    icon = encoded(picture(0, (64, 64)), "ICO", sizes=[(64, 64)])
    large = encoded(Image.new("L", (2000, 1000)))
    start = icon.index(b"\x89PNG")
    bomb = icon[:14] + len(large).to_bytes(4, "little") + icon[18:start] + large
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("opened, and so decoded"))
    with pytest.raises(InputError, match="icon holds an image of 2000 x 1000"), open_raster(bomb, ROOM):
        pass


def test_nothing_is_decoded_before_it_is_reserved(monkeypatch):
    files = [encoded(picture(0)), encoded(picture(0), "JPEG", progressive=True), encoded(picture(0), "GIF")]
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    for data in files:
        with open_raster(data, ROOM) as found:
            assert isinstance(found, Raster)
