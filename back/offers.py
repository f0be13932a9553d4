"""What a collection is served with beyond its own model and rows, and questions of /api/v1 that make use of it.

A question is embedded by the model that it asks for, and moved towards the rating that it prefers; then it is asked of
the collection as if what its flags leave out were not there. Counts and pages of one question agree because of that.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clipsieve.back import schema
from clipsieve.back.flags import Sieve, kind_of
from clipsieve.back.shelf import Served
from clipsieve.errors import InputError, quoted
from clipsieve.index.asked import RankedAnswer
from clipsieve.index.collection import Collection
from clipsieve.index.examples import unit_rows
from clipsieve.index.review import Review
from clipsieve.index.stored import Modality
from clipsieve.types import ClassSet, ClassVectors, Float32, Hit, Int64

ROUNDS = 4
"""Times that a review is asked for anew without what heads flagged in it; each is a pass over the vectors."""


def offers(served: Served) -> dict[str, Any]:
    """What /info says of it."""
    flags = [{"name": name, "kind": kind_of(flag)} for name, flag in sorted(served.options.flags.items())]
    return {
        "multilingual": served.options.multilingual is not None,
        "ratings": sorted(served.options.ratings),
        "flags": flags,
    }


def embedded(served: Served, classes: ClassSet, asked: schema.Question) -> tuple[ClassVectors, ...]:
    """The classes as vectors, as they are asked for. InputError says what of that the collection is served without."""
    require(served, asked)
    vectors = served.collection.embed(classes, tower=served.options.multilingual if asked.multilingual else None)
    if not isinstance(asked, schema.Rated) or asked.rating is None:
        return vectors
    rating = served.options.ratings[asked.rating]
    return tuple(towards(one, rating, asked.rating_weight) for one in vectors)


def notes_on(served: Served, classes: ClassSet, asked: schema.Question) -> list[str]:
    """What is to be told of the classes' texts, as the model reads them that they are embedded with."""
    tower = served.options.multilingual if asked.multilingual else None
    modality = asked.modality if isinstance(asked, schema.Search) else None  # an answer's own, and no count's
    return list(served.collection.notes(classes, tower=tower, modality=modality))


def towards(vectors: ClassVectors, rating: Float32, weight: float) -> ClassVectors:
    """A class whose positive examples are moved by a rating, float32 (d,), and are of length 1 again.

    Negatives stay what they are: they say what an item must not be, however beautiful.
    """
    moved = vectors.positive + np.float32(weight) * rating
    if not np.linalg.norm(moved, axis=1).all():
        raise InputError(
            f"The rating takes away all of an example of {quoted(vectors.name)}; give another rating_weight."
        )
    return dataclasses.replace(vectors, positive=unit_rows(moved))


def one_class(classes: ClassSet, name: str | None) -> ClassSet:
    """The set with the class of that name alone; with its only one for None."""
    return dataclasses.replace(classes, classes=tuple(c for c in classes.classes if name in (None, c.name)))


def require(served: Served, asked: schema.Question) -> None:
    """InputError for what the collection is served without."""
    name, options = served.name, served.options
    if asked.multilingual and options.multilingual is None:
        raise InputError(
            f"The collection {quoted(name)} is served without a multilingual model; leave multilingual out."
        )
    if asked.multilingual and isinstance(asked, schema.Search | schema.NewJob) and asked.boxes:
        raise InputError("The detector reads no other languages; leave out boxes, or multilingual.")
    if isinstance(asked, schema.Rated):
        has = ", ".join(map(str, sorted(options.ratings))) or "none"
        if asked.rating is not None and asked.rating not in options.ratings:
            raise InputError(f"The collection {quoted(name)} has no rating {asked.rating}; it has {has}.")
        if asked.rating is None and "rating_weight" in asked.model_fields_set:
            raise InputError("rating_weight is that of a rating; give one, or leave it out.")
    if isinstance(asked, schema.Sifted):
        require_flags(served, asked.without)


def require_flags(served: Served, names: Sequence[str]) -> None:
    """InputError for a flag that the collection is served without."""
    flags = served.options.flags
    for name in names:
        if name not in flags:
            has = ", ".join(sorted(flags)) or "none"
            raise InputError(f"The collection {quoted(served.name)} has no flag {quoted(name)}; it has {has}.")


def rank(
    sieve: Sieve, vectors: Sequence[ClassVectors], k: int, ask: Callable[[Collection, int], RankedAnswer]
) -> RankedAnswer:
    """The first k items of an answer, as if what the sieve leaves out were not there.

    vectors  the class that is asked for
    ask      asks a collection for so many items
    """
    spent: dict[str, float] = {}

    def find(without: Int64 | None, wanted: int) -> tuple[RankedAnswer, Int64]:
        answer = ask(sieve.collection.fixed(vectors, without), wanted)
        for stage, milliseconds in answer.timings_ms.items():
            spent[stage] = spent.get(stage, 0.0) + milliseconds
        return answer, answer.ranked.ids

    answer = sieve.search(k, find)
    if sieve.heads:
        spent["flags"] = 1000 * sieve.seconds
        spent["total"] = spent.get("total", 0.0) + spent["flags"]
    return dataclasses.replace(answer, ranked=answer.ranked.pick(slice(k)), timings_ms=spent)


def review(
    sieve: Sieve,
    vectors: Sequence[ClassVectors],
    modality: Modality,
    ask: Callable[[Collection], Review[tuple[Hit, ...]]],
) -> Review[tuple[Hit, ...]]:
    """What to mark next, likewise; where heads flag much of a large collection, it may be less than was asked for."""
    sieve.look(None, modality)
    for _ in range(ROUNDS):
        found = ask(sieve.collection.fixed(vectors, sieve.without))
        hits = (*found.doubtful, *found.missed, *found.mistaken)
        ids = np.array([hit.id for hit in hits], np.int64)
        flagged = set(ids[sieve.flagged(ids)].tolist())
        if not flagged:
            break
    return found.map(lambda hits: tuple(hit for hit in hits if hit.id not in flagged))
