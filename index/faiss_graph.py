"""Whether the graph of an HNSW index is whole: faiss follows its links without looking where they lead."""

from typing import Any

import numpy as np


def graph_fault(index: Any, faiss: Any) -> str | None:
    """What is wrong with the graph of a faiss.IndexHNSW, in words that follow "its graph"; None if nothing is.

    A node of L levels has L blocks of links, those of level l at `offsets[node] + blocks[l]`. A link of a level leads
    to a node that has that level, or is -1.
    """
    hnsw, n = index.hnsw, int(index.ntotal)
    levels, offsets, blocks, links = map(
        faiss.vector_to_array, (hnsw.levels, hnsw.offsets, hnsw.cum_nneighbor_per_level, hnsw.neighbors)
    )
    if index.storage is None or index.storage.ntotal != n or index.storage.d != index.d:
        return "is of other rows than its vectors"
    if len(levels) != n or len(offsets) != n + 1:
        return f"has {len(levels):,} nodes for {n:,} rows"
    if not n:
        return None if hnsw.entry_point == -1 else "begins at a node that is not there"
    if levels.min() < 1 or levels.max() >= len(blocks) or (np.diff(blocks) < 0).any() or blocks[0] != 0:
        return "has levels that cannot be"
    starts = offsets.astype(np.float64)  # what is beyond int64 must not come round again
    if starts[0] != 0 or (np.diff(starts) != blocks[levels]).any() or starts[-1] != len(links):
        return "has links where none can be"
    if links.min(initial=-1) < -1 or links.max(initial=-1) >= n:
        return "has links to rows that are not there"
    top = int(levels.max())
    for level in range(1, top):
        nodes = np.flatnonzero(levels > level)
        own = offsets[nodes].astype(np.int64)[:, None] + np.arange(blocks[level], blocks[level + 1])
        found = links[own]
        if (levels[found[found >= 0]] <= level).any():
            return "has links to nodes that lack their level"
    if not 0 <= hnsw.entry_point < n or hnsw.max_level != levels[hnsw.entry_point] - 1:
        return "begins at a node that is not there"
    return None
