import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clipsieve


def test_all_lists_the_public_names():
    """Every error, and each noun imported for type checkers, is in __all__; nothing else is."""
    source = Path(clipsieve.__file__).read_text()
    block = source.partition("if TYPE_CHECKING:")[2].partition("__version__")[0]
    typed = set(re.findall(r"^        (\w+),$", block, re.MULTILINE))
    assert set(clipsieve.__all__) == typed | {"__version__", "open"}
    assert clipsieve.__all__ == sorted(clipsieve.__all__)
    errors = vars(importlib.import_module("clipsieve.errors")).values()
    assert {e.__name__ for e in errors if isinstance(e, type)} <= set(clipsieve.__all__)


@pytest.mark.parametrize("name", clipsieve.__all__)
def test_every_name_resolves(name):
    assert getattr(clipsieve, name) is not None


def test_other_names_do_not():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = clipsieve.nonsense


def test_importing_is_free():
    code = "import sys, clipsieve; clipsieve.__version__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pyarrow", "torch", "faiss", "flask", "httpx2"} & set(loaded)
