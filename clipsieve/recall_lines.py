"""What is known of an index's recall, in lines for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_SOURCES = {"image": "by image", "text": "by text"}
_SHAPES = {
    "one": "one example",
    "several": "several",
    "negative": "with negatives",
    "filtered": "filtered",
    "far": "filtered to what is far",
}


def recall_lines(kinds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """By kinds of questions, a line for each source of examples; `kinds` is as `info` has it.

    "by text: one example 0.971 (to 1,000: rows are read); several 0.962 (to 1,000: 0.958); ..."
    """
    for source, words in _SOURCES.items():
        found: dict[str, list[str]] = {}
        for kind in sorted(kinds, key=lambda kind: int(kind["k"])):
            if kind["source"] == source:
                figure = "rows are read" if kind["recall"] is None else f"{kind['recall']:.3f}"
                known = found.setdefault(kind["shape"], [])
                known.append(figure if not known else f"(to {kind['k']:,}: {figure})")
        if found:
            yield f"{words}: " + "; ".join(f"{_SHAPES[shape]} {' '.join(said)}" for shape, said in found.items())
