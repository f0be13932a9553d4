"""What marks teach about a class: its image examples and the marked items, as what `learn` takes."""

from collections.abc import Sequence

import numpy as np

from clipsieve.index.calibrate import Background
from clipsieve.index.examples import unit_rows
from clipsieve.index.learn import MOST_MARKS, Learned, learn
from clipsieve.index.rows import Rows
from clipsieve.types import ClassVectors, Example, MetaClass


def learn_class(
    meta: MetaClass,
    vectors: ClassVectors,
    rows: Rows,
    background: Background,
    right: Sequence[int],
    wrong: Sequence[int],
) -> tuple[Learned, tuple[Example, ...]]:
    """As `Collection.learn` says.

    meta, vectors  the class as it was given, and embedded
    rows           the items that `right` and `wrong` are ids of; others are passed over
    """
    sides = ((meta.positive, vectors.positive, right), (meta.negative, vectors.negative, wrong))
    texts = [np.array([e.text is not None for e in examples], dtype=bool) for examples, _, _ in sides]
    images = [e for side in (meta.positive, meta.negative) for e in side if e.image is not None]
    units, verdicts, used = [], [], []
    for (examples, own, said), is_text in zip(sides, texts, strict=True):
        ids = np.unique(np.array(said, dtype=np.int64))
        ids = ids[rows.has(ids) & ~np.isin(ids, [e.image for e in images if isinstance(e.image, int)])]
        units += [own[~is_text], unit_rows(rows.take(ids))]
        used += [*(e for e in examples if e.image is not None), *(Example(image=int(i)) for i in ids)]
        verdicts += [len(examples) - int(is_text.sum()) + len(ids)]
    marked, truth = np.concatenate(units), np.repeat([True, False], verdicts)
    if len(marked) > MOST_MARKS:
        at = np.sort(np.random.default_rng(0).choice(len(marked), MOST_MARKS, replace=False))
        marked, truth, used = marked[at], truth[at], [used[i] for i in at]
    worded = None
    words: list[Example] = []
    if texts[0].any():
        worded = ClassVectors(meta.name, vectors.positive[texts[0]], vectors.negative[texts[1]], vectors.model)
        words = [e for e in (*meta.positive, *meta.negative) if e.text is not None]
    return learn(worded, background, marked, truth), (*words, *used)
