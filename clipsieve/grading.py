"""Labels against the truth: accuracy, figures per class, and who is taken for whom."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipsieve.errors import InputError
from clipsieve.index.evaluate import confusion_matrix, confusion_png, confusion_text, per_class
from clipsieve.labels import Rows, tables, truth_of
from clipsieve.types import Int64


@dataclass(frozen=True, slots=True, eq=False)
class Grade:
    """How labels compare with the truth.

    names      the classes
    confusion  int64 (c + 1, c + 1), row the truth, column the label; the last is none of the classes
    others     what else images are said to be -> how many; the confusion's last row counts them
    unknown    images of which nothing is said; they count nowhere
    """

    names: tuple[str, ...]
    confusion: Int64
    others: Mapping[str, int]
    unknown: int

    @property
    def images(self) -> int:
        """Images whose truth is one of the classes: those that are graded."""
        return int(self.confusion[:-1].sum())

    @property
    def accuracy(self) -> float:
        """The share of them that got their class."""
        return float(np.trace(self.confusion[:-1, :-1]) / self.images)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; None where a figure is undefined."""
        figures = per_class(self.confusion)

        def number(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        return {
            "accuracy": self.accuracy,
            "images": self.images,
            "per_class": {
                name: {
                    "precision": number(figures.precision[i]),
                    "recall": number(figures.recall[i]),
                    "f1": number(figures.f1[i]),
                    "images": int(figures.support[i]),
                }
                for i, name in enumerate(self.names)
            },
            "confusion": {"classes": [*self.names, None], "rows": self.confusion.tolist()},
            "other_truths": dict(self.others),
            "without_truth": self.unknown,
        }

    def to_text(self) -> str:
        """The same for people."""
        width = max(len(name) for name in self.names)
        lines = [f"accuracy {self.accuracy:.4f} of {self.images:,} images", ""]
        lines.append(f"{'class':{width}}  precision  recall     f1  images")
        for name, figures in self.to_json()["per_class"].items():
            cells = [
                f"{'-' if figures[f] is None else format(figures[f], '.3f'):>{w}}"
                for f, w in (("precision", 9), ("recall", 6), ("f1", 5))
            ]
            lines.append(f"{name:{width}}  {'  '.join(cells)}  {figures['images']:>6,}")
        lines += ["", "rows: the truth; columns: the label", confusion_text(self.confusion, self.names).rstrip("\n")]
        if self.others:
            some = ", ".join(list(self.others)[:5])
            lines += ["", f"{sum(self.others.values()):,} images are none of the classes and not graded: {some}"]
        if self.unknown:
            lines += ["", f"Of {self.unknown:,} images the truth is not known; they are not graded."]
        return "\n".join(lines)

    def to_png(self) -> bytes:
        """The confusion matrix as a picture."""
        return confusion_png(self.confusion, self.names)


def grade(parts: Path, rows: Rows, names: tuple[str, ...], truth: str, only: Collection[str] | None = None) -> Grade:
    """Compare the labels in `parts` with the truth; `labels.tables` and `labels.truth_of` explain the arguments.

    InputError if no image is said to be of one of the classes.
    """
    position: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    confusion: Int64 = np.zeros((len(names) + 1, len(names) + 1), np.int64)
    others: Counter[str] = Counter()
    unknown = 0
    for table, _ in tables(parts, rows, only):
        said = truth_of(rows(table["id"].to_pylist()), truth, names)
        given = [position.get(label, -1) for label in table["label"].to_pylist()]
        others.update(name for name, at in said if name is not None and at < 0)
        unknown += sum(name is None for name, _ in said)
        pairs = np.array([(at, g) for (name, at), g in zip(said, given, strict=True) if name is not None], np.int64)
        if len(pairs):
            confusion += confusion_matrix(pairs[:, 0], pairs[:, 1], len(names))
    result = Grade(names, confusion, dict(others.most_common()), unknown)
    if not result.images:
        seen = f" but {', '.join(list(others)[:5])}" if others else ""
        where = "lies in a folder called after" if truth == "folder" else f"has in column {truth!r}"
        raise InputError(f"No image {where} one of the classes {', '.join(names[:5])}{seen}; choose another --truth.")
    return result
