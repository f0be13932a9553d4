"""What requests can ask to have left out: the items of a class, or those that a head flags.

A class is asked of the whole collection, once for each commit. A head, which may cost a thousand times as much, looks
at what was found, and the search goes on until enough is left.
"""

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from clipsieve.index.collection import Collection
from clipsieve.index.examples import unit_rows
from clipsieve.index.head import Head, Prompts
from clipsieve.index.kinds import Source
from clipsieve.index.rule import Bool
from clipsieve.index.stored import Modality
from clipsieve.types import ClassSet, Float32, Int64, MetaClass

Flag = MetaClass | Head
Kind = Literal["class", "prompts", "head"]

LOOKED_AT, BUDGET = 200_000, 10**11
"""Items of a commit that heads look at for a count, and multiplications for that: on two busy cores they took four
seconds. All 200,000 for LAION's safety model of ViT-L/14, and 17,000 for the costliest one, of ViT-H/14."""

BLOCK = 16_384
"""Items whose vectors are held at once for a head."""

T = TypeVar("T")


def kind_of(flag: Flag) -> Kind:
    """What flags: a class of examples, the nearest of a few prompts, or a head that was trained for it."""
    if isinstance(flag, MetaClass):
        return "class"
    return "prompts" if isinstance(flag, Prompts) else "head"


class Flags:
    """The flags of a collection by name. Safe to use from several threads at once."""

    def __init__(self, collection: Collection, flags: Mapping[str, Flag]) -> None:
        self._collection = collection
        self._flags = flags
        self._revision = ""
        self._classes: dict[str, Int64] = {}
        self._heads: dict[str, _Verdicts] = {}
        self._lock = threading.Lock()

    def nearest(
        self,
        vector: Float32,
        k: int,
        flags: Sequence[str],
        *,
        modality: Modality,
        dedup: bool,
        source: Source | None = None,
        timings: dict[str, float] | None = None,
    ) -> tuple[Int64, Float32]:
        """As `Collection.nearest`, as if what these flags leave out were not there. One that is not known does nothing.

        timings  gets the seconds of "safety", "knn_index" and, as a part of that, "dedup"
        """
        spent: dict[str, float] = {} if timings is None else timings

        start = time.perf_counter()
        sieve = self.sieve(flags)
        asked = time.perf_counter()
        found = sieve.nearest(vector, k, modality=modality, dedup=dedup, source=source, timings=spent)
        spent["safety"] = asked - start + sieve.seconds
        spent["knn_index"] = time.perf_counter() - asked - sieve.seconds
        return found

    def sieve(self, flags: Sequence[str]) -> "Sieve":
        """The last commit, and what these flags leave out of it. One that is not known leaves out nothing."""
        known = {name: self._flags[name] for name in flags if name in self._flags}
        if not known:  # nobody waits for what others have left out
            return Sieve(self._collection.fixed(), [], [])
        with self._lock:
            at = self._collection.fixed()
            if at.revision != self._revision:
                self._revision = at.revision
                self._classes.clear()
                self._heads.clear()
            for name, flag in known.items():
                if isinstance(flag, MetaClass):
                    if name not in self._classes:
                        vectors = self._collection.embed(ClassSet([flag]))
                        hits = at.fixed(vectors).filter(flag)
                        self._classes[name] = np.fromiter((hit.id for hit in hits), np.int64)
                elif name not in self._heads:
                    self._heads[name] = _Verdicts(flag, at)
            classes = [self._classes[name] for name in known if name in self._classes]
            return Sieve(at, classes, [self._heads[name] for name in known if name in self._heads])


@dataclass(slots=True, eq=False)
class Sieve:
    """A commit, and what flags leave out of it. For one thread.

    collection  the commit, with all its items
    seconds     that heads took to look
    """

    collection: Collection
    classes: Sequence[Int64]
    heads: "Sequence[_Verdicts]"
    seconds: float = 0.0

    @property
    def without(self) -> Int64 | None:
        """The ids that are known to be left out, ascending; None without flags."""
        gone = [*self.classes, *(head.flagged for head in self.heads)]
        return functools.reduce(np.union1d, gone) if gone else None

    def flagged(self, ids: Int64) -> Bool:
        """bool (n,): which of these a head flags."""
        start = time.perf_counter()
        bad = np.zeros(len(ids), np.bool_)
        for head in self.heads:
            bad |= head(ids)
        self.seconds += time.perf_counter() - start
        return bad

    def look(self, sample: int | None, modality: Modality) -> int | None:
        """Have heads look at all items, or at a random sample: of so many, or of as many as is affordable.

        returns  the sample's size; None for all items, and `sample` where there is no head
        """
        if not self.heads:
            return sample
        most = min(LOOKED_AT, max(1, BUDGET // sum(head.cost for head in self.heads)))
        size = min(most, self.collection.count if sample is None else sample)
        self.flagged(self.collection.sample(size, modality))
        return size if size < self.collection.count else None

    def nearest(
        self,
        vector: Float32,
        k: int,
        *,
        modality: Modality,
        dedup: bool = False,
        source: Source | None = None,
        timings: dict[str, float] | None = None,
    ) -> tuple[Int64, Float32]:
        """As `Collection.nearest`, as if what is left out were not there."""
        at = self.collection

        def find(without: Int64 | None, wanted: int) -> tuple[tuple[Int64, Float32], Int64]:
            found = at.nearest(
                vector, wanted, modality=modality, dedup=dedup, without=without, source=source, timings=timings
            )
            return found, found[0]

        ids, products = self.search(k, find)
        return ids[:k], products[:k]

    def search(self, k: int, find: Callable[[Int64 | None, int], tuple[T, Int64]]) -> T:
        """What is found of the first k items that are not left out; there may be more in it, beyond those.

        find  asks without these ids for so many items; what it found, and their ids, best first
        """
        wanted, without = k, self.without
        while True:
            found, ids = find(without, wanted)
            bad = self.flagged(ids)
            if not bad[:k].any():  # those that duplicates of theirs stand for are of no flag either
                return found
            without = ids[bad] if without is None else np.union1d(without, ids[bad])
            wanted += int(bad.sum())  # where much is flagged, twice as far each time


class _Verdicts:
    """What a head said of the items of one commit so far.

    flagged  int64 (r,), ascending
    cost     of looking at an item, as Head has it
    """

    def __init__(self, head: Head, collection: Collection) -> None:
        self._head, self._collection = head, collection
        self._modality: Modality = "image" if "image" in collection.modalities else "text"
        self.cost = head.cost
        self._said = np.zeros(collection.manifest.next_id, np.uint8)  # 1: let through, 2: flagged
        self._lock = threading.Lock()
        self.flagged: Int64 = np.zeros(0, np.int64)

    def __call__(self, ids: Int64) -> Bool:
        """bool (n,): which of these it flags."""
        unseen = ids[self._said[ids] == 0]
        for start in range(0, len(unseen), BLOCK):
            new = unseen[start : start + BLOCK]
            bad = self._head.flags(unit_rows(self._collection.vectors(new, self._modality)))
            with self._lock:
                self._said[new] = 1 + bad
                self.flagged = np.union1d(self.flagged, new[bad])
        flagged: Bool = self._said[ids] == 2
        return flagged
