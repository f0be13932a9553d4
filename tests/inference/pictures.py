"""Small pictures, and trees of files, for the tests of this room."""

import io

import numpy as np
from PIL import Image


def picture(seed, size=(64, 48)):
    """Smooth random colours: a picture that survives resizing and JPEG, another for every seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def jpeg(seed, size=(64, 48)):
    return encoded(picture(seed, size), "JPEG", quality=90)


def write_tree(root, files):
    """`files`: path relative to root -> bytes."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root
