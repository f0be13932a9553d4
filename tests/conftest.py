"""What tests of several rooms need."""

import subprocess
import sys
import zipfile

import pytest
from hypothesis import settings

settings.register_profile("clipsieve", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("clipsieve")

CLIP_RETRIEVAL = "clip-retrieval==2.45.0"
REQUIREMENTS = (
    "numpy<2", "pyarrow<16", "pandas<3", "faiss-cpu<2", "flask<4", "flask_restful<1", "flask_cors<5",
    "prometheus-client<1", "h5py<4", "fire<0.6", "tqdm", "fsspec", "pillow", "autofaiss<3", "setuptools<81", "requests",
)  # fmt: skip
"""clip-retrieval 2.45's own pins of what its back and index import. The rest of its tree are models and downloads."""


@pytest.fixture(scope="session")
def their_python(tmp_path_factory):
    """clip-retrieval in an environment of its own. Fails where no package index can be reached."""
    folder = tmp_path_factory.mktemp("clip-retrieval")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", CLIP_RETRIEVAL], check=True)
    subprocess.run([*pip, *REQUIREMENTS], check=True)
    return python


@pytest.fixture(scope="session")
def their_front(tmp_path_factory):
    """The folder of clip-retrieval's built front, out of its wheel. Fails where no package index can be reached."""
    folder = tmp_path_factory.mktemp("front")
    words = ["download", "--quiet", "--no-deps", "--dest", folder, CLIP_RETRIEVAL]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder, [name for name in files.namelist() if name.startswith("front/build/")])
    return folder / "front" / "build"
