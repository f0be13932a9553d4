"""Which items show the same picture.

First by content hash, then near-duplicates by a cosine. How near is near differs by model and by collection (two photos
of one street lie closer than two breeds of dog), so the threshold is measured on the collection itself:

    For a random sample of items, take the distance 1 - cosine to the nearest of the items outside the sample. The bulk
    of these distances is what merely similar pictures have, and their logarithms spread about evenly around a median;
    copies lie far below it. The threshold is where a distance is 4 standard deviations (by the median absolute
    deviation of the upper half, which copies do not reach) under the median: about one item in 30,000 would be taken
    for a copy by chance if logarithms were normal. It is kept within 0.9 and 0.999, because below lies mere likeness
    and above lies the rounding of float16.

Groups do not chain (A like B, B like C, A unlike C): each has a leader, the item of lowest id, and every member is
compared with the leader itself.
"""

from collections.abc import Callable

import numpy as np

from clipsieve.errors import InputError
from clipsieve.protocols import VectorIndex
from clipsieve.types import Float32, Int64

LOWEST, HIGHEST = 0.9, 0.999
LEAST_SAMPLE = 50
"""With fewer items on either side nothing can be measured, and HIGHEST is taken."""

NEIGHBOURS = 16
BLOCK = 1024

Rows = Callable[[Int64], Float32]
"""ids int64 (r,) -> their vectors, float32 (r, d), unit rows."""


def measure_threshold(sample: Float32, others: Float32) -> float:
    """The cosine from which two items are near-duplicates.

    sample, others  float32 (s, d) and (r, d), unit rows, two disjoint random draws from the collection; a few hundred
                    and a few ten thousand are enough
    """
    if min(len(sample), len(others)) < LEAST_SAMPLE:
        return HIGHEST
    nearest = np.full(len(sample), -1, np.float32)
    for start in range(0, len(others), 8192):
        np.maximum(nearest, (sample @ others[start : start + 8192].T).max(axis=1), out=nearest)
    distance = np.log(np.maximum(1 - nearest.astype(np.float64), 1e-6))
    median = np.median(distance)
    spread = 1.4826 * np.median(distance[distance >= median] - median)
    return float(np.clip(1 - np.exp(median - 4 * spread), LOWEST, HIGHEST))


def hash_codes(hashes: list[str | None]) -> Int64:
    """Numbers in place of content hashes: equal where those are, -1 where there is none. int64 (n,)."""
    seen: dict[str, int] = {}
    return np.array([-1 if h is None else seen.setdefault(h, len(seen)) for h in hashes], dtype=np.int64)


def group_items(
    ids: Int64,
    rows: Rows,
    index: VectorIndex,
    threshold: float,
    *,
    codes: Int64 | None = None,
    known: Int64 | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Int64:
    """The group of each item, int64 (n,): the id of its leader, its own id where it leads or is alone.

    ids       int64 (n,), ascending
    index     finds their neighbours; a neighbour that it misses is a duplicate that goes unnoticed
    codes     int64 (n,), as `hash_codes` makes them
    known     int64 (r,), groups of the first r items from an earlier call, which stay as they are
    progress  called with (items compared, items to compare)

    Memory: one block of vectors, and the pairs that are near enough.
    """
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
    near = _near_pairs(ids, fresh, first, rows, index, threshold, progress)
    _follow_leaders(ids, groups, near, rows, threshold)
    copies = np.flatnonzero((first < np.arange(len(ids))) & (np.arange(len(ids)) >= done))
    groups[copies] = groups[first[copies]]
    return groups


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
    """Groups as looked up by id.

    ids, groups  int64 (n,), ids ascending; may be memory maps
    """

    def __init__(self, ids: Int64, groups: Int64) -> None:
        if len(ids) != len(groups):
            raise InputError(f"Groups got {len(ids)} ids and {len(groups)} groups; there must be one each.")
        self._ids = ids
        self._groups = groups

    def __call__(self, ids: Int64) -> Int64:
        """The group of each id, int64 (r,); an item that is not grouped yet is alone in its own."""
        if not len(self._ids):
            return ids
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[at] == ids, self._groups[at], ids)


def _first_of_code(codes: Int64 | None, n: int) -> Int64:
    """For each position the first one of the same code; itself where it has none."""
    first = np.arange(n, dtype=np.int64)
    if codes is not None:
        coded = np.flatnonzero(codes >= 0)
        _, where, back = np.unique(codes[coded], return_index=True, return_inverse=True)
        first[coded] = coded[where][back]
    return first


def _near_pairs(
    ids: Int64,
    fresh: Int64,
    first: Int64,
    rows: Rows,
    index: VectorIndex,
    threshold: float,
    progress: Callable[[int, int], None] | None,
) -> dict[int, set[int]]:
    """Position -> earlier positions that may be its duplicates; a copy by hash stands under its first."""
    near: dict[int, set[int]] = {}
    for start in range(0, len(fresh), BLOCK):
        block = fresh[start : start + BLOCK]
        # Asking only among `ids` would be a selector of n; neighbours beyond them are dropped below instead.
        found = index.search(rows(ids[block]), NEIGHBOURS + 1)
        close = found.scores >= threshold - index.score_error - 1e-5
        row, column = np.nonzero(close)
        other = found.ids[row, column]
        at = np.minimum(np.searchsorted(ids, other), len(ids) - 1)
        inside = ids[at] == other
        for a, b in zip(block[row[inside]].tolist(), first[at[inside]].tolist(), strict=True):
            if a != b:  # the pair counts for the later of the two, whichever search found it
                near.setdefault(max(a, b), set()).add(min(a, b))
        if progress is not None:
            progress(start + len(block), len(fresh))
    return near


def _follow_leaders(ids: Int64, groups: Int64, near: dict[int, set[int]], rows: Rows, threshold: float) -> None:
    """Give each position, in order, to the nearest leader among those of its neighbours; into `groups`."""
    order = sorted(near)
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        wanted = {int(ids[p]) for p in block} | {int(groups[q]) for p in block for q in near[p]}
        listed = np.array(sorted(wanted), dtype=np.int64)
        vectors = dict(zip(listed.tolist(), rows(listed), strict=True))
        for p in block:
            mine = vectors[int(ids[p])]
            best = -1.0
            # By ascending id, so that of equally near leaders the oldest is taken. Most were read with the block; one
            # whose follower joined it within the block may not have been.
            for leader in sorted({int(groups[q]) for q in near[p]}):
                if leader not in vectors:
                    vectors[leader] = rows(np.array([leader], dtype=np.int64))[0]
                cosine = float(mine @ vectors[leader])
                if cosine >= threshold and cosine > best:
                    best = cosine
                    groups[p] = leader
