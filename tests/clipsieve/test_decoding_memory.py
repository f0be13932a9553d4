"""Large images in processes of their own, whose memory the system measures."""

import json
import subprocess
import sys

import pytest
from PIL import Image

CHILD = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from PIL import Image
from clipsieve.image_memory import ImageMemory
from clipsieve.inference.decode import decode_for_model
from clipsieve.inference.square import fit_square

def status(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) * 1024

def both(image):
    image.resize((224, 224), Image.Resampling.BICUBIC)
    fit_square(np.asarray(image), 960)

memory = ImageMemory(int(sys.argv[3]), None)
data = Path(sys.argv[1]).read_bytes()
decode_for_model(Path(sys.argv[2]).read_bytes(), memory, both)
Path("/proc/self/clear_refs").write_text("5")
idle = status("VmRSS")
count = int(sys.argv[4])
with ThreadPoolExecutor(count) as pool:
    list(pool.map(lambda _: decode_for_model(data, memory, both, sys.argv[5]), range(count)))
print(json.dumps(status("VmHWM") - idle))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    Image.new("RGB", (64, 64)).save(root / "small.png")
    image = Image.new("RGBA", (9400, 9500), (200, 10, 30, 128))
    image.save(root / "rgba.png")
    image.convert("RGB").save(root / "rgb.jpg")
    image.convert("RGB").save(root / "progressive.jpg", progressive=True)
    return root


def taken(folder, name, total, at_once, decoding="own"):
    """Bytes above the idle process."""
    command = [sys.executable, "-c", CHILD, folder / name, folder / "small.png", str(total), str(at_once), decoding]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "decoding"), [("rgba.png", "own"), ("rgba.png", "reference"), ("rgb.jpg", "own")])
def test_a_png_and_a_jpeg_of_ninety_megapixels_take_less_than_half_a_gigabyte(folder, name, decoding):
    assert taken(folder, name, 2**30, 1, decoding) < 500e6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rgba.png", "progressive.jpg"])
def test_four_at_once_take_what_the_total_says(folder, name):
    total = 1000 * 10**6
    assert taken(folder, name, total, 4) < 1.05 * total


@pytest.mark.slow
def test_what_is_reserved_is_what_formats_take():
    command = [sys.executable, "-m", "benchmarks.decoding_memory", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
