import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from clipsieve.errors import InputError
from clipsieve.inference.decode import decode, decoder, image_extensions
from tests.inference.pictures import encoded, jpeg, picture


def pixels(data, **options):
    image = decode(data, **options)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def png_header(width, height):
    """A PNG that says how large it is, and holds nothing of it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return head + struct.pack(">I", 100) + b"IDAT"


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "TGA", "QOI"])
def test_lossless_formats_give_their_pixels(format):
    image = picture(0)
    np.testing.assert_array_equal(pixels(encoded(image, format)), np.asarray(image))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "JPEG2000", "AVIF"])
def test_lossy_formats_come_near(format):
    image = picture(0)
    assert np.abs(pixels(encoded(image, format, quality=95)) - np.asarray(image)).mean() < 12


def test_jpeg_is_decoded_in_full():
    data = jpeg(0, (640, 480))
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_turns_the_image_upright(orientation, format):
    # Dark left half, and a light upper right quarter: no two of the eight positions look alike.
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, 24:] = 250
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 1)[::-1, :][::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }
    undo[7] = lambda a: np.rot90(a, 2).transpose(1, 0, 2)
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = pixels(encoded(stored, format, exif=exif.tobytes() if format != "TIFF" else exif))
    assert got.shape == upright.shape
    assert np.abs(got - upright).mean() < 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_cost_the_picture():
    assert pixels(encoded(picture(0), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).shape == (48, 64, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    clear = Image.new(mode, (2, 1), (10, 0) if mode == "LA" else (10, 20, 30, 0))
    clear.putpixel((1, 0), (10, 255) if mode == "LA" else (10, 20, 30, 255))
    got = pixels(encoded(clear))
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[0, 1].tolist() == ([10] * 3 if mode == "LA" else [10, 20, 30])


def test_half_transparent_is_half_white():
    assert pixels(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))[0, 0].tolist() == [127] * 3


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_a_palette_with_transparency(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, transparency=transparency))[0].tolist() == [[255] * 3, [200, 100, 50]]


def test_a_transparent_colour_of_rgb():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (4, 5, 6))
    assert pixels(encoded(image, transparency=(1, 2, 3)))[0].tolist() == [[255] * 3, [4, 5, 6]]


def test_sixteen_bits_are_scaled_not_cut():
    ramp = np.array([[0, 257, 32768, 65535]], np.uint16)
    for format in ("PNG", "TIFF"):
        assert pixels(encoded(Image.fromarray(ramp), format))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([np.nan, 0.5, 1.0], [0, 128, 255]),
        ([7e6, 7e6, 7e6], [0, 0, 0]),
    ],
)
def test_floats_are_scaled(values, expected):
    image = Image.fromarray(np.array([values], np.float32))
    assert pixels(encoded(image, "TIFF"))[0, :, 0].tolist() == expected


def test_thirty_two_bits_are_scaled():
    image = Image.fromarray(np.array([[0, 257, 65535]], np.int32))
    assert pixels(encoded(image, "TIFF"))[0, :, 0].tolist() == [0, 1, 255]


def test_cmyk_one_bit_and_grey():
    assert pixels(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[4, 4] == pytest.approx(
        [254, 0, 0], abs=3
    )
    assert pixels(encoded(Image.new("1", (1, 1), 1)))[0, 0].tolist() == [255] * 3
    assert pixels(encoded(Image.new("L", (1, 1), 77)))[0, 0].tolist() == [77] * 3


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"this is no image, whatever its name says\n" * 20, "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
        (jpeg(0)[:300], "damaged or cut short"),
        (jpeg(0)[:700], "damaged or cut short"),
        (encoded(picture(0))[:400], "damaged or cut short"),
        (encoded(picture(0), "GIF")[:1200], "damaged or cut short"),
        (encoded(picture(0), "TIFF")[:400], "."),
        (encoded(picture(0), "WEBP")[:100], "."),
        (png_header(4, 4), "damaged or cut short"),
    ],
)
def test_what_is_no_whole_image_says_why(data, words):
    with pytest.raises(InputError, match=words) as caught:
        decode(data)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("size", [(14_000, 13_000), (40_000, 40_000)])
def test_a_bomb_is_refused_from_its_header(size):
    with pytest.raises(InputError, match=r"pixels.*at most 178956970"):
        decode(png_header(*size))


def test_the_limit_is_a_parameter_and_pillow_keeps_its_own():
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(InputError, match="64 x 48 pixels and at most 3071"):
        decode(jpeg(0), max_pixels=64 * 48 - 1)
    assert decode(jpeg(0), max_pixels=64 * 48).size == (64, 48)
    assert before == Image.MAX_IMAGE_PIXELS


def close(image, other):
    return np.abs(np.asarray(image, np.int16) - np.asarray(other, np.int16)).mean() < 6


def heic(image, **options):
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [heic(picture(1, (200, 150))), encoded(picture(1, (200, 150)), "AVIF"), encoded(picture(1, (200, 150)), "MPO")],
    ids=["HEIC", "AVIF", "MPO"],
)
def test_what_telephones_take_is_read(data):
    assert close(decode(data), picture(1, (200, 150)))
    with pytest.raises(InputError, match="200 x 150 pixels and at most 29999"):
        decode(data, max_pixels=29_999)
    with pytest.raises(InputError, match=r"damaged|no image"):
        decode(data[: len(data) // 3])
    assert "HEIF" not in Image.OPEN  # the program that uses this as a library keeps its own Pillow


def test_heic_without_its_reader_says_what_to_install(monkeypatch):
    with_it = decoder()
    monkeypatch.setattr("clipsieve.heif.has_heif", lambda: False)
    monkeypatch.setattr("clipsieve.inference.decode.has_heif", lambda: False)
    with pytest.raises(InputError, match="pillow-heif, which is not installed"):
        decode(heic(picture(1)))
    assert decoder() != with_it
    assert ".heic" in image_extensions()


def test_extensions_are_lower_case_and_of_pictures():
    extensions = image_extensions()
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".avif", ".jp2"} <= extensions
    assert not {".eps", ".ps", ".pdf", ".svg", ".mpg", ".h5", ".txt", ".json"} & extensions
    assert all(ext == ext.lower() for ext in extensions)


def stored(mode):
    """A picture in a mode, as a file that Pillow opens in it: every other pixel of one with alpha is transparent."""
    image = picture(3).convert("RGBA")
    image.putalpha(Image.fromarray(np.indices((48, 64)).sum(axis=0).astype(np.uint8) * 37))
    if mode == "P with transparency":
        return encoded(picture(3).convert("P"), transparency=bytes(range(256)))
    if mode == "RGB with a transparent colour":
        return encoded(picture(3), transparency=picture(3).getpixel((0, 0)))
    if mode.startswith("I;16"):
        values = np.linspace(0, 65535, 48 * 64).reshape(48, 64)
        return encoded(Image.fromarray(values.astype(">u2" if mode == "I;16B" else np.uint16)), "TIFF")
    if mode in ("I", "F"):
        return encoded(Image.fromarray(np.linspace(-90, 900, 48 * 64).reshape(48, 64)).convert(mode), "TIFF")
    return encoded(image.convert(mode), "TIFF" if mode in ("CMYK", "LAB") else "PNG")


@pytest.mark.parametrize(
    "mode",
    [
        "RGBA",
        "LA",
        "P",
        "P with transparency",
        "RGB with a transparent colour",
        "I;16",
        "I;16B",
        "I",
        "F",
        "CMYK",
        "1",
        "L",
    ],
)
def test_the_reference_is_what_pillow_converts(mode, monkeypatch):
    monkeypatch.setattr("clipsieve.raster.STRIP_PIXELS", 200)  # more strips than one
    data = stored(mode)
    opened = Image.open(io.BytesIO(data))
    assert opened.mode == mode.split()[0]
    opened.load()
    opened.info.pop("transparency", None)  # or Pillow warns that it is lost
    np.testing.assert_array_equal(pixels(data, decoding="reference"), np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_reference_turns_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for mode, format in (("RGB", "JPEG"), ("RGBA", "PNG"), ("CMYK", "JPEG")):
        data = encoded(picture(3).convert(mode), format, exif=exif)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(pixels(data, decoding="reference"), expected)
