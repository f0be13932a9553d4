"""Boxes of a collection by texts: the best ones of all images, those of one image, and how many an image has.

    logit   = (cos(region, text) + shift) * scale            score = 1 / (1 + exp(-logit))
    search  : a box is found where P > N and its score reaches the threshold, as an image is by its vector
    kept    : the boxes of an image by the rule of `suppress.py`, so that one object counts once

Search compares every region where there is no index, or one that misses nothing. Otherwise the index names candidates,
deeper and deeper, until what it has not named scores less than the last box of the answer.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from clipsieve.errors import InputError
from clipsieve.index.examples import Remembered, Templates, embed_classes, embed_texts
from clipsieve.index.records import example_name
from clipsieve.index.regions import CollectionRegions
from clipsieve.index.rule import Compiled, compile_classes, settle
from clipsieve.index.suppress import Detections, compile_detection, detect
from clipsieve.protocols import Detector
from clipsieve.reading import LongText
from clipsieve.types import Box, Claim, ClassVectors, Example, Float32, Hit, Int64, MetaClass, QueryResult, Regions

BLOCK = 2**14
"""Regions that are compared at a time."""

DEPTH = 64
"""Regions that an index is asked for at first, at least."""

ITEMS = 512
"""Items whose boxes are counted at a time."""

NMS = 0.5
"""Overlap from which two boxes are one object, where nobody says."""

Keys = Callable[[Int64], Sequence[str]]

ImageBytes = Callable[[int | str], bytes]
"""An item's id, or a content hash -> the encoded image. NotFound where it is not there."""


def embed_question(
    meta: MetaClass,
    detector: Detector,
    templates: Templates = None,
    remembered: Remembered | None = None,
    pictures: ImageBytes | None = None,
    long_text: LongText = "cut",
) -> ClassVectors:
    """A class in the detector's space. The errors are those of `embed_questions`."""
    (vectors,) = embed_questions([meta], detector, templates, remembered, pictures, long_text)
    return vectors


def embed_questions(
    classes: Sequence[MetaClass],
    detector: Detector,
    templates: Templates = None,
    remembered: Remembered | None = None,
    pictures: ImageBytes | None = None,
    long_text: LongText = "cut",
) -> tuple[ClassVectors, ...]:
    """Classes in the detector's space.

    pictures   the images that are examples; None where there can be none
    long_text  what is done with a text that is longer than the detector reads

    NotFound for an image that is not there; InputError for one that cannot be decoded, or in which nothing is seen.
    """
    memory = Remembered() if remembered is None else remembered

    def texts(wanted: Sequence[str]) -> Float32:
        return embed_texts(wanted, templates, detector, memory, long_text)

    def image(example: Example) -> Float32:
        if pictures is None:
            raise InputError(f"{example_name(example)} is an example, and no images are at hand; give texts alone.")
        assert example.image is not None
        try:
            return detector.embed_example(pictures(example.image), example.box)
        except InputError as error:
            raise InputError(f"{example_name(example)} cannot be an example to the detector: {error}") from error

    def images(wanted: Sequence[Example]) -> Float32:
        rows = []
        for example in wanted:
            vector = memory.find(example)
            if vector is None:
                vector = image(example)
                memory.put(example, vector)
            rows.append(vector)
        return np.stack(rows)

    return embed_classes(classes, detector.model, texts, images)


def search(
    regions: CollectionRegions,
    vectors: ClassVectors,
    meta: MetaClass,
    k: int,
    keys: Keys,
    *,
    threshold: float | None = None,
    only: Int64 | None = None,
    every_box: bool = False,
) -> QueryResult:
    """The k best boxes for a class, by falling score; of equals the one of the lower id first.

    vectors    the class as `embed_question` makes it
    keys       the keys of ids
    threshold  least score, in 0..1
    only       ids of live items that alone may be found
    every_box  an image comes with each of its boxes; by default once, with its best one

    ModelMismatch where the regions are another detector's. InputError for k < 1.
    """
    if k < 1:
        raise InputError(f"k is {k}; ask for at least one box.")
    vectors.model.require(regions.model, "The regions")
    compiled, least = compile_classes([vectors]), _least(threshold)
    if not regions.approximate:
        best = _Best(k, every_box)
        numbers = regions.live(only)
        for start in range(0, len(numbers), BLOCK):
            best.add(*_accepted(compiled, regions, numbers[start : start + BLOCK], least))
        return QueryResult(_hits(compiled, regions, best.numbers, meta, keys), "exact")
    best, claim, recall = _deepened(compiled, regions, vectors, least, k, only, every_box)
    return QueryResult(_hits(compiled, regions, best.numbers, meta, keys), claim, recall)


def kept(regions: Regions, vectors: ClassVectors, threshold: float | None, nms: float = NMS) -> Detections:
    """The boxes of each image that show the class, by the rule of `suppress.py`."""
    return detect(compile_detection([vectors], [threshold], nms, "agnostic"), regions)


def count(regions: CollectionRegions, vectors: ClassVectors, ids: Int64, threshold: float, nms: float = NMS) -> Int64:
    """How many objects of a class each of the items shows: int64 (n,).

    ids        of live items; those that nobody looked for regions in show nothing
    threshold  least score of a box that counts
    """
    counts = np.zeros(len(ids), np.int64)
    for start in range(0, len(ids), ITEMS):
        block = ids[start : start + ITEMS]
        some = regions.of(block)
        items, found = np.unique(some.item[kept(some, vectors, threshold, nms).region], return_counts=True)
        order = np.argsort(block)
        counts[start + order[np.searchsorted(block, items, sorter=order)]] = found
    return counts


def _least(threshold: float | None) -> float:
    if threshold is not None and math.isnan(threshold):
        raise InputError("The threshold is NaN; give a number in 0..1.")
    return -math.inf if threshold is None else threshold


def _levels(compiled: Compiled, regions: Regions) -> Float32:
    """The logit of each example at each region, float32 (e, m)."""
    levels = settle(compiled, regions.vectors)
    levels += regions.shift
    levels *= regions.scale
    return levels


def _sigmoid(levels: Float32) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    with np.errstate(over="ignore"):
        score: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = 1 / (1 + np.exp(-levels.astype(np.float64)))
    return score


def _accepted(
    compiled: Compiled, regions: CollectionRegions, numbers: Int64, least: float
) -> tuple[Int64, Int64, Float32]:
    """Those of the regions that the rule accepts: numbers, items, P."""
    some = regions.take(numbers)
    levels = _levels(compiled, some)
    of_positive, of_negative = compiled.slices[0]
    best = levels[of_positive].max(axis=0)
    able = (_sigmoid(best) >= least) & (best > levels[of_negative].max(axis=0, initial=-np.inf))
    return numbers[able], some.item[able], best[able]


class _Best:
    """The k best regions of those that were added, or the k best images' best ones."""

    def __init__(self, k: int, every_box: bool) -> None:
        self._k, self._every = k, every_box
        self.numbers, self._items = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.levels: Float32 = np.zeros(0, np.float32)

    @property
    def full(self) -> bool:
        return len(self.numbers) == self._k

    def add(self, numbers: Int64, items: Int64, levels: Float32) -> None:
        numbers, items = np.append(self.numbers, numbers), np.append(self._items, items)
        levels = np.append(self.levels, levels)
        order = np.lexsort((numbers, -levels))
        if not self._every:
            order = order[np.sort(np.unique(items[order], return_index=True)[1])]
        order = order[: self._k]
        self.numbers, self._items, self.levels = numbers[order], items[order], levels[order]


def _deepened(
    compiled: Compiled,
    regions: CollectionRegions,
    vectors: ClassVectors,
    least: float,
    k: int,
    only: Int64 | None,
    every_box: bool,
) -> tuple[_Best, Claim, float | None]:
    depth = max(DEPTH, 2 * k)
    while True:
        found = regions.search(vectors.positive, depth, only=only)
        candidates = np.unique(found.numbers[found.numbers >= 0])
        best = _Best(k, every_box)
        for start in range(0, len(candidates), BLOCK):
            best.add(*_accepted(compiled, regions, candidates[start : start + BLOCK], least))
        bound = found.scores[:, -1].max()  # what was not named by any search scores no more; -inf: there is nothing
        hopeless = bool(_sigmoid(bound[None])[0] < least)
        if bound == -np.inf or hopeless or (best.full and best.levels[-1] > bound):
            return best, found.claim, found.recall
        depth *= 4


def _hits(
    compiled: Compiled, regions: CollectionRegions, numbers: Int64, meta: MetaClass, keys: Keys
) -> tuple[Hit, ...]:
    some = regions.take(numbers)
    levels = _levels(compiled, some)
    scores = _sigmoid(levels)
    of_positive, of_negative = compiled.slices[0]
    hits = []
    for i, key in enumerate(keys(some.item)):
        p = int(levels[of_positive, i].argmax())
        score, margin, negative = float(scores[of_positive, i][p]), math.inf, None
        if meta.negative:
            n = int(levels[of_negative, i].argmax())
            margin, negative = score - float(scores[of_negative, i][n]), meta.negative[n]
        positive: Example = meta.positive[p]
        x0, y0, x1, y1 = some.boxes[i].tolist()
        box: Box = (x0, y0, x1, y1)
        hits.append(Hit(int(some.item[i]), key, score, margin, positive, negative, box))
    return tuple(hits)
