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
