"""A coarse copy of a collection's rows: int8, a quarter of float32, with a bound on what each row lost by it.

A row x is kept as codes c, so that x is about center + scale * (spread * c). Center and spread are of each dimension:
the vectors of CLIP have a few dimensions that are large in all rows, and one scale for a whole row would leave the
others few of the 127 steps. The scale is of each row. What is lost, |x - (center + scale * (spread * c))|, is measured
row by row when the copy is made, so that a bound made of it is no estimate.

Three arrays, files of numpy's format where they are kept:

    codes   int8 (n, w): d, and zeros up to a multiple of WIDTH, without which torch's products read beyond the end
    bounds  float32 (4, n): scale, a number of bfloat16; what was lost; length of scale * c; length of x
    dims    float32 (2, d): center, spread
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from clipsieve.durable import write_file
from clipsieve.errors import CollectionDamaged
from clipsieve.index.rows import Rows
from clipsieve.types import Float32, Int64

Int8 = npt.NDArray[np.int8]

WIDTH = 64
LARGEST = 127
LEAST_NUMBERS = 2**24
"""Numbers of a collection from which its copy is kept on disk: less is read in ten milliseconds as it is."""

DRAWN = 20_000
"""Rows that center and spread are measured on. Others would do: whatever they are, what is lost is measured."""

BEYOND = np.float32(1e30)
"""What a row that holds no finite numbers lost: it is always looked at as it is stored."""

FILES = {"coarse": "codes", "coarse_bounds": "bounds", "coarse_dims": "dims"}
"""Role of an index's file -> the array in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Coarse:
    """The copy; see above. The arrays may be mapped."""

    codes: Int8
    bounds: Float32
    dims: Float32


def bytes_of(rows: Rows) -> int:
    """Memory that a copy of these rows takes, their ids included."""
    return rows.count * (width_of(rows.dim) + 4 * 4 + 2 + 8)


def make_coarse(rows: Rows) -> tuple[Int64, Coarse]:
    """The copy of all live rows in memory, and their ids, int64 (n,)."""
    ids, at = np.empty(rows.count, np.int64), 0
    made = Coarse(
        np.empty((rows.count, width_of(rows.dim)), np.int8), np.empty((4, rows.count), np.float32), _dims(rows)
    )
    for own, codes, bounds in _encoded(rows, made.dims):
        place = slice(at, at + len(own))
        ids[place], made.codes[place], made.bounds[:, place] = own, codes, bounds
        at += len(own)
    return ids, made


def write_coarse(rows: Rows, paths: dict[str, Path]) -> None:
    """Write the copy of all live rows, block by block, in the order of their ids.

    paths  one for each of FILES
    """
    dims, bounds, at = _dims(rows), np.empty((4, rows.count), np.float32), 0

    def write(file: BinaryIO) -> None:
        nonlocal at
        header = {"descr": "|i1", "fortran_order": False, "shape": (rows.count, width_of(rows.dim))}
        np.lib.format.write_array_header_1_0(file, header)
        for own, codes, of_rows in _encoded(rows, dims):
            file.write(codes.data)
            bounds[:, at : at + len(own)] = of_rows
            at += len(own)

    write_file(paths["coarse"], write)
    write_file(paths["coarse_bounds"], lambda file: np.lib.format.write_array(file, bounds))
    write_file(paths["coarse_dims"], lambda file: np.lib.format.write_array(file, dims))


def open_coarse(paths: dict[str, Path], n: int, d: int) -> Coarse:
    """What `write_coarse` wrote of n rows, mapped. CollectionDamaged names the file that is something else."""
    wanted = {
        "coarse": (np.dtype(np.int8), (n, width_of(d))),
        "coarse_bounds": (np.dtype(np.float32), (4, n)),
        "coarse_dims": (np.dtype(np.float32), (2, d)),
    }
    found: dict[str, npt.NDArray[Any]] = {}
    for role, name in FILES.items():
        try:
            # Mapped so that writing to it would not reach the file: torch wants arrays that may be written to.
            array = np.load(paths[role], mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CollectionDamaged(
                f"{paths[role]} cannot be read ({error}); run `clipsieve index --rebuild`."
            ) from error
        if (array.dtype, array.shape) != wanted[role]:
            raise CollectionDamaged(
                f"{paths[role]} holds {array.dtype} {array.shape} in place of {wanted[role][0]} {wanted[role][1]}; run "
                "`clipsieve index --rebuild`."
            )
        found[name] = array
    return Coarse(found["codes"], found["bounds"], found["dims"])


def width_of(d: int) -> int:
    """Columns of the codes of d dimensions."""
    return -(-d // WIDTH) * WIDTH


def encode(vectors: Float32, dims: Float32) -> tuple[Int8, Float32]:
    """float32 (b, d) -> codes int8 (b, w), bounds float32 (4, b)."""
    center, spread = dims
    off = np.subtract(vectors, center)  # (b, d)
    steps = np.divide(off, spread)
    largest = np.abs(steps).max(axis=1)  # (b,)
    finite = np.isfinite(largest) & (largest < BEYOND)
    scale = _up_to_bfloat16(np.maximum(np.where(finite, largest, 1) / np.float32(LARGEST), np.float32(1e-30)))
    steps /= scale[:, None]
    steps[~finite] = 0
    np.rint(steps, out=steps)
    np.clip(steps, -LARGEST, LARGEST, out=steps)
    codes = np.zeros((len(steps), width_of(steps.shape[1])), np.int8)
    codes[:, : steps.shape[1]] = steps
    length = _lengths(steps) * scale
    steps *= spread
    steps *= scale[:, None]
    off -= steps
    off[~finite] = 0
    lengths = np.where(finite, _lengths(np.where(finite[:, None], vectors, 0)), 0)
    lost = _lengths(off)
    # What these sums and differences of float32 may themselves be off.
    more = np.float32(1 + vectors.shape[1] * 2.0**-22)
    lost = lost * more + np.float32(2.0**-20) * (lengths + np.linalg.norm(center)) * more
    lost[~finite] = BEYOND
    return codes, np.stack([scale, lost, length * more, lengths * more]).astype(np.float32)


def _encoded(rows: Rows, dims: Float32) -> Iterator[tuple[Int64, Int8, Float32]]:
    """Ids, codes and bounds, block by block."""
    for ids, vectors in rows.blocks(2048):  # so that what is worked on stays in the processor's cache
        yield ids, *encode(vectors, dims)


def _dims(rows: Rows) -> Float32:
    """Mean and standard deviation of each dimension, float32 (2, d); 0 and 1 where there is none."""
    drawn = rows.take(rows.sample(DRAWN)).astype(np.float64)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if not len(drawn):
        return np.stack([np.zeros(rows.dim, np.float32), np.ones(rows.dim, np.float32)])
    spread = drawn.std(axis=0)
    # A dimension that is nearly constant among those drawn may not be so elsewhere: its steps must not be tiny.
    spread = np.maximum(spread, max(float(spread.max()) / LARGEST, 1e-9))
    return np.stack([drawn.mean(axis=0), spread]).astype(np.float32)


def _up_to_bfloat16(values: Float32) -> Float32:
    """The next number of bfloat16 that is no less; of positive ones."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    up: Float32 = ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
    return up


def _lengths(vectors: Float32) -> Float32:
    """Euclidean lengths of the rows: float32 (b, d) -> (b,)."""
    found: Float32 = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return found
