"""What does decoding an image take in memory, by format, and does `clipsieve.image_costs` say so beforehand?

    python -m benchmarks.decoding_memory [--quick]

Each file is decoded in a process of its own, as a model sees it (large ones reduced) and whole; the system's high-water
mark of that process, above what it had before, is compared with what is reserved. Files have 9,400 x 9,500 pixels, or
4,000 x 4,000 where encoding takes long. Needs Linux, and 4 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LARGE, SMALL, QUICK = (9400, 9500), (4000, 4000), (1200, 1000)


def files(folder: Path, quick: bool) -> Iterator[tuple[str, Path]]:
    """Name and place of one file of each kind."""
    import pillow_heif

    large, small = (QUICK, QUICK) if quick else (LARGE, SMALL)
    for name, size, mode, suffix, options in (
        ("PNG, RGBA", large, "RGBA", "png", {}),
        ("PNG, RGB", large, "RGB", "png", {"compress_level": 1}),
        ("PNG, palette", large, "P", "png", {"compress_level": 1}),
        ("PNG, 16 bits", large, "I;16", "png", {"compress_level": 1}),
        ("JPEG, baseline", large, "RGB", "jpg", {}),
        ("JPEG, baseline, CMYK", large, "CMYK", "jpg", {}),
        ("JPEG, progressive", large, "RGB", "jpg", {"progressive": True}),
        ("JPEG, progressive, 4:4:4", large, "RGB", "jpg", {"progressive": True, "subsampling": 0}),
        ("JPEG, progressive, CMYK", large, "CMYK", "jpg", {"progressive": True}),
        ("BMP", large, "RGB", "bmp", {}),
        ("GIF", large, "P", "gif", {}),
        ("TIFF, LZW", large, "RGB", "tif", {"compression": "tiff_lzw"}),
        ("TIFF, float", large, "F", "tif", {"compression": "tiff_lzw"}),
        ("WebP, lossy", large, "RGB", "webp", {"method": 0, "quality": 50}),
        ("WebP, lossless", large, "RGB", "webp", {"method": 0, "lossless": True, "quality": 0}),
        ("WebP, lossless, RGBA", large, "RGBA", "webp", {"method": 0, "lossless": True, "quality": 0}),
        ("TGA", large, "RGB", "tga", {"compression": "tga_rle"}),
        ("SGI", large, "RGB", "sgi", {}),
        ("JPEG 2000", small, "RGB", "jp2", {}),
        ("AVIF", small, "RGB", "avif", {"speed": 10, "quality": 50}),
        ("AVIF, RGBA", small, "RGBA", "avif", {"speed": 10, "quality": 50}),
        ("HEIC", small, "RGB", "heic", {}),
        ("HEIC, RGBA", small, "RGBA", "heic", {}),
        ("DDS", small, "RGB", "dds", {}),
    ):
        path = folder / f"image.{suffix}"
        image = picture(size, mode)
        if suffix == "heic":
            pillow_heif.from_pillow(image).save(path, quality=50)
        else:
            image.save(path, **options)
        yield name, path


def picture(size: tuple[int, int], mode: str) -> Image.Image:
    """A gradient in each channel."""
    grey = Image.linear_gradient("L").resize(size)
    if mode == "I;16":
        return Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    if mode in ("P", "F"):
        return grey.convert(mode)
    image = Image.merge("RGB", (grey, grey.rotate(180), grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    if mode == "RGBA":
        image.putalpha(grey)
        return image
    return image.convert(mode)


def decode_one(path: str, how: str) -> None:
    """What the measured process does; prints what it took and what would have been reserved, in bytes."""
    from clipsieve.heif import open_image
    from clipsieve.image_costs import decoding_bytes
    from clipsieve.raster import Raster, reduction

    Image.init()
    Image.MAX_IMAGE_PIXELS = None
    data = Path(path).read_bytes()
    if path.endswith("heic"):
        import pillow_heif.as_plugin  # noqa: F401  # its libraries are no matter of the image
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    opened = open_image(data)
    width, height = opened.size
    factor = 1 if how == "whole" else reduction(width, height)
    reserved = decoding_bytes(opened, factor)
    raster = Raster(opened)
    raster.whole() if how == "whole" else raster.reduced(factor)
    print(json.dumps({"taken": status("VmHWM") - before, "reserved": reserved, "pixels": width * height}))


def status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def main() -> int:
    """Measure, keep and print the table; 1 if more was taken than reserved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images")
    args = parser.parse_args()
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files(Path(folder), args.quick):
            for how in ("model", "whole"):
                command = [sys.executable, "-m", "benchmarks.decoding_memory", "--decode", str(path), how]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                cases.setdefault(name, {})[how] = json.loads(done.stdout)
    print("| format | for a model: taken, MB | reserved | whole: taken, MB | reserved | bytes a pixel, whole |")
    print("|---|---|---|---|---|---|")
    short = []
    for name, one in cases.items():
        cells = [f"{one[how][what] / 1e6:,.0f}" for how in ("model", "whole") for what in ("taken", "reserved")]
        print(f"| {name} | {' | '.join(cells)} | {one['whole']['taken'] / one['whole']['pixels']:.1f} |")
        short += [f"{name} ({how})" for how in one if one[how]["taken"] > 1.02 * one[how]["reserved"] + 2**21]
    if short:
        print(f"More was taken than reserved: {', '.join(short)}", file=sys.stderr)
    return min(1, len(short))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--decode"]:
        decode_one(*sys.argv[2:4])
    else:
        sys.exit(main())
