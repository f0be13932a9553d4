"""The nouns that the rooms exchange.

All are frozen and slotted, and check themselves when made: a wrong shape, dtype or scale is an InputError that names
the field. Arrays are taken as they are, never copied; whoever hands one over stops writing to it. Scores are cosine
similarity, larger is better, unless a docstring says otherwise.

Types that hold arrays compare by identity; the others compare by value.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from clipsieve.checks import (
    check_array,
    check_choice,
    check_finite,
    check_said,
    check_str,
    check_text,
    check_tuple,
    check_unit_rows,
)
from clipsieve.errors import InputError, ModelMismatch, quoted

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

FileState = tuple[int, float] | str
"""Tells whether somebody wrote to a file: its size and time of last change, or what else is known of it."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of the image's width and height, from its top left corner."""

Calibration = Literal["none", "background"]
TemplateSet = Literal["openai", "simple"]
"""open_clip's prompt lists by name: "openai" is its 80 ImageNet templates, "simple" its 7."""
Mode = Literal["agnostic", "class-wise"]
Claim = Literal["exact", "complete", "partial"]
Decoding = Literal["own", "reference"]
"""How an image becomes RGB: "own" turns it upright, lays it on white and scales 16 bits to 8; "reference" is PIL's
`convert("RGB")` of the image as stored, as open_clip and transformers have it."""


def content_hash(data: bytes) -> str:
    """SHA-256 of the bytes, 64 lowercase hex digits: how an image that has no id yet is named."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class ModelId:
    """Which model made a vector. Two vectors may meet only if theirs are equal.

    name           as on the command line: "mini", "open_clip:ViT-B-32/laion2b_s34b_b79k"
    weights        hash of the weights, lowercase hex
    preprocessing  short stable description of resize, crop and normalisation
    """

    name: str
    weights: str
    preprocessing: str

    def __post_init__(self) -> None:
        for part in ("name", "weights", "preprocessing"):
            check_str(f"ModelId.{part}", getattr(self, part))
        if not self.name:
            raise InputError("ModelId.name is empty; it must name the model.")

    def require(self, other: "ModelId", what: str) -> None:
        """Raise ModelMismatch unless `other`, the model of `what` ("the query"), is this one."""
        for part in ("name", "weights", "preprocessing"):
            mine, theirs = getattr(self, part), getattr(other, part)
            if mine != theirs:
                raise ModelMismatch(
                    f"{what} comes from model {other.name!r} and is to meet vectors of {self.name!r}, but their "
                    f"{part} differ ({quoted(theirs)} against {quoted(mine)}); embed both with one model."
                )


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One image as read from a source, not decoded.

    key   what the user calls it; unique in a collection
    data  the encoded file (JPEG, PNG, ...)
    meta  further columns of its metadata row
    """

    key: str
    data: bytes
    caption: str | None = None
    meta: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_str("ImageItem.key", self.key)
        if not self.key:
            raise InputError("ImageItem.key is empty; every image needs a name.")
        if not isinstance(self.data, bytes):
            raise InputError(f"ImageItem.data of {quoted(self.key)} is {type(self.data).__name__}; it must be bytes.")
        if self.caption is not None:
            check_str("ImageItem.caption", self.caption)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An input that could not be used: its key, and a sentence on why. It is counted and listed, never dropped.

    content_hash  of its bytes, if it is they that cannot be used: as long as they are the same, so is the outcome
    limits        what it was tried with (the decoder, the options of fetching): with others it is worth another try;
                  "" where it always is, because what failed may pass; None where it is not, before the input changes
    """

    key: str
    reason: str
    content_hash: str | None = None
    limits: str | None = None

    def __post_init__(self) -> None:
        check_str("Skipped.key", self.key)
        check_str("Skipped.reason", self.reason)


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """n unit vectors, the keys of what they stand for, and the model that made them.

    vectors  float32 (n, d), C-contiguous, rows of length 1, within `checks.UNIT_TOLERANCE`; n may be 0
    keys     n strings
    """

    vectors: Float32
    keys: tuple[str, ...]
    model: ModelId

    def __post_init__(self) -> None:
        check_unit_rows("Embeddings.vectors", self.vectors)
        check_tuple("Embeddings.keys", self.keys, str)
        if len(self.keys) != len(self.vectors):
            raise InputError(
                f"Embeddings.keys has {len(self.keys)} entries for {len(self.vectors)} vectors; it needs one each."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """m regions found in some images, in the detector's own embedding space.

    vectors     float32 (m, d), C-contiguous, unit rows
    boxes       float32 (m, 4), x0 y0 x1 y1 in 0..1 of the image; a box may stick out a little
    item        int64 (m,), which image: its position in the batch, or its id once stored
    objectness  float32 (m,), larger is likelier an object; only its order counts
    shift       float32 (m,)  } the detector's logit for a unit class vector t is (vector . t + shift) * scale
    scale       float32 (m,)  }
    """

    vectors: Float32
    boxes: Float32
    item: Int64
    objectness: Float32
    shift: Float32
    scale: Float32
    model: ModelId

    def __post_init__(self) -> None:
        check_unit_rows("Regions.vectors", self.vectors)
        m = len(self.vectors)
        check_array("Regions.boxes", self.boxes, np.float32, "(m, 4)", (m, 4))
        check_array("Regions.item", self.item, np.int64, "(m,)", (m,))
        for name in ("objectness", "shift", "scale"):
            values = getattr(self, name)
            check_array(f"Regions.{name}", values, np.float32, "(m,)", (m,))
            if not np.isfinite(values).all():
                raise InputError(f"Regions.{name} holds NaN or infinity; every region needs a finite one.")
        if m and self.item.min() < 0:
            raise InputError(f"Regions.item holds {self.item.min()}; it must be a position or an id, from 0 up.")
        x0, y0, x1, y1 = self.boxes.T
        # -1..2 lets a detector's box leave the image and still refuses boxes in pixels; NaN fails every comparison.
        bad = ~((x0 <= x1) & (y0 <= y1) & (self.boxes >= -1).all(axis=1) & (self.boxes <= 2).all(axis=1))
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"Regions.boxes[{row}] is {self.boxes[row].tolist()}; it must be x0, y0, x1, y1 in 0..1 of the image, "
                "x0 <= x1 and y0 <= y1."
            )


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a class: a text, or an image. Exactly one of the two is given.

    image  the item's id in the collection (int), or the `content_hash` of an uploaded image (str)
    box    the part of the image that is meant, x0 y0 x1 y1 in 0..1 of it; None: all of it, or, to a detector, what is
           likeliest an object in it
    """

    text: str | None = None
    image: int | str | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            raise InputError(
                f"Example has text {quoted(self.text)} and image {quoted(self.image)}; give exactly one of them."
            )
        if self.text is not None:
            check_said("Example.text", self.text)
        elif isinstance(self.image, bool) or not isinstance(self.image, int | str):
            raise InputError(f"Example.image is {quoted(self.image)}; it must be an item's id or a content hash.")
        elif isinstance(self.image, int) and not 0 <= self.image < 2**63:
            raise InputError(f"Example.image is the id {quoted(self.image)}; ids run from 0 to 2**63 - 1.")
        elif isinstance(self.image, str) and not re.fullmatch(r"[0-9a-f]{64}", self.image):
            raise InputError(
                f"Example.image is {quoted(self.image)}; a content hash has 64 lowercase hex digits (an id is an int)."
            )
        if self.box is not None:
            object.__setattr__(self, "box", _box(self.text, self.box))


@dataclass(frozen=True, slots=True, init=False)
class MetaClass:
    """A named class: what it looks like, and what it must not be taken for.

    positive   at least one Example
    negative   any number of them
    threshold  least score of a match, on the score's own scale (cosine, or what the set's calibration makes of it)

    >>> MetaClass("bus", ["red bus"], ["red truck"]).positive
    (Example(text='red bus', image=None, box=None),)
    """

    name: str
    positive: tuple[Example, ...]
    negative: tuple[Example, ...]
    threshold: float | None

    def __init__(
        self,
        name: str,
        positive: Iterable[Example | str],
        negative: Iterable[Example | str] = (),
        threshold: float | None = None,
    ) -> None:
        check_text("MetaClass.name", name)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "positive", _examples(f"MetaClass.positive of {quoted(name)}", positive))
        object.__setattr__(self, "negative", _examples(f"MetaClass.negative of {quoted(name)}", negative))
        if not self.positive:
            raise InputError(
                f"MetaClass.positive of {quoted(name)} is empty; a class needs at least one positive example."
            )
        if threshold is not None:
            threshold = check_finite(f"MetaClass.threshold of {quoted(name)}", threshold)
        object.__setattr__(self, "threshold", threshold)


@dataclass(frozen=True, slots=True, init=False)
class ClassSet:
    """Classes that are asked together, and how.

    classes      order matters: labels are reported by index; names are unique; empty only for a detector's set
    calibration  "none": scores are cosines, and texts and images must not mix in one set; "background": each
                 example's cosine becomes how unusual it is in the collection
    templates    what wraps each text before it is embedded: strings with one {}, the name of a known list, or None
    nms          overlap (IoU) from which two boxes are one; None for a set that only classifies
    mode         "agnostic": one suppression over all boxes; "class-wise": one per class; None where nms is
    """

    classes: tuple[MetaClass, ...]
    calibration: Calibration
    templates: tuple[str, ...] | TemplateSet | None
    nms: float | None
    mode: Mode | None

    def __init__(
        self,
        classes: Iterable[MetaClass],
        calibration: Calibration = "none",
        templates: Iterable[str] | None = None,
        nms: float | None = None,
        mode: Mode | None = None,
    ) -> None:
        classes = tuple(classes)
        check_tuple("ClassSet.classes", classes, MetaClass)
        if not classes and nms is None:
            raise InputError("ClassSet.classes is empty; a set needs at least one class.")
        names = [c.name for c in classes]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InputError(f"ClassSet.classes names {quoted(twice)} more than once; class names must differ.")
        check_choice("ClassSet.calibration", calibration, Calibration)
        kinds = {e.text is None for c in classes for e in c.positive + c.negative}
        if calibration == "none" and nms is None and len(kinds) == 2:  # a detector has a scale of its own
            raise InputError(
                "ClassSet mixes text and image examples under calibration 'none', where an image's cosines would "
                "drown every text's; make the set with calibration='background', or a detector's with nms and mode."
            )
        if (nms is None) != (mode is None):
            raise InputError(
                f"ClassSet has nms {quoted(nms)} and mode {quoted(mode)}; give both for detection, or neither."
            )
        if mode is not None:
            check_choice("ClassSet.mode", mode, Mode)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "calibration", calibration)
        object.__setattr__(self, "templates", _templates(templates))
        object.__setattr__(self, "nms", None if nms is None else check_finite("ClassSet.nms", nms))
        object.__setattr__(self, "mode", mode)


@dataclass(frozen=True, slots=True, eq=False)
class ClassVectors:
    """A meta class once its examples are embedded.

    positive  float32 (p, d), C-contiguous, unit rows, p >= 1, in the order of the class's examples
    negative  float32 (q, d), likewise, q >= 0
    """

    name: str
    positive: Float32
    negative: Float32
    model: ModelId

    def __post_init__(self) -> None:
        check_str("ClassVectors.name", self.name)
        check_unit_rows(f"ClassVectors.positive of {quoted(self.name)}", self.positive)
        check_unit_rows(f"ClassVectors.negative of {quoted(self.name)}", self.negative)
        if not len(self.positive):
            raise InputError(f"ClassVectors.positive of {quoted(self.name)} has no rows; a class needs at least one.")
        if self.positive.shape[1] != self.negative.shape[1]:
            raise InputError(
                f"ClassVectors.negative of {quoted(self.name)} has {self.negative.shape[1]} dimensions and positive "
                f"{self.positive.shape[1]}; they must agree, so give negatives of shape (0, d) where there are none."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """The k best rows for each of m queries.

    ids     int64 (m, k), -1 where there was no further row; those come last
    scores  float32 (m, k), cosine (inner product over rows that are not unit length), descending along a row,
            -inf where the id is -1
    """

    ids: Int64
    scores: Float32

    def __post_init__(self) -> None:
        check_array("Neighbors.ids", self.ids, np.int64, "(m, k)", (None, None))
        check_array("Neighbors.scores", self.scores, np.float32, "(m, k) as ids", self.ids.shape)
        if self.ids.size and self.ids.min() < -1:
            raise InputError(f"Neighbors.ids holds {self.ids.min()}; an id is at least 0, and -1 stands for none.")
        if np.isnan(self.scores).any():
            raise InputError("Neighbors.scores holds NaN; every neighbour needs a score, and none is -inf.")
        if not np.array_equal(self.ids == -1, np.isneginf(self.scores)):
            raise InputError("Neighbors.scores must be -inf exactly where Neighbors.ids is -1; they disagree.")
        if (self.scores[:, :-1] < self.scores[:, 1:]).any():
            raise InputError("Neighbors.scores rises along a row; it must descend, best first.")


@dataclass(frozen=True, slots=True)
class Hit:
    """One item of an answer, and why it is there.

    score     of the best positive, on the set's scale (cosine when calibration is "none")
    margin    score minus that of the best negative; +inf where the class has no negatives
    positive  the example behind the score
    negative  the example behind the margin, None where there are none
    box       where in the image, when regions were asked
    """

    id: int
    key: str
    score: float
    margin: float
    positive: Example
    negative: Example | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        if isinstance(self.id, bool) or not isinstance(self.id, int) or self.id < 0:
            raise InputError(f"Hit.id is {quoted(self.id)}; it must be an int from 0 up.")
        check_str("Hit.key", self.key)
        check_finite(f"Hit.score of {quoted(self.key)}", self.score)
        if math.isnan(self.margin):
            raise InputError(f"Hit.margin of {quoted(self.key)} is NaN; it must be a number, +inf without negatives.")
        if (self.negative is None) != (self.margin == math.inf):
            raise InputError(
                f"Hit.margin of {self.key!r} is {self.margin} with negative {self.negative!r}; it is +inf exactly "
                "when no negative example stands behind it."
            )
        if self.box is not None and len(self.box) != 4:
            raise InputError(f"Hit.box of {quoted(self.key)} has {len(self.box)} numbers; it must be x0, y0, x1, y1.")


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Hits, best first, and what may be claimed about them.

    claim       "exact": no better item exists in the collection
                "complete": none that the approximate index can find; `recall` says how much that is
                "partial": the time budget ended the search, or nothing is known of what the index finds for
                such a question; a note says so
    recall      in 0..1, measured on this collection; given when complete
    timings_ms  milliseconds by stage
    notes       what is to be known of the question's texts: what of them the model leaves out, or does not know
    """

    hits: tuple[Hit, ...]
    claim: Claim
    recall: float | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_tuple("QueryResult.hits", self.hits, Hit)
        check_choice("QueryResult.claim", self.claim, Claim)
        check_tuple("QueryResult.notes", self.notes, str)
        if self.claim == "complete" and self.recall is None:
            raise InputError("QueryResult.claim is 'complete' without recall; say what recall the index measured.")
        if self.recall is not None and not 0 <= self.recall <= 1:
            raise InputError(f"QueryResult.recall is {self.recall}; it must lie in 0..1.")


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """How a collection's items fall under one class.

    matched, rejected, below  numbers of items: matched; over the threshold by their positives alone; under it
    counts                    int64 (b,), items per bin of the score of their best positive
    rivalled                  int64 (b,), those of them that are nearer a negative, whatever the threshold
    ranked                    int64 (b,), items per bin of the score that ranks them and is compared with a threshold;
                              without those that a negative removes under whatever threshold
    edges                     float32 (b + 1,), ascending, bin i is edges[i] <= score < edges[i + 1], the last closed
    exact                     True after a scan of everything, False when scaled up from a sample
    """

    matched: int
    rejected: int
    below: int
    counts: Int64
    rivalled: Int64
    ranked: Int64
    edges: Float32
    exact: bool

    def __post_init__(self) -> None:
        for name in ("matched", "rejected", "below"):
            if getattr(self, name) < 0:
                raise InputError(f"Distribution.{name} is {getattr(self, name)}; it counts items, from 0 up.")
        check_array("Distribution.counts", self.counts, np.int64, "(b,)", (None,))
        check_array("Distribution.rivalled", self.rivalled, np.int64, "(b,)", (len(self.counts),))
        check_array("Distribution.ranked", self.ranked, np.int64, "(b,)", (len(self.counts),))
        check_array("Distribution.edges", self.edges, np.float32, "(b + 1,)", (len(self.counts) + 1,))
        if (self.rivalled < 0).any() or (self.counts < self.rivalled).any():
            raise InputError("Distribution.rivalled counts some of the items of Distribution.counts, from 0 up.")
        if not (self.edges[:-1] < self.edges[1:]).all():
            raise InputError("Distribution.edges does not ascend; each bin must end above its start.")


def _box(text: str | None, box: object) -> Box:
    if text is not None:
        raise InputError(f"Example has the text {quoted(text)} and a box; a box is a part of an image.")
    sides = tuple(box) if isinstance(box, list | tuple) else ()
    if len(sides) != 4 or any(isinstance(s, bool) or not isinstance(s, int | float) for s in sides):
        raise InputError(f"Example.box is {quoted(box)}; give x0, y0, x1 and y1 in 0..1 of the image.")
    x0, y0, x1, y1 = map(float, sides)
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise InputError(f"Example.box is {quoted(box)}; x0, y0, x1, y1 lie in 0..1 of the image, x0 < x1 and y0 < y1.")
    return x0, y0, x1, y1


def _examples(where: str, given: Iterable[Example | str]) -> tuple[Example, ...]:
    if isinstance(given, str):  # would be taken apart into letters
        raise InputError(f"{where} is the string {quoted(given)}; give a list of examples: [{quoted(given)}].")
    examples = tuple(Example(text=e) if isinstance(e, str) else e for e in given)
    check_tuple(where, examples, Example)
    return examples


def _templates(given: Iterable[str] | None) -> tuple[str, ...] | str | None:
    if given is None:
        return None
    if isinstance(given, str):
        check_choice("ClassSet.templates", given, TemplateSet)
        return given
    templates = tuple(given)
    check_tuple("ClassSet.templates", templates, str)
    if not templates:
        raise InputError("ClassSet.templates is empty; give at least one, or None for none.")
    for template in templates:
        check_text("ClassSet.templates", template)
        if template.count("{}") != 1:
            raise InputError(
                f"ClassSet.templates holds {quoted(template)}; each must hold one {{}}, where the text goes."
            )
    return templates
