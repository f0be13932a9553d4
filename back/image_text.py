"""Images that come as texts: in base64, or as a data URL in any of its spellings. All else is refused."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from clipsieve.errors import InputError

_DATA_URL = re.compile(r"\W{0,16}data\s{0,16}:\s{0,16}(?:[\w.+*-]{1,100}/[\w.+*-]{0,100}|[;,])", re.IGNORECASE)
_ADDRESS = re.compile(r"\s*(?:[a-z][a-z0-9+.-]{0,30}://|(?:file|blob|about):)", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,3}")
_LINE_ENDS = re.compile(r"[ \t]*[\r\n]+[ \t]*")
_URLSAFE = str.maketrans("-_", "+/")


def is_data_url(text: str) -> bool:
    """Whether a text begins as a data URL does, well spelt or not. `data: a study, of...` is none."""
    return _DATA_URL.match(text) is not None


def holds_base64(address: str) -> bool:
    """Whether an address is a data URL in base64, for which nothing needs to be fetched."""
    return is_data_url(address) and "base64" in _marks(address.partition(",")[0])


def read_image_text(text: str, what: str) -> bytes:
    """The encoded image that a text is: base64, also urlsafe, in lines or without padding; or a data URL of that.

    what  names the field

    InputError for what is neither. Whether the bytes are an image is for the decoder to say.
    """
    if is_data_url(text):
        head, comma, data = text.partition(",")
        if not (comma and "base64" in _marks(head)):
            raise InputError(f"{what}: an image is a data URL in base64, data:image/jpeg;base64,...")
        found = unquote_to_bytes(data).decode("latin-1")
        name = "a data URL"
    elif _ADDRESS.match(text):
        raise InputError(f"{what}: an address is no image; send the file itself, in base64 or as a data URL.")
    else:
        found, name = text, "the image"
    found = _LINE_ENDS.sub("", found.strip()).translate(_URLSAFE)
    if not found:
        raise InputError(f"{what}: {name} is empty; send the file in base64.")
    if not _BASE64.fullmatch(found):
        raise InputError(f"{what}: {name} is not base64; letters, digits, + and /, or - and _, are.")
    digits = found.rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except binascii.Error:
        raise InputError(f"{what}: {name} is not base64; it is cut short.") from None


def _marks(head: str) -> list[str]:
    return [mark.strip().lower() for mark in head.split(";")[1:]]
