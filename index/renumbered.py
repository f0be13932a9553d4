"""A VectorIndex whose rows go by other ids than they were added under."""

import numpy as np

from clipsieve.index.flat import best_first, padded, single
from clipsieve.protocols import VectorIndex
from clipsieve.types import Float32, Int64, Neighbors


class Renumbered:
    """The rows of another index under new ids.

    new  int64 (n,): the new id of each old one; a permutation of 0..n-1
    """

    def __init__(self, index: VectorIndex, new: Int64) -> None:
        self._index, self._new = index, new
        self._old = np.empty_like(new)
        self._old[new] = np.arange(len(new))

    @property
    def count(self) -> int:
        """Rows."""
        return self._index.count

    @property
    def dim(self) -> int:
        """d."""
        return self._index.dim

    @property
    def exhaustive(self) -> bool:
        """As the other index."""
        return self._index.exhaustive

    @property
    def score_error(self) -> float:
        """As the other index."""
        return self._index.score_error

    def search(self, queries: Float32, k: int, *, only: Int64 | None = None, without: Int64 | None = None) -> Neighbors:
        """See VectorIndex."""
        old = {"only": self._before(only), "without": self._before(without)}
        near = self._index.search(queries, k + 1 if self.exhaustive else k, **old)
        found = []
        for i in range(len(queries)):
            ids, scores = near.ids[i], near.scores[i]
            if self.exhaustive and ids[-1] >= 0 and scores[-1] == scores[-2]:
                # The last place is tied: which of the equals stands there is for the new ids to say.
                (tied,) = self._index.range_search(queries[i : i + 1], float(scores[-1]), **old)
                ids, scores = tied.ids[0], tied.scores[0]
            found.append(best_first([(self._new[ids[ids >= 0]], scores[ids >= 0])], k))
        return padded(found, k)

    def range_search(
        self, queries: Float32, score: float, *, only: Int64 | None = None, without: Int64 | None = None
    ) -> list[Neighbors]:
        """See VectorIndex."""
        old = {"only": self._before(only), "without": self._before(without)}
        found = self._index.range_search(queries, score, **old)
        return [single(best_first([(self._new[f.ids[0]], f.scores[0])])) for f in found]

    def _before(self, ids: Int64 | None) -> Int64 | None:
        return None if ids is None else np.sort(self._old[ids[(ids >= 0) & (ids < len(self._old))]])
