"""Which items show the same picture.

First by content hash, then by two witnesses. Neighbours, of the vectors and of the perceptual hashes, are candidates;
two are copies if their hashes agree (`index/witness.py`), and far better than either does with what else is near it.
How much better is measured on the collection itself:

    For a random sample of items, take the least difference from any neighbour whose hash does not agree, over that from
    the eighth neighbour. These ratios are what merely similar pictures have, and their logarithms spread about evenly
    around a median; copies lie far below it. The threshold is where a ratio is 5 standard deviations (by the median
    absolute deviation of the upper half) under the median, kept within LEAST_RATIO and MOST_RATIO.

An item without a perceptual hash, or a blank one, has copies by its content alone. Groups do not chain (A like B, B
like C, A unlike C): each has a leader, the item of lowest id, and every member is compared with the leader itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.errors import InputError
from clipsieve.index import witness
from clipsieve.index.witness import Hashes
from clipsieve.protocols import VectorIndex
from clipsieve.types import Float32, Int64

LOWEST, UNMEASURED = 0.9, 0.999
LEAST_SAMPLE = 50
"""With fewer items on either side nothing can be measured, and UNMEASURED or USUAL_RATIO is taken."""

LEAST_RATIO, USUAL_RATIO, MOST_RATIO = 0.15, 0.25, 0.35
NEIGHBOURS = 8
"""That are looked at of each item: so many by the vectors, so many by the hashes."""

REFERENCE = 8
"""With its neighbour of this number a pair is compared: an item may have seven copies that it does not know of."""

BLOCK = 1024
FITTED = 2048
"""Pairs that are laid on each other at a time: 100 MB."""

Rows = Callable[[Int64], Float32]
"""ids int64 (r,) -> their vectors, float32 (r, d), unit rows."""

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What finds copies among n items, by their positions.

    ids     int64 (n,), ascending
    rows    their vectors
    index   over the vectors; it may hold further items, which are passed over
    hashes  uint8 (n, b)
    usable  bool (n,): which of the hashes say something
    near    over `witness.descriptors`, by position
    """

    ids: Int64
    rows: Rows
    index: VectorIndex
    hashes: Hashes
    usable: npt.NDArray[np.bool_]
    near: VectorIndex

    def neighbours(self, positions: Int64) -> tuple[Int64, Float32]:
        """Neighbours of r positions, int64 (r, m), and how their pictures differ as they lie; -1 and inf for none."""
        by_vector = self._positions(self.index.search(self.rows(self.ids[positions]), NEIGHBOURS + 1).ids)
        by_hash = self.near.search(witness.descriptors(self.hashes[positions]), NEIGHBOURS + 1).ids
        found = np.sort(np.concatenate([by_vector, by_hash], axis=1), axis=1)
        found[:, 1:][found[:, 1:] == found[:, :-1]] = -1
        found[(found == positions[:, None]) | ~self.usable[found]] = -1
        found[~self.usable[positions]] = -1
        differing = np.full(found.shape, np.inf, np.float32)
        row, column = np.nonzero(found >= 0)
        for start in range(0, len(row), FITTED):
            some = slice(start, start + FITTED)
            one, other = positions[row[some]], found[row[some], column[some]]
            differing[row[some], column[some]] = witness.plain_difference(self.hashes[one], self.hashes[other])
        return found, differing

    def differences(self, pairs: Int64) -> witness.Difference:
        """Those of pairs of positions, int64 (p, 2)."""
        made = []
        for start in range(0, max(1, len(pairs)), FITTED):
            some = pairs[start : start + FITTED]
            made.append(witness.difference(self.hashes[some[:, 0]], self.hashes[some[:, 1]]))
        parts = ([getattr(one, name) for one in made] for name in ("whole", "spot", "colour", "colour_spot"))
        return witness.Difference(*(np.concatenate(part) for part in parts))

    def _positions(self, ids: Int64) -> Int64:
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)


def references(differing: Float32) -> Float32:
    """Of each row its REFERENCE-th least difference, float32 (r,); inf where it has fewer."""
    return np.sort(differing, axis=1)[:, REFERENCE - 1]


def measure_ratio(candidates: Candidates, sample: Int64) -> float:
    """How much better than with others the hashes of copies agree, at least, in this collection.

    sample  int64 (r,), positions of a random draw
    """
    sample = sample[candidates.usable[sample]]
    if len(sample) < LEAST_SAMPLE:
        return USUAL_RATIO
    found, differing = candidates.neighbours(sample)
    reference = references(differing)
    kept = np.isfinite(reference)
    nearest = np.argsort(differing, axis=1)[kept, :REFERENCE]
    pairs = np.stack([np.repeat(sample[kept], REFERENCE), np.take_along_axis(found[kept], nearest, 1).ravel()], axis=1)
    difference = candidates.differences(pairs)
    whole = np.where(difference.alike, np.inf, difference.whole).reshape(-1, REFERENCE).min(axis=1).astype(np.float64)
    measured = np.isfinite(whole)
    if measured.sum() < LEAST_SAMPLE:
        return USUAL_RATIO
    ratio = np.log(whole[measured] / np.maximum(reference[kept][measured], 1e-3))
    median = np.median(ratio)
    spread = 1.4826 * np.median(ratio[ratio >= median] - median)
    return float(np.clip(np.exp(median - 5 * spread), LEAST_RATIO, MOST_RATIO))


def measure_threshold(sample: Float32, others: Float32) -> float:
    """The cosine from which an item is so near another one that a calibration should not count it as unrelated.

    sample, others  float32 (s, d) and (r, d), unit rows, two disjoint random draws from the collection; a few hundred
                    and a few ten thousand are enough
    """
    if min(len(sample), len(others)) < LEAST_SAMPLE:
        return UNMEASURED
    nearest = np.full(len(sample), -1, np.float32)
    for start in range(0, len(others), 8192):
        np.maximum(nearest, (sample @ others[start : start + 8192].T).max(axis=1), out=nearest)
    distance = np.log(np.maximum(1 - nearest.astype(np.float64), 1e-6))
    median = np.median(distance)
    spread = 1.4826 * np.median(distance[distance >= median] - median)
    return float(max(1 - np.exp(median - 4 * spread), LOWEST))


def hash_codes(hashes: list[str | None]) -> Int64:
    """Numbers in place of content hashes: equal where those are, -1 where there is none. int64 (n,)."""
    seen: dict[str, int] = {}
    return np.array([-1 if h is None else seen.setdefault(h, len(seen)) for h in hashes], dtype=np.int64)


def group_items(
    candidates: Candidates,
    ratio: float,
    *,
    codes: Int64 | None = None,
    known: Int64 | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Int64:
    """The group of each item, int64 (n,): the id of its leader, its own id where it leads or is alone.

    ratio     as `measure_ratio` has it
    codes     int64 (n,), as `hash_codes` makes them
    known     int64 (r,), groups of the first r items from an earlier call, which stay as they are
    progress  called with (items compared, items to compare)

    A neighbour that an index misses is a copy that goes unnoticed. Memory: one block, and the pairs that are copies.
    """
    ids = candidates.ids
    done = 0 if known is None else len(known)
    if done > len(ids) or (codes is not None and len(codes) != len(ids)):
        raise InputError(
            f"group_items got {len(ids)} ids, {done} known groups and {len(codes) if codes is not None else 'no'} hash "
            "codes; there must be one code per id and no more known groups than ids."
        )
    groups = ids.copy()
    groups[:done] = ids[:0] if known is None else known
    first = _first_of_code(codes, len(ids))
    fresh = np.flatnonzero((np.arange(len(ids)) >= done) & (first == np.arange(len(ids))))
    finder = _Finder(candidates, ratio)
    for start in range(0, len(fresh), BLOCK):
        finder.look(fresh[start : start + BLOCK])
        if progress is not None:
            progress(min(start + BLOCK, len(fresh)), len(fresh))
    near: dict[int, dict[int, float]] = {}
    for (a, b), differing in finder.copies().items():
        one, other = first[a], first[b]
        if one != other:  # the pair counts for the later of the two, whichever search found it
            near.setdefault(int(max(one, other)), {})[int(min(one, other))] = differing
    _follow_leaders(candidates, groups, near, finder)
    copies = np.flatnonzero((first < np.arange(len(ids))) & (np.arange(len(ids)) >= done))
    groups[copies] = groups[first[copies]]
    return groups


class _Finder:
    """Collects pairs of copies. `references` holds what each position's REFERENCE is, NaN while it is not known."""

    def __init__(self, candidates: Candidates, ratio: float) -> None:
        self._candidates, self._ratio = candidates, ratio
        self._references = np.full(len(candidates.ids), np.nan, np.float32)
        self._pairs: dict[Pair, float] = {}

    def look(self, positions: Int64) -> None:
        """Look for copies of these among the neighbours of each."""
        found, differing = self._candidates.neighbours(positions)
        self._references[positions] = references(differing)
        row, column = np.nonzero(differing < witness.WORTH_FITTING)
        pairs = np.stack([positions[row], found[row, column]], axis=1)
        for pair, whole in self._agreeing(pairs):
            self._pairs[pair] = whole

    def copies(self) -> dict[Pair, float]:
        """The pairs, lower position first, that agree better than the other one's neighbours do as well."""
        unknown = np.unique(np.array([p for pair in self._pairs for p in pair], dtype=np.int64))
        unknown = unknown[np.isnan(self._references[unknown])]
        for start in range(0, len(unknown), BLOCK):
            some = unknown[start : start + BLOCK]
            self._references[some] = references(self._candidates.neighbours(some)[1])
        return {pair: whole for pair, whole in self._pairs.items() if self._stands_out(*pair, whole)}

    def agree(self, a: int, b: int) -> float | None:
        """How two positions differ, if they are copies."""
        for _, whole in self._agreeing(np.array([[a, b]], dtype=np.int64)):
            return whole if self._stands_out(a, b, whole) else None
        return None

    def _agreeing(self, pairs: Int64) -> Iterable[tuple[Pair, float]]:
        pairs = np.sort(pairs, axis=1)
        pairs = pairs[self._candidates.usable[pairs].all(axis=1)]
        if not len(pairs):
            return
        differing = self._candidates.differences(pairs)
        for i in np.flatnonzero(differing.alike).tolist():
            a, b, whole = int(pairs[i, 0]), int(pairs[i, 1]), float(differing.whole[i])
            if self._stands_out(a, b, whole):
                yield (a, b), whole

    def _stands_out(self, a: int, b: int, whole: float) -> bool:
        reference = np.fmin(self._references[a], self._references[b])  # of the two that is known
        return bool(whole < witness.SURELY or np.isnan(reference) or whole < self._ratio * reference)


def quality_ranks(pixels: Int64, sizes: Int64) -> Int64:
    """Which of copies is the best: most pixels, then most bytes, then the oldest. int64 (n,), 0 is the best of all."""
    ranks = np.empty(len(pixels), np.int64)
    ranks[np.lexsort((np.arange(len(pixels)), -sizes, -pixels))] = np.arange(len(pixels))
    return ranks


def first_of_near(vectors: Float32, threshold: float) -> Int64:
    """Positions of the rows that are no near-duplicate of one kept before them, ascending.

    vectors  float32 (n, d), unit rows, best first: n * n inner products at most
    """
    kept = np.zeros(0, np.int64)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        new = np.flatnonzero((block @ vectors[kept].T).max(axis=1, initial=-1) < threshold)
        near = np.triu(block[new] @ block[new].T >= threshold, 1)  # of each with those after it
        alone = np.ones(len(new), np.bool_)
        for i in np.flatnonzero(near.any(axis=1)):
            if alone[i]:
                alone &= ~near[i]
        kept = np.concatenate([kept, start + new[alone]])
    return kept


class Groups:
    """Groups of copies, looked up by id.

    ids, groups, ranks  int64 (n,), ids ascending; `quality_ranks`. May be memory maps
    """

    def __init__(self, ids: Int64, groups: Int64, ranks: Int64 | None = None) -> None:
        if len(ids) != len(groups) or (ranks is not None and len(ranks) != len(ids)):
            raise InputError(f"Groups got {len(ids)} ids and {len(groups)} groups; there must be one each.")
        self._ids = ids
        self._groups = groups
        counts = np.unique(groups, return_inverse=True, return_counts=True)
        several = np.flatnonzero(counts[2][counts[1]] > 1)
        several = several[np.lexsort((several if ranks is None else ranks[several], groups[several]))]
        self._copies, self._copies_of = np.asarray(ids[several]), np.asarray(groups[several])

    def __call__(self, ids: Int64) -> Int64:
        """The group of each id, int64 (r,); an item that is not grouped yet is alone in its own."""
        if not len(self._ids):
            return ids
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[at] == ids, self._groups[at], ids)

    def worse(self, only: Int64 | None = None, *without: Int64 | None) -> Int64:
        """The ids of all copies but the best of each group, int64 (r,), ascending.

        only, without  as questions have them: what they leave out counts for nothing
        """
        counts = np.ones(len(self._copies), np.bool_)
        if only is not None:
            counts &= np.isin(self._copies, only)
        for gone in without:
            if gone is not None and len(gone):
                counts &= ~np.isin(self._copies, gone)
        copies, of = self._copies[counts], self._copies_of[counts]
        return np.sort(copies[1:][of[1:] == of[:-1]])


def _first_of_code(codes: Int64 | None, n: int) -> Int64:
    """For each position the first one of the same code; itself where it has none."""
    first = np.arange(n, dtype=np.int64)
    if codes is not None:
        coded = np.flatnonzero(codes >= 0)
        _, where, back = np.unique(codes[coded], return_index=True, return_inverse=True)
        first[coded] = coded[where][back]
    return first


def _follow_leaders(candidates: Candidates, groups: Int64, near: dict[int, dict[int, float]], finder: _Finder) -> None:
    """Give each position, in order, to the leader of its copies that it differs least from; into `groups`."""
    ids = candidates.ids
    for p in sorted(near):
        least = np.inf
        # By ascending id, so that of equally near leaders the oldest is taken.
        for leader in sorted({int(np.searchsorted(ids, groups[q])) for q in near[p]}):
            differing = near[p].get(leader)
            if differing is None:
                differing = finder.agree(leader, p)
            if differing is not None and differing < least:
                least = differing
                groups[p] = ids[leader]
