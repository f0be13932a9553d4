import faiss
import numpy as np
import pytest

from clipsieve.index.faiss_graph import graph_fault


@pytest.fixture
def index():
    made = faiss.IndexHNSWFlat(4, 4)
    made.add(np.random.default_rng(0).random((60, 4), np.float32))
    return made


def test_a_whole_graph(index):
    assert graph_fault(index, faiss) is None
    assert graph_fault(faiss.IndexHNSWFlat(4, 4), faiss) is None


def levels_of(index):
    return faiss.vector_to_array(index.hnsw.levels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h, i: setattr(h, "entry_point", 60), "begins at a node that is not there"),
        (lambda h, i: setattr(h, "entry_point", -1), "begins at a node that is not there"),
        (lambda h, i: setattr(h, "entry_point", int(np.argmin(levels_of(i)))), "begins at a node that is not there"),
        (lambda h, i: setattr(h, "max_level", 9), "begins at a node that is not there"),
        (lambda h, i: h.levels.resize(59), "has 59 nodes for 60 rows"),
        (lambda h, i: faiss.copy_array_to_vector(levels_of(i) * 0, h.levels), "has levels that cannot be"),
        (lambda h, i: faiss.copy_array_to_vector(levels_of(i) * 0 + 1, h.levels), "has links where none can be"),
        (lambda h, i: setattr(i.storage, "ntotal", 59), "is of other rows"),
    ],
)
def test_a_graph_that_is_not_whole(index, change, words):
    change(index.hnsw, index)
    assert words in str(graph_fault(index, faiss))


@pytest.mark.parametrize("link", [60, -2, 2**31 - 1])
def test_links_to_nowhere(index, link):
    links = faiss.vector_to_array(index.hnsw.neighbors)
    links[5] = link
    index.hnsw.neighbors = faiss.MaybeOwnedVectorInt32()
    faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    assert "has links to rows that are not there" in str(graph_fault(index, faiss))


def test_links_to_nodes_without_their_level(index):
    levels, offsets = levels_of(index), faiss.vector_to_array(index.hnsw.offsets)
    links = faiss.vector_to_array(index.hnsw.neighbors)
    links[int(offsets[np.argmax(levels)]) + 8] = int(np.argmin(levels))  # the first link of level 1
    faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    assert "lack their level" in str(graph_fault(index, faiss))
