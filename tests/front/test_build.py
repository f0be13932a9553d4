"""What is built: its size, what it may ask, and that its types are those of the service."""

import gzip
import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.browser import require
from tests.front.conftest import FRONT


def test_the_page_is_small(built):
    def packed(kind):
        return sum(len(gzip.compress(file.read_bytes())) for file in built.rglob(f"*.{kind}"))

    assert 0 < packed("js") <= 40_000
    assert 0 < packed("css") <= 8_000


def test_the_page_names_no_other_place(built):
    for file in [*built.rglob("*.js"), *built.rglob("*.css"), built / "index.html"]:
        elsewhere = set(re.findall(r"https?://[\w.-]+", file.read_text())) - {"http://www.w3.org"}
        assert elsewhere == set(), file


def test_the_lock_file_names_no_registry():
    packages = json.loads((FRONT / "package-lock.json").read_text())["packages"]
    assert len(packages) > 10
    assert [name for name, package in packages.items() if "resolved" in package] == []


@pytest.mark.slow
def test_the_types_are_those_of_the_service(tmp_path):
    node, program = shutil.which("node"), FRONT / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
    if node is None or not program.exists():
        require("openapi-typescript is not installed; `make front` does, with node and npm.")
    said = subprocess.run([sys.executable, FRONT / "describe.py"], capture_output=True, check=True).stdout
    (tmp_path / "openapi.json").write_bytes(said)
    made = tmp_path / "openapi.ts"
    words = [node, program, tmp_path / "openapi.json", "--default-non-nullable=false", "--output", made]
    subprocess.run(words, capture_output=True, check=True)
    assert made.read_text() == (FRONT / "src" / "openapi.ts").read_text(), "front/README.md says how it is made anew"


def test_the_tour_shows_what_it_names_in_small_files():
    docs = FRONT.parent / "docs"
    named = re.findall(r"\]\((tour/[\w.-]+)\)", (docs / "tour.md").read_text())
    assert sorted(named) == sorted(f"tour/{file.name}" for file in (docs / "tour").iterdir())
    assert sum((docs / name).stat().st_size for name in named) < 600_000


@pytest.mark.slow
def test_the_tour_can_be_taken(scenes, tmp_path):
    subprocess.run([sys.executable, FRONT / "tour.py", "--url", scenes.url, "--out", tmp_path], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        file.name for file in sorted((FRONT.parent / "docs" / "tour").iterdir())
    ]
