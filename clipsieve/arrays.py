"""Arrays in files of numpy's format, whoever wrote them."""

import os
import tokenize
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

UNREADABLE = (
    ValueError,
    EOFError,
    OSError,
    MemoryError,
    ArithmeticError,
    SyntaxError,
    TypeError,
    LookupError,
    RecursionError,
    tokenize.TokenError,
)
"""What numpy raises for a file that is none of its own, or whose header promises what the file does not hold."""


def map_array(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """The array of a .npy file as a read-only memory map.

    FileNotFoundError if it is not there; else one of UNREADABLE, also where what it holds is no array of numbers.
    """
    array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return _numbers(array)


def load_array(file: str | os.PathLike[str] | BinaryIO) -> npt.NDArray[Any]:
    """The array of a .npy file in memory. The errors are those of `map_array`."""
    if not isinstance(file, str | os.PathLike):
        return _numbers(np.load(file, allow_pickle=False))
    return np.array(map_array(file))  # mapped first: what its header promises is compared with its size


def _numbers(array: Any) -> npt.NDArray[Any]:
    if not isinstance(array, np.ndarray):  # numpy opens archives of arrays as well
        raise ValueError("it is an archive of arrays, and not one array")
    if array.dtype.names is not None or array.dtype.kind not in "biuf":
        raise ValueError(f"it holds {array.dtype}, and not plain numbers")
    return array
