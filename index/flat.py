"""Exhaustive search in plain numpy: the oracle of the tests, and what answers for shards that no index covers yet."""

from collections.abc import Iterator, Sequence

import numpy as np

from clipsieve.errors import InputError
from clipsieve.index.rows import Rows, contains
from clipsieve.index.rule import SLACK
from clipsieve.protocols import VectorIndex
from clipsieve.types import Float32, Int64, Neighbors

Found = tuple[Int64, Float32]
"""Ids and scores of one query, (r,) each."""


class FlatIndex:
    """A VectorIndex that reads every row. Scores are settled in float64, so that equal rows tie exactly."""

    exhaustive = True
    score_error = 0.0

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @property
    def count(self) -> int:
        """Live rows."""
        return self._rows.count

    @property
    def dim(self) -> int:
        """d."""
        return self._rows.dim

    def search(self, queries: Float32, k: int, *, only: Int64 | None = None, without: Int64 | None = None) -> Neighbors:
        """See VectorIndex."""
        check_search(queries, self.dim, k)
        found = [nothing() for _ in queries]
        for ids, vectors, scores, slack in self._blocks(queries, only, without):
            for i, query in enumerate(queries):
                at = np.arange(len(ids))
                if len(found[i][0]) == k:
                    at = np.flatnonzero(scores[i] >= found[i][1][-1] - slack)
                if len(at) > k:
                    kth = np.partition(scores[i, at], -k)[-k]
                    at = at[scores[i, at] >= kth - 2 * slack]
                found[i] = best_first([found[i], (ids[at], _settle(query, vectors[at]))], k)
        return padded(found, k)

    def range_search(
        self, queries: Float32, score: float, *, only: Int64 | None = None, without: Int64 | None = None
    ) -> list[Neighbors]:
        """See VectorIndex."""
        check_search(queries, self.dim, 1)
        found: list[list[Found]] = [[] for _ in queries]
        for ids, vectors, scores, slack in self._blocks(queries, only, without):
            for i, query in enumerate(queries):
                at = np.flatnonzero(scores[i] >= score - slack)
                settled = _settle(query, vectors[at])
                keep = settled >= np.float32(score)
                found[i].append((ids[at[keep]], settled[keep]))
        return [single(best_first(parts)) for parts in found]

    def _blocks(
        self, queries: Float32, only: Int64 | None, without: Int64 | None
    ) -> Iterator[tuple[Int64, Float32, Float32, float]]:
        """Ids (b,), vectors (b, d), float32 scores (m, b), and how far these may be from the settled ones."""
        longest = float(np.linalg.norm(queries, axis=1).max(initial=0))
        without = None if without is None else np.unique(without)
        for ids, vectors in self._rows.blocks(only=None if only is None else np.unique(only)) if len(queries) else ():
            if without is not None:
                live = ~contains(without, ids)
                ids, vectors = ids[live], vectors[live]
            # Rows of regions are not of unit length, and rounding grows with the lengths.
            length = float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max(initial=0)))
            yield ids, vectors, queries @ vectors.T, SLACK * max(1.0, longest * length)


class CombinedIndex:
    """Indices over different rows as one VectorIndex: over some shards and over the others, or the parts of one."""

    def __init__(self, *parts: VectorIndex) -> None:
        dims = {part.dim for part in parts}
        if len(dims) != 1:
            joined = " and ".join(map(str, sorted(dims)))
            raise InputError(f"CombinedIndex joins {joined or 'no'} dimensions; they must agree.")
        self.parts = parts

    @property
    def count(self) -> int:
        """Rows of all."""
        return sum(p.count for p in self.parts)

    @property
    def dim(self) -> int:
        """d."""
        return self.parts[0].dim

    @property
    def exhaustive(self) -> bool:
        """True if all are."""
        return all(p.exhaustive for p in self.parts)

    @property
    def score_error(self) -> float:
        """The greatest of all."""
        return max(p.score_error for p in self.parts)

    def search(self, queries: Float32, k: int, *, only: Int64 | None = None, without: Int64 | None = None) -> Neighbors:
        """See VectorIndex."""
        answers = [p.search(queries, k, only=only, without=without) for p in self.parts]
        pairs = [[_real(a.ids[i], a.scores[i]) for a in answers] for i in range(len(queries))]
        return padded([best_first(p, k) for p in pairs], k)

    def range_search(
        self, queries: Float32, score: float, *, only: Int64 | None = None, without: Int64 | None = None
    ) -> list[Neighbors]:
        """See VectorIndex."""
        answers = [p.range_search(queries, score, only=only, without=without) for p in self.parts]
        return [single(best_first([(a.ids[0], a.scores[0]) for a in pair])) for pair in zip(*answers, strict=True)]


def check_search(queries: Float32, dim: int, k: int) -> None:
    """InputError unless the arguments of a search are what VectorIndex says."""
    if not isinstance(queries, np.ndarray) or queries.dtype != np.float32 or queries.ndim != 2:
        raise InputError("The queries of a search are a float32 array of shape (m, d).")
    if queries.shape[1] != dim:
        raise InputError(f"The queries have {queries.shape[1]} dimensions and the index {dim}; embed with one model.")
    if k < 1:
        raise InputError(f"A search was asked for k = {k} neighbours; ask for at least 1.")


def nothing() -> Found:
    """No neighbours."""
    return np.zeros(0, np.int64), np.zeros(0, np.float32)


def best_first(parts: Sequence[Found], k: int | None = None) -> Found:
    """The best k of the parts together (all by default), by (score descending, id ascending)."""
    if not parts:
        return nothing()
    ids, scores = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


def padded(found: Sequence[Found], k: int) -> Neighbors:
    """One row of k per query, with -1 and -inf where there are fewer."""
    ids = np.full((len(found), k), -1, np.int64)
    scores = np.full((len(found), k), -np.inf, np.float32)
    for i, (own_ids, own_scores) in enumerate(found):
        ids[i, : len(own_ids)], scores[i, : len(own_ids)] = own_ids, own_scores
    return Neighbors(ids, scores)


def single(found: Found) -> Neighbors:
    """Neighbors of shape (1, r)."""
    return Neighbors(found[0][None], found[1][None])


def _real(ids: Int64, scores: Float32) -> Found:
    return ids[ids >= 0], scores[ids >= 0]


def _settle(query: Float32, vectors: Float32) -> Float32:
    settled: Float32 = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    return settled
