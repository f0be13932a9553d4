"""The page in a browser, served on drawn scenes and on 10,000 tiny pictures."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.back.page import BUILT
from clipsieve.demo_scenes import make_scenes
from clipsieve.index.examples import unit_rows
from clipsieve.inference.embedder import load_embedder
from clipsieve.manifest import Manifest
from clipsieve.opening import load_model
from clipsieve.parts import Parts
from clipsieve.types import Embeddings
from clipsieve.writer import open_writer
from tests.back.service import running
from tests.browser import launched, require, tab_of

FRONT = Path(__file__).parents[2] / "front"
SCENES, MANY = 240, 10_000


@pytest.fixture(scope="session")
def built():
    """The folder of the built page."""
    if not (BUILT / "index.html").exists():
        require("The page is not built; `make front` builds it.")
    return BUILT


@pytest.fixture(scope="session")
def axe():
    """axe-core's script."""
    file = FRONT / "node_modules" / "axe-core" / "axe.min.js"
    if not file.exists():
        require("axe-core is not installed; `make front` does.")
    return file.read_text()


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A collection of drawn scenes, near-duplicates known."""
    base = tmp_path_factory.mktemp("page")
    make_scenes(base / "images", SCENES)
    made = base / "scenes.clip"
    for words in (["inference", base / "images", made, "--model", "mini"], ["index", made]):
        result = CliRunner().invoke(cli.app, [*map(str, words)], obj=Parts(load_model))
        assert result.exit_code == 0, result.output
    return made


@pytest.fixture(scope="session")
def scenes(built, drawn):
    """A service over them."""
    with running(drawn, "--state", drawn.parent / "state") as service:
        yield service


@pytest.fixture(scope="session")
def offering(built, drawn, tmp_path_factory):
    """A service over them with flags, ratings and a model for other languages, though that one knows English alone."""
    base = tmp_path_factory.mktemp("offering")
    names = ["a red circle", "a blue square", "a yellow star", "a green cross"]
    texts = load_embedder("mini").embed_texts(names)  # type: ignore[attr-defined]  # mini has texts
    save_file({"weight": texts[:1], "bias": np.zeros(1, np.float32)}, base / "head.safetensors")
    np.save(base / "prompts.npy", texts)  # flagged is what is nearest to the second
    (base / "ratings").mkdir()
    for rating in range(10):
        np.save(base / "ratings" / f"rating{rating}.npy", texts[rating // 3])
    heads = ("--safety-head", base / "head.safetensors", "--safety-threshold", 0.1)
    more = ("--violence-prompts", base / "prompts.npy", "--ratings", base / "ratings", "--mclip", "mini")
    with running(drawn, "--state", base / "state", *heads, *more) as service:
        yield service


@pytest.fixture(scope="session")
def many(built, tmp_path_factory):
    """A service over many items around a few texts' vectors."""
    folder = tmp_path_factory.mktemp("many") / "many.clip"
    model = load_embedder("mini")
    texts = model.embed_texts(["a red circle", "a blue square", "a yellow star", "a green cross"])  # type: ignore[attr-defined]  # mini has texts
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(MANY, texts.shape[1])).astype(np.float32) / np.sqrt(texts.shape[1])
    vectors = unit_rows((0.4 * texts[np.arange(MANY) % 4] + noise).astype(np.float32))
    keys = tuple(f"{i:05}.png" for i in range(MANY))
    with open_writer(folder, Manifest(model.model, vectors.shape[1])) as writer:
        thumbs = [png(i % 4) for i in range(MANY)]
        columns = {"width": [8] * MANY, "height": [8] * MANY}
        writer.append(Embeddings(vectors, keys, model.model), thumbs=thumbs, columns=columns)
    with running(folder) as service:
        yield service


def png(which):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), ["crimson", "royalblue", "gold", "seagreen"][which]).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def tab(browser):
    """A tab in which nothing may go wrong."""
    with tab_of(browser, viewport={"width": 1440, "height": 900}) as tab:
        yield tab
        assert tab.errors == []


@pytest.fixture(autouse=True)
def _marks(request):
    """What a test says of the scenes is not there for the next one."""
    yield
    if "scenes" in request.fixturenames:
        service = request.getfixturevalue("scenes")
        said = service.ask("/api/v1/marks")[2]["marks"]
        taken = [{"item": mark["item"], "class": mark["class"]} for mark in said]
        service.ask("/api/v1/marks", taken, method="DELETE")


def asked(request):
    """The JSON of a request's body."""
    return json.loads(request.post_data or "null")
