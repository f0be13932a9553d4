"""What requests can ask to have left out: the items of a class, or those that a head flags.

A class is asked of the whole collection, once for each commit. A head, which may cost a thousand times as much, looks
at what was found, and the search goes on until enough is left.
"""

import functools
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from clipsieve.index.collection import Collection
from clipsieve.index.examples import unit_rows
from clipsieve.index.head import Head
from clipsieve.index.rule import Bool
from clipsieve.index.stored import Modality
from clipsieve.types import Float32, Int64, MetaClass

Flag = MetaClass | Head


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
        timings: dict[str, float] | None = None,
    ) -> tuple[Int64, Float32]:
        """As `Collection.nearest`, as if what these flags leave out were not there. One that is not known does nothing.

        timings  gets the seconds of "safety", "knn_index" and, as a part of that, "dedup"
        """
        spent = {"safety": 0.0, "knn_index": 0.0} if timings is None else timings
        start = time.perf_counter()
        at, classes, heads = self._asked(flags)
        gone = [*classes, *(head.flagged for head in heads)]
        without = functools.reduce(np.union1d, gone) if gone else None
        spent["safety"] = time.perf_counter() - start
        spent["knn_index"] = 0.0
        wanted = k
        while True:
            start = time.perf_counter()
            ids, products = at.nearest(vector, wanted, modality=modality, dedup=dedup, without=without, timings=spent)
            found = time.perf_counter()
            bad = np.zeros(len(ids), np.bool_)
            for head in heads:
                bad |= head(ids)
            spent["knn_index"] += found - start
            spent["safety"] += time.perf_counter() - found
            if not bad[:k].any():  # those that duplicates of theirs stand for are of no flag either
                return ids[:k], products[:k]
            without = ids[bad] if without is None else np.union1d(without, ids[bad])
            wanted += int(bad.sum())  # where much is flagged, twice as far each time

    def _asked(self, flags: Sequence[str]) -> "tuple[Collection, list[Int64], list[_Verdicts]]":
        """The last commit, what of it is of the classes among the flags, and what their heads say of it."""
        known = {name: self._flags[name] for name in flags if name in self._flags}
        with self._lock:
            at = self._collection.fixed()
            if at.revision != self._revision:
                self._revision = at.revision
                self._classes.clear()
                self._heads.clear()
            for name, flag in known.items():
                if isinstance(flag, MetaClass):
                    if name not in self._classes:
                        hits = self._collection.filter(flag)
                        self._classes[name] = np.fromiter((hit.id for hit in hits), np.int64)
                elif name not in self._heads:
                    self._heads[name] = _Verdicts(flag, at)
            classes = [self._classes[name] for name in known if name in self._classes]
            return at, classes, [self._heads[name] for name in known if name in self._heads]


class _Verdicts:
    """What a head said of the items of one commit so far.

    flagged  int64 (r,), ascending
    """

    def __init__(self, head: Head, collection: Collection) -> None:
        self._head, self._collection = head, collection
        self._modality: Modality = "image" if "image" in collection.modalities else "text"
        self._said = np.zeros(collection.manifest.next_id, np.uint8)  # 1: let through, 2: flagged
        self._lock = threading.Lock()
        self.flagged: Int64 = np.zeros(0, np.int64)

    def __call__(self, ids: Int64) -> Bool:
        """bool (n,): which of these it flags."""
        new = ids[self._said[ids] == 0]
        if len(new):
            bad = self._head.flags(unit_rows(self._collection.vectors(new, self._modality)))
            with self._lock:
                self._said[new] = 1 + bad
                self.flagged = np.union1d(self.flagged, new[bad])
        flagged: Bool = self._said[ids] == 2
        return flagged
