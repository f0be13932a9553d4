"""Images as texts: what is read, and that nothing else passes for one."""

import base64
from urllib.parse import quote

import pytest

from clipsieve.back.image_text import holds_base64, is_data_url, read_image_text
from clipsieve.errors import InputError

DATA = bytes(range(248, 256)) * 5 + b"\xfb\xef\xbe\xff"
PLAIN = base64.b64encode(DATA).decode()
SAFE = base64.urlsafe_b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        SAFE,
        PLAIN.rstrip("="),
        SAFE.rstrip("="),
        f"\n {PLAIN}\r\n",
        base64.encodebytes(DATA).decode(),
        f"data:image/jpeg;base64,{PLAIN}",
        f"DATA:image/jpeg;BASE64,{PLAIN}",
        f" data:application/octet-stream;base64,{PLAIN}",
        f"data:;base64,{SAFE.rstrip('=')}",
        f"data:image/png;charset=utf-8;base64,{PLAIN}",
        f"data:image/png;name=a.png;base64;x=y,{PLAIN}",
        f"data:text/plain; base64,{quote(PLAIN, safe='')}",
        f"\ufeffdata:image/png;base64,{PLAIN}",
    ],
)
def test_every_spelling_is_read(text):
    assert read_image_text(text, "image") == DATA


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the image is empty"),
        ("  \n", "the image is empty"),
        ("!!!!", "not base64"),
        ("QUJ D", "not base64"),
        ("QUJDR", "cut short"),
        ("QU=JD", "not base64"),
        ("größe", "not base64"),
        ("QUJD\0", "not base64"),
        ("https://example.com/x.png", "an address is no image"),
        ("FILE:///etc/passwd", "an address is no image"),
        ("s3://bucket/x", "an address is no image"),
        ("photos/a.jpg", "not base64"),
        ("data:image/png;base64,", "a data URL is empty"),
        ("data:image/png;base64,!!", "not base64"),
        ("data:image/png,abc", "data URL in base64"),
        ("data:image/png;base64", "data URL in base64"),
        ("data:,hello", "data URL in base64"),
        ("data:image/svg+xml;utf8,<svg/>", "data URL in base64"),
    ],
)
def test_what_is_no_image_is_said(text, words):
    with pytest.raises(InputError, match=r"^field: ") as raised:
        read_image_text(text, "field")
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "text", ["data: a study, of cats", "database: x, y", "a data:image/png", "data, and more", "date:"]
)
def test_texts_are_no_data_urls(text):
    assert not is_data_url(text)


@pytest.mark.parametrize(
    "text", ["data:image/", "'DATA:image/png", "data : image/png;base64,QQ", "<data:text/plain,a", "data:,a"]
)
def test_what_begins_as_a_data_url_is_one(text):
    assert is_data_url(text)


def test_where_nothing_needs_to_be_fetched():
    assert holds_base64("Data:;Base64,QQ")
    assert not holds_base64("data:image/png,")
    assert not holds_base64("http://example.com/;base64,")
