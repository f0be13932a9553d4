"""JSON of /api/v1 to our types and back. Ids are strings: JavaScript rounds above 2**53."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, ValidationError, field_validator

from clipsieve import classset
from clipsieve.back.limits import check_set
from clipsieve.errors import InputError, NotFound, quoted
from clipsieve.marks import Mark
from clipsieve.types import ClassSet, Distribution, Example, Hit, MetaClass

MOST_RESULTS = 1000
"""Hits of one page."""
MOST_IDS = 1_000_000
"""Items that a job may be given one by one."""

MOST_MARKS = 10_000
"""Marks of one request."""


def _is_id(text: str) -> str:
    if int(text) >= 2**63:
        raise ValueError("ids are whole numbers below 2**63")
    return text


ItemId = Annotated[str, Field(pattern=r"^[0-9]{1,19}$"), AfterValidator(_is_id)]


class Model(BaseModel):
    """What a request may hold. A field that is not known is an error: a misspelt one must not pass in silence."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Question(Model):
    """What is asked of a collection."""

    collection: Annotated[str | None, Field(description="Its name; the first one by default.")] = None
    set: Annotated[
        dict[str, Any] | str | None, Field(description="A class set, as files have it, or the name of a stored one.")
    ] = None
    class_: Annotated[
        dict[str, Any] | str | None,
        Field(alias="class", description="A class, or the name of one of the set; a set of one class needs none."),
    ] = None
    threshold: Annotated[float | None, Field(description="In place of the class's own.", allow_inf_nan=False)] = None
    where: Annotated[str | None, Field(description='A filter over the metadata: "width > 800".')] = None
    modality: Literal["image", "text"] = "image"
    multilingual: Annotated[
        bool, Field(description="Texts are embedded by the model for other languages, where /info says there is one.")
    ] = False


class Vetoed(Model):
    """What negatives do."""

    veto: Annotated[
        Literal["hard", "soft"],
        Field(
            description="soft: one that is nearer than every positive lowers the score by as much as it is nearer; "
            "hard: it removes the item."
        ),
    ] = "soft"


class Rated(Model):
    """Which rating is preferred."""

    rating: Annotated[
        int | None, Field(description="What looks like this rating, 9 the most beautiful, ranks higher.", ge=0, le=9)
    ] = None
    rating_weight: Annotated[
        float, Field(description="Of the rating beside each positive example.", ge=-10, le=10, allow_inf_nan=False)
    ] = 0.5


class Sifted(Model):
    """What is as if it were not there."""

    without: Annotated[
        tuple[Annotated[str, Field(max_length=100)], ...],
        Field(description="Flags, by the names that /info has; items of them are left out.", max_length=100),
    ] = ()


class Search(Question, Vetoed, Rated, Sifted):
    """A question, and which of its answers to show."""

    view: Literal["matched", "rejected", "below"] = "matched"
    sort: Literal["score", "margin", "new"] = "score"
    dedup: Annotated[bool, Field(description="One of each group of near-duplicates.")] = False
    boxes: Annotated[bool, Field(description="Where in each image a detector sees the class.")] = False
    box_threshold: Annotated[float, Field(description="Least score of a box.", ge=0, le=1)] = 0.1
    cursor: Annotated[str | None, Field(max_length=100, description="`next` of the page before.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = 100


class Histogram(Question, Vetoed, Rated, Sifted):
    """A question, and how to count."""

    bins: Annotated[int, Field(ge=2, le=1024)] = 64
    lo: Annotated[float | None, Field(description="Where bins begin; by itself.", allow_inf_nan=False)] = None
    hi: Annotated[float | None, Field(description="Where they end.", allow_inf_nan=False)] = None


class Explain(Question, Rated):
    """A question, and the item that is to be explained."""

    id: ItemId


class Learn(Question, Sifted):
    """A question whose marks are learned from; threshold and where must be left out."""

    limit: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = 40


class Suggest(Question, Rated, Sifted):
    """A question, and how many items of each kind to suggest."""

    limit: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = 40
    asking: Annotated[
        Literal["doubtful", "spread"],
        Field(description="Items nearest the line, or of all ranks, from which there is more to learn."),
    ] = "doubtful"


FORMATS: Mapping[str, tuple[str, ...]] = {
    "label": ("parquet", "csv", "jsonl", "coco", "webdataset", "folders"),
    "export": ("csv", "parquet", "jsonl", "coco", "yolo", "webdataset"),
}
"""What jobs write, by their kind."""


class NewJob(Question, Vetoed, Rated, Sifted):
    """Long work: every item labelled with the best class of a set, or the items of a question, or of ids, as a file."""

    kind: Literal["label", "export"]
    format: Literal["csv", "parquet", "jsonl", "coco", "yolo", "webdataset", "folders"]
    reject: Annotated[bool, Field(description="label: no label for items that no class accepts.")] = False
    ids: Annotated[
        list[ItemId] | None, Field(description="export: these items alone.", min_length=1, max_length=MOST_IDS)
    ] = None
    view: Literal["matched", "rejected", "below"] = "matched"
    sort: Literal["score", "margin", "new"] = "score"
    dedup: Annotated[bool, Field(description="export: one of each group of near-duplicates.")] = False
    limit: Annotated[int | None, Field(description="export: the first so many.", ge=1)] = None
    raw_csv: Annotated[
        bool, Field(description="csv: texts as they are, also those that a spreadsheet would compute.")
    ] = False
    images: Annotated[bool, Field(description="yolo: the images beside their labels.")] = False
    boxes: Annotated[bool, Field(description="Where in each image a detector sees the class, or those of the set.")] = (
        False
    )
    box_threshold: Annotated[float, Field(description="Least score of a box.", ge=0, le=1)] = 0.1


class JobPath(Model):
    """Which job."""

    id: str


class ItemPath(Model):
    """Which item."""

    id: str


class ItemQuery(Model):
    """Of which collection."""

    collection: str | None = None


class ImageQuery(ItemQuery):
    """How large."""

    size: Annotated[Literal[64, 128, 256, 512, 1024] | None, Field(description="Pixels of the longer side.")] = None

    @field_validator("size", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 6 else value


class SetPath(Model):
    """Which stored set."""

    id: Annotated[str, Field(description="Its name: letters, digits, dashes and underscores, 64 at most.")]


class SetBody(RootModel[dict[str, Any]]):
    """A class set as files have it, ours or DirectAI's. Fields that are not known are kept."""


class TakenBack(Model):
    """What is no longer said of an item."""

    item: ItemId
    class_: Annotated[str, Field(alias="class", min_length=1, max_length=1000, description="The class's name.")]
    verdict: Annotated[
        Literal["right", "wrong"] | None, Field(description="Taken back only if this is what is said.")
    ] = None
    set: Annotated[str | None, Field(max_length=64, description="The stored set that the class is in.")] = None

    def to_mark(self) -> Mark:
        """As the file has it."""
        return Mark(int(self.item), self.class_, self.verdict, self.set)


class Said(TakenBack):
    """What somebody says of an item."""

    verdict: Literal["right", "wrong"]


class MarksBody(RootModel[Annotated[list[Said], Field(max_length=MOST_MARKS)]]):
    """What is said, one after the other."""


class TakenBackBody(RootModel[Annotated[list[TakenBack], Field(max_length=MOST_MARKS)]]):
    """What is no longer said."""


class MarksQuery(ItemQuery):
    """Which marks."""

    class_: Annotated[str | None, Field(alias="class", description="Of this class alone.")] = None


class Url(Model):
    """An address of an image."""

    url: Annotated[str, Field(max_length=4096)]
    collection: str | None = None


def read_set(given: dict[str, Any] | str, stored: Any) -> ClassSet:
    """A class set as it was sent, or a stored one by its name."""
    value = stored(given) if isinstance(given, str) else given
    classes = value if isinstance(value, ClassSet) else classset.from_json(value)
    check_set(classes)
    return classes


def read_question(question: Question, stored: Any) -> tuple[ClassSet, str | None]:
    """The class set that is asked, and the name of the class. `stored` gives a stored set by name."""
    named = question.class_
    if question.set is not None:
        if named is not None and not isinstance(named, str):
            raise InputError("With a set, class is the name of one of its classes.")
        classes = read_set(question.set, stored)
        names = [c.name for c in classes.classes]
        if named is None and len(names) > 1:
            raise InputError(f"The set holds {len(names)} classes; name one: {quoted(', '.join(names), '')}.")
        if named is not None and named not in names:
            raise NotFound(f"The set has no class {quoted(named)}; it has {quoted(', '.join(names), '')}.")
        return classes, named or names[0]
    if isinstance(named, str):
        raise InputError("class is a name, but there is no set; give the set, or the class itself.")
    if named is None:
        raise InputError("There is no question; give a set or a class.")
    # Texts and images meet on a scale alone.
    classes = classset.from_json({"classes": [{"name": "question", **named}], "calibration": "background"})
    check_set(classes)
    meta = classes.classes[0]
    mixed = any(e.text is None for e in (*meta.positive, *meta.negative))
    return ClassSet([meta], "background" if mixed else "none"), meta.name


def mark_to_json(mark: Mark) -> dict[str, Any]:
    """A mark; the same fields make one."""
    return {
        "item": str(mark.item),
        "class": mark.class_name,
        "verdict": mark.verdict,
        "set": mark.set,
        "at": mark.at,
    }


def hit_to_json(hit: Hit) -> dict[str, Any]:
    """A hit: id, key, score, margin (null without negatives), and the examples behind them."""
    worst = hit.score - hit.margin
    return {
        "id": str(hit.id),
        "key": hit.key,
        "score": hit.score,
        "margin": None if hit.negative is None else hit.margin,
        "pos": {"ex": classset.example_to_json(hit.positive), "score": hit.score},
        "neg": None if hit.negative is None else {"ex": classset.example_to_json(hit.negative), "score": worst},
    }


def learned_to_json(
    id: int, key: str, odds: float, examples: Sequence[Example], parts: Sequence[float]
) -> dict[str, Any]:
    """An item as a learned direction ranks it: log odds, and the examples that speak most for it and most against.

    parts  what each example gives to the log odds, above 0 for, below against
    """
    most, least = max(range(len(parts)), key=parts.__getitem__), min(range(len(parts)), key=parts.__getitem__)

    def reason(at: int, speaks: bool) -> dict[str, Any] | None:
        return {"ex": classset.example_to_json(examples[at]), "score": parts[at]} if speaks else None

    pos, neg = reason(most, parts[most] > 0), reason(least, parts[least] < 0)
    return {"id": str(id), "key": key, "odds": odds, "pos": pos, "neg": neg}


def explained_to_json(meta: MetaClass, positive: list[float], negative: list[float]) -> dict[str, Any]:
    """Each example of a class with the item's score, the deciding ones first."""

    def side(examples: tuple[Example, ...], scores: list[float]) -> list[dict[str, Any]]:
        pairs = sorted(zip(scores, examples, strict=True), key=lambda pair: -pair[0])
        return [{"ex": classset.example_to_json(e), "score": s} for s, e in pairs]

    best, worst = max(positive), max(negative, default=None)
    return {
        "name": meta.name,
        "accepted": (worst is None or best > worst) and (meta.threshold is None or best >= meta.threshold),
        "score": best,
        "margin": None if worst is None else best - worst,
        "positive": side(meta.positive, positive),
        "negative": side(meta.negative, negative),
    }


def distribution_to_json(found: Distribution) -> dict[str, Any]:
    """Counts, and per bin of the positives' score how many are nearer a positive and how many nearer a negative.

    "ranked" counts by the score that ranks and is compared with a threshold.
    """
    won = found.counts - found.rivalled
    return {
        "counts": {"matched": found.matched, "rejected": found.rejected, "below": found.below},
        "hist": {
            "lo": float(found.edges[0]),
            "hi": float(found.edges[-1]),
            "bins": [list(pair) for pair in zip(won.tolist(), found.rivalled.tolist(), strict=True)],
            "ranked": found.ranked.tolist(),
        },
        "estimated": not found.exact,
    }


def validation_sentence(error: ValidationError, mimetype: str, body: bytes) -> str:
    """What is wrong with a request, its fields by name."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if not all(one["loc"] for one in faults):  # it is about the body as a whole
        if mimetype != "application/json":
            return "Send JSON, and say so: Content-Type: application/json."
        try:
            json.loads(body)
        except (ValueError, RecursionError) as wrong:
            return f"The body is not JSON ({wrong})."
    return (
        "; ".join(
            f"{quoted('.'.join(map(str, one['loc'])), '') or 'the body'}: {_in_json(one['msg'])}" for one in faults[:3]
        )
        + "."
    )


def _in_json(message: str) -> str:
    return re.sub(r"dictionary( or instance of \w+)?", "object", message)
