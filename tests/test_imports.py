"""The import table: who may import whom. Imports inside functions count as much as those at the top."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("clipsieve", "inference", "index", "back")

# Room -> the rooms it may import, beside itself.
MAY_IMPORT = {
    "clipsieve": set(),
    "inference": {"clipsieve"},
    "index": {"clipsieve"},
    "back": {"clipsieve", "index"},
}
# Package -> where alone it may be imported: rooms, or single files.
AT_HOME = {
    "torch": {"inference", "index/rows.py", "index/screen.py", "index/coarse_products.py"},
    "torchvision": {"inference"},
    "open_clip": {"inference"},
    "transformers": {"inference"},
    "timm": {"inference"},
    "sentence_transformers": {"inference"},
    "httpcore2": {"inference"},
    "httpx2": {"inference", "clipsieve/client.py"},
    "faiss": {"index"},
    "flask": {"back"},
    "redis": {"back"},
}
# Where real objects are made and passed on: these files may import every room.
COMPOSITION_ROOT = re.compile(
    r"clipsieve/(cli|opening|pictures|grading|labelling|demo|demo_scenes|access|served_\w+|commands_\w+)\.py"
)

# clipsieve/inference and its like are links; glob's ** does not follow them, so that each file comes once.
FILES = sorted(path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).glob("**/*.py"))
FILES = [f for f in FILES if not any((ROOT / f).parents[i].is_symlink() for i in range(len(Path(f).parts) - 1))]


def imported(source):
    """Dotted names of every import in the source, whole: `from a.b import c` is "a.b.c"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names)


def room_of(name):
    """The room that an import reaches into; None for other packages."""
    first, *rest = name.split(".")
    if first != "clipsieve":
        return None
    return rest[0] if rest and rest[0] in ROOMS[1:] else "clipsieve"


def faults(path, source):
    room = path.split("/")[0]
    for name in imported(source):
        first = name.split(".")[0]
        if first == "" or first in ROOMS[1:]:
            yield f"{name}: import rooms as clipsieve.<room>"
        reached = room_of(name)
        if reached not in {None, room, *MAY_IMPORT[room]} and not COMPOSITION_ROOT.fullmatch(path):
            yield f"{name}: {room} may import {sorted(MAY_IMPORT[room]) or 'no room'}"
        if first in AT_HOME and not {room, path} & AT_HOME[first]:
            yield f"{name}: {first} lives in {sorted(AT_HOME[first])}"


@pytest.mark.parametrize("path", FILES)
def test_a_file_imports_only_what_its_room_may(path):
    assert list(faults(path, (ROOT / path).read_text())) == []


def test_every_room_is_looked_at():
    assert {f.split("/")[0] for f in FILES} == set(ROOMS)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("index/query.py", "import torch"),
        ("index/query.py", "def f():\n    from torch import nn"),
        ("index/query.py", "from clipsieve.inference import run"),
        ("index/query.py", "from clipsieve import inference"),
        ("inference/run.py", "import clipsieve.index.build"),
        ("inference/run.py", "import faiss"),
        ("inference/run.py", "from inference import reader"),
        ("inference/run.py", "from . import reader"),
        ("back/app.py", "from clipsieve.inference.embedder import load"),
        ("clipsieve/types.py", "from clipsieve.index import rule"),
        ("clipsieve/cli.py", "import flask"),
    ],
)
def test_the_table_finds_what_it_forbids(path, source):
    assert list(faults(path, source)) != []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("index/rows.py", "import torch"),
        ("index/flat.py", "from clipsieve import types"),
        ("back/app.py", "from clipsieve.index.query import ask\nimport flask"),
        ("clipsieve/cli.py", "from clipsieve.inference import run"),
    ],
)
def test_and_lets_through_what_it_allows(path, source):
    assert list(faults(path, source)) == []
