"""How good an answer is, in numbers whose definitions stand in words. Pure functions on arrays; nothing is read.

Ids of no neighbour and classes of "none of them" are -1 throughout.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.errors import InputError
from clipsieve.types import Int64

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]


def recall_at_k(found: Int64, truth: Int64, k: int) -> float:
    """Of what should have been found, the share that is among the first k found; the mean over queries.

    found  int64 (m, >= k), ids, best first
    truth  int64 (m, t), the right ids, -1 where a query has fewer. Only its first k count, so that a perfect answer
           has recall 1; a query without any is left out

    With the exact neighbours as truth this is an index's recall; with one right image per text it is retrieval's R@k.
    """
    _require_same_length("found", found, "truth", truth)
    truth = truth[:, :k]
    valid = truth >= 0
    hit = (truth[:, :, None] == found[:, None, :k]).any(axis=2) & valid  # (m, t)
    asked = valid.any(axis=1)
    return _mean(hit[asked].sum(axis=1) / valid[asked].sum(axis=1), "No query has a right answer")


def precision_at_k(relevant: Bools, k: int) -> float:
    """Of the first k found, the share that is relevant; the mean over queries. What is missing from k counts as wrong.

    relevant  bool (m, r): whether the r-th answer to a query is relevant
    """
    return _mean(relevant[:, :k].sum(axis=1) / k, "There is no query")


def mmp_at_k(relevant: Bools, totals: Int64, k: int = 5) -> float:
    """UnED's modified mean precision, mMP@5: precision at min(k, number of relevant items), the mean over queries.

    relevant  bool (m, >= k)
    totals    int64 (m,), how many relevant items the collection holds for each query; queries with 0 are left out

    Unlike precision@k it can reach 1 for a query with fewer than k relevant items.
    """
    _require_same_length("relevant", relevant, "totals", totals)
    asked = totals > 0
    depth = np.minimum(totals[asked], k)
    counted = relevant[asked][:, :k] & (np.arange(min(k, relevant.shape[1])) < depth[:, None])
    return _mean(counted.sum(axis=1) / depth, "No query has a relevant item")


def average_precision(scores: npt.NDArray[np.floating], relevant: Bools) -> float:
    """Area under the precision-recall curve as a sum of steps: precision at each threshold times the recall gained.

    scores, relevant  (n,). Items of one score share one threshold, so their order does not matter.

    InputError if nothing is relevant: there is no recall then.
    """
    _require_same_length("scores", scores, "relevant", relevant)
    total = int(relevant.sum())
    if total == 0:
        raise InputError("average_precision of no relevant item is undefined; leave that class out.")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    hits = np.cumsum(relevant[order])
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # the last item of each score
    precision = hits[last] / (last + 1)
    gained = np.diff(hits[last], prepend=0) / total
    return float((precision * gained).sum())


def top_k_accuracy(scores: npt.NDArray[np.floating], truth: Int64, k: int = 1) -> float:
    """The share of items whose class is among the k of highest score: zero-shot top-1, top-5.

    scores  (n, c); equal scores rank by ascending class
    truth   int64 (n,), 0..c-1
    """
    _require_same_length("scores", scores, "truth", truth)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return _mean((best == truth[:, None]).any(axis=1), "There is no item")


def confusion_matrix(truth: Int64, predicted: Int64, classes: int) -> Int64:
    """How often class i was called j: int64 (c + 1, c + 1), row = truth, column = prediction.

    truth, predicted  int64 (n,), 0..c-1, or -1 for none of them, which the last row and column count
    """
    _require_same_length("truth", truth, "predicted", predicted)
    for name, values in (("truth", truth), ("predicted", predicted)):
        if len(values) and not (values.min() >= -1 and values.max() < classes):
            raise InputError(f"{name} holds classes beyond 0..{classes - 1}; -1 stands for none of them.")
    size = classes + 1
    flat = (truth % size) * size + predicted % size  # -1 % size is the last
    return np.bincount(flat, minlength=size * size).reshape(size, size).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class PerClass:
    """One number per class, float64 (c,), NaN where it is undefined.

    precision  of the items called so, the share that is
    recall     of the items that are, the share called so
    f1         their harmonic mean
    support    int64 (c,), items that are of the class
    """

    precision: Float64
    recall: Float64
    f1: Float64
    support: Int64


def per_class(confusion: Int64) -> PerClass:
    """Precision, recall and F1 from a `confusion_matrix`; "none of them" is no class of its own."""
    right = np.diag(confusion)[:-1].astype(np.float64)
    called, are = confusion.sum(axis=0)[:-1], confusion.sum(axis=1)[:-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return PerClass(right / called, right / are, 2 * right / (called + are), are.astype(np.int64))


def latency_percentiles(milliseconds: Sequence[float] | Float64) -> Mapping[str, float]:
    """n, mean, p50, p90, p95, p99 and max of measured latencies in milliseconds. InputError if there are none."""
    values = np.asarray(milliseconds, dtype=np.float64)
    mean = _mean(values, "No latency was measured")
    percentiles = {f"p{p}": float(np.percentile(values, p)) for p in (50, 90, 95, 99)}
    return {"n": float(len(values)), "mean": mean, **percentiles, "max": float(values.max())}


def confusion_text(confusion: Int64, names: Sequence[str]) -> str:
    """The matrix as a table of text, one row per true class; "(none)" appears only if it was counted."""
    matrix, labels = _shown(confusion, names)
    cells = [[str(value) for value in row] for row in matrix]
    left = max(len(label) for label in labels)
    widths = [max(len(labels[j]), *(len(row[j]) for row in cells)) for j in range(len(labels))]
    lines = [" " * left + "  " + "  ".join(label.rjust(w) for label, w in zip(labels, widths, strict=True))]
    for label, row in zip(labels, cells, strict=True):
        lines.append(label.ljust(left) + "  " + "  ".join(v.rjust(w) for v, w in zip(row, widths, strict=True)))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def confusion_png(confusion: Int64, names: Sequence[str], cell: int = 44) -> bytes:
    """The matrix as a PNG: rows are the truth, columns the prediction, darker is a larger share of the row.

    cell  pixels a side. Beyond 60 classes the counts are left out and cells shrink.
    """
    from PIL import Image, ImageDraw, ImageFont

    matrix, labels = _shown(confusion, names)
    n = len(labels)
    cell = cell if n <= 60 else max(4, 2400 // n)
    font = ImageFont.load_default(size=max(8, min(13, cell - 2)))
    shown = [label if len(label) <= 24 else label[:23] + "…" for label in labels]
    margin = 12 + int(max(font.getlength(label) for label in shown))
    image = Image.new("RGB", (margin + n * cell + 8, margin + n * cell + 8), "white")
    draw = ImageDraw.Draw(image)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for i in range(n):
        y = margin + i * cell
        draw.text((margin - 6, y + cell / 2), shown[i], fill="black", font=font, anchor="rm")
        # Column names stand upright: drawn on a strip of their own, which is turned.
        strip = Image.new("L", (margin - 6, cell), 255)
        ImageDraw.Draw(strip).text((0, cell / 2), shown[i], fill=0, font=font, anchor="lm")
        image.paste(strip.rotate(90, expand=True), (margin + i * cell, 0))
        for j in range(n):
            x = margin + j * cell
            shade = float(share[i, j])
            colour = tuple(round(255 + (dark - 255) * shade) for dark in (8, 64, 129))
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=colour, outline=(220, 220, 220))
            if n <= 60 and matrix[i, j]:
                ink = "white" if shade > 0.5 else "black"
                draw.text((x + cell / 2, y + cell / 2), str(matrix[i, j]), fill=ink, font=font, anchor="mm")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _shown(confusion: Int64, names: Sequence[str]) -> tuple[Int64, list[str]]:
    if confusion.shape != (len(names) + 1, len(names) + 1):
        raise InputError(
            f"The confusion matrix has shape {confusion.shape}; {len(names)} classes need one more each way."
        )
    if confusion[-1].any() or confusion[:, -1].any() or not names:
        return confusion, [*names, "(none)"]
    return confusion[:-1, :-1], list(names)


def _mean(values: npt.NDArray[np.generic], otherwise: str) -> float:
    if not len(values):
        raise InputError(f"{otherwise}, so there is nothing to take the mean of.")
    return float(np.mean(values.astype(np.float64)))


def _require_same_length(first: str, a: npt.NDArray[np.generic], second: str, b: npt.NDArray[np.generic]) -> None:
    if len(a) != len(b):
        raise InputError(f"{first} has {len(a)} rows and {second} {len(b)}; they must have one each per query or item.")
