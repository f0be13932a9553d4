"""A detector that knows colours, and pictures of four of them, for the tests of `detect` and `evaluate`."""

import json

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.inference.fake import FakeDetector, FakeEmbedder
from clipsieve.parts import Parts
from tests.inference.pictures import encoded

SIZE = (64, 48)
QUARTERS = [[0, 0, 32, 24], [32, 0, 32, 24], [0, 24, 32, 24], [32, 24, 32, 24]]
"""Left, top, width and height of the boxes, in pixels."""


def quarters(*colours):
    """A picture of four plain quarters, as PNG."""
    image = Image.new("RGB", SIZE)
    for colour, (x, y, w, h) in zip(colours, QUARTERS, strict=True):
        image.paste(colour, (x, y, x + w, y + h))
    return encoded(image)


class Seer(FakeDetector):
    """It finds the quarters; the text of a colour is as near as can be to a quarter of it, "warm" to red and orange."""

    def __init__(self, name="seer", regions=None):
        super().__init__(256, regions or 4, name)

    def embed_texts(self, texts):
        return np.stack([self._text(text) for text in texts])

    def _text(self, text):
        if text == "warm":
            both = self._text("red") + self._text("orange")
            return (both / np.linalg.norm(both)).astype(np.float32)
        if text in ("red", "orange", "blue", "green"):
            return self.embed_example(quarters(*[text] * 4))
        return super().embed_texts([text])[0]


def run(*argv, code=0, detector=Seer):
    """Runs a command line and checks its exit code; what it said on both streams."""
    parts = Parts(lambda name, **_: FakeEmbedder(name=name), lambda name, *, regions=None, **_: detector(name, regions))
    result = CliRunner().invoke(cli.app, [str(a) for a in argv], obj=parts)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.stdout + result.stderr
    return result


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path
