"""What `make lint` refuses beside what its programs do."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def repository(tmp_path):
    for name in ("Makefile", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    return tmp_path


def git(folder, *words):
    subprocess.run(["git", "-C", folder, *words], check=True)


def make_tracked(folder):
    return subprocess.run(["make", "tracked"], cwd=folder, capture_output=True, text=True)


def test_source_alone_passes(repository):
    assert make_tracked(repository).returncode == 0


@pytest.mark.parametrize(
    "name", ["nothing-0.0.3-py2.py3-none-any.whl", ".schemathesis/a.json", "tests/__pycache__/a.pyc", ".ruff_cache/x"]
)
def test_a_tracked_cache_or_wheel_is_refused_by_name(repository, name):
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("x")
    git(repository, "add", "--force", name)
    done = make_tracked(repository)
    assert done.returncode != 0
    assert name in done.stdout
