"""Images classified by their nearest references, texts or images of known classes: zero-shot and few-shot.

The figures are those of scikit-learn's KNeighborsClassifier(n_neighbors=k, weights="distance", metric="cosine") and
top_k_accuracy_score, in the precision of what is given, ties included.
"""

import numpy as np
import numpy.typing as npt

from clipsieve.errors import InputError
from clipsieve.types import Float32, Int64

NEIGHBOURS = 10
BLOCK = 2**27
"""Distances computed at once."""

Float64 = npt.NDArray[np.float64]


def class_shares(images: Float32, references: Float32, classes: Int64, count: int, k: int = NEIGHBOURS) -> Float64:
    """How much each class has of an image's k nearest references, float64 (n, count); rows sum to 1.

    images      float32 (n, d)
    references  float32 (m, d)
    classes     int64 (m,), the class of each, 0..count-1
    k           neighbours that count, each with the inverse of its cosine distance; all where there are fewer

    A class without any of the k nearest gets 0. A reference at distance 0 has all, shared with others at 0.
    """
    if len(references) != len(classes) or not len(references):
        raise InputError(f"{len(references)} references and {len(classes)} classes were given; each has one.")
    unit = _unit(references)
    shares = np.zeros((len(images), count))
    step = max(1, BLOCK // len(references))
    for start in range(0, len(images), step):
        block = images[start : start + step]
        distances = np.clip(1 - _unit(block) @ unit.T, 0, 2)
        _add(shares[start : start + step], distances, classes, min(k, len(references)))
    return shares


def _add(shares: Float64, distances: Float32, classes: Int64, k: int) -> None:
    rows = np.arange(len(distances))[:, None]
    nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
    nearest = nearest[rows, np.argsort(distances[rows, nearest], axis=1)]
    with np.errstate(divide="ignore"):
        inverse = 1 / distances[rows, nearest]
    same = np.isinf(inverse)
    weights = np.where(same.any(axis=1, keepdims=True), same, inverse)
    for column in range(k):
        shares[rows[:, 0], classes[nearest[:, column]]] += weights[:, column]
    shares /= shares.sum(axis=1, keepdims=True)


def top_k_share(shares: Float64, truth: Int64, k: int) -> float:
    """The share of images whose class is among the k that have most; of equal ones the later class goes first.

    shares  float64 (n, c)
    truth   int64 (n,), 0..c-1
    """
    if not len(truth):
        raise InputError("There is no image to count.")
    best = np.argsort(shares, axis=1, kind="stable")[:, ::-1][:, :k]
    return float((best == truth[:, None]).any(axis=1).mean())


def _unit(rows: Float32) -> Float32:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    lengths[lengths == 0] = 1
    unit: Float32 = rows / lengths[:, None]
    return unit
