"""A process that writes into a collection, and ones that ask it meanwhile; for tests/test_readers.py.

The writer commits generations of SIZE items, and removes the oldest whole; each commit is a window of generations. So
whatever a reader finds must be such a window, in which item number i of generation g has the id SIZE * g + i.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.errors import CollectionChanged
from clipsieve.index.build import build_indices
from clipsieve.index.collection import Collection
from clipsieve.index.compact import compact
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.manifest import Manifest
from clipsieve.opening import open_collection
from clipsieve.parts import Parts
from clipsieve.types import Embeddings, MetaClass
from clipsieve.writer import open_writer

SIZE = 8
KEPT = 3
QUESTION = MetaClass("q", ["a text"], ["another"])
ALL = MetaClass("q", ["a text"])


def vectors(ids):
    """What an item's vector is."""
    return FakeEmbedder().embed_texts([f"item {id}" for id in ids])


def add(folder, generation):
    """One commit."""
    ids = range(SIZE * generation, SIZE * (generation + 1))
    embedder = FakeEmbedder()
    with open_writer(folder, Manifest(embedder.model, embedder.dim)) as writer:
        writer.append(
            Embeddings(vectors(ids), tuple(f"{id}.jpg" for id in ids), embedder.model),
            captions=[f"number {id}" for id in ids],
            columns={"generation": [generation] * SIZE},
        )


def write(folder, rounds):
    """Generations come and go; the folder is compacted and indexed now and then."""
    for generation in range(KEPT, rounds):
        add(folder, generation)
        with open_writer(folder) as writer:
            first = SIZE * (generation - KEPT)
            writer.remove(range(first, first + SIZE))
        if generation % 2:
            compact(folder, shard_size=SIZE * random.choice([1, 100]))
        if generation % 3 == 0:
            build_indices(folder, factory=random.choice(["flat", "IVF2,Flat"]), rebuild=generation % 2 == 0)


def window(ids):
    """The first and last generation. AssertionError if these are not the ids of some commit."""
    assert ids, "nothing was found"
    first, last = ids[0] // SIZE, ids[-1] // SIZE
    assert ids == list(range(SIZE * first, SIZE * (last + 1))), f"{ids} are no window"
    assert last - first in (KEPT - 1, KEPT)
    return first, last


def ask(photos: Collection):
    """The window that the answers show. AssertionError if there is none, or answers disagree."""
    ids = sorted(hit.id for hit in photos.search(ALL, k=1000).hits)
    first, last = window(ids)
    keys = [f"{id}.jpg" for id in ids]
    assert photos.count == len(ids)
    assert photos.select("1").tolist() == ids
    assert photos.select(f"generation = {last}").tolist() == ids[-SIZE:]
    assert photos.keys(ids) == keys
    assert photos.ids_of_keys(keys).tolist() == ids
    assert [row["caption"] for row in photos.items(ids)] == [f"number {id}" for id in ids]
    assert np.abs(photos.vectors(ids) - vectors(ids)).max() < 1e-3
    where = f"generation >= {last}"
    assert [hit.id for hit in photos.filter(ALL, where=where)] == ids[-SIZE:]
    hits = photos.search(QUESTION, k=5, where=where).hits
    assert {hit.id for hit in hits} <= set(ids[-SIZE:])
    assert all(hit.key == f"{hit.id}.jpg" for hit in hits)
    return first, last


def anew(folder):
    """Opens it for each round of questions."""
    windows, again = list[tuple[int, int]](), 0
    while not (folder / "done").exists():
        with open_collection(folder / "c", embedder=FakeEmbedder()) as photos:
            try:
                windows.append(ask(photos))
            except CollectionChanged:  # somebody compacted it between the opening and the last question
                again += 1
    return windows, again


def searching(folder):
    """Runs commands: none of them may fail."""
    windows = list[tuple[int, int]]()
    while not (folder / "done").exists():
        found = command("search", folder / "c", "a text", "-k", "1000", "--where", "generation >= 0")
        ids = sorted(int(hit["id"]) for hit in found["hits"])
        windows.append(window(ids))
        assert all(hit["key"] == f"{hit['id']}.jpg" for hit in found["hits"])
        assert command("info", folder / "c")["count"] in (SIZE * KEPT, SIZE * (KEPT + 1))
    return windows, 0


def command(*words):
    """What a command prints with --json."""
    parts = Parts(lambda name, **_: FakeEmbedder(name=name))
    result = CliRunner().invoke(cli.app, [*map(str, words), "--json"], obj=parts)
    assert result.exit_code == 0, result.stderr or repr(result.exception)
    return json.loads(result.stdout)


def keeping(folder):
    """Asks the same collection again and again, and opens it again when told to."""
    windows, again = list[tuple[int, int]](), 0
    while not (folder / "done").exists():
        with open_collection(folder / "c", embedder=FakeEmbedder()) as photos:
            try:
                windows.append(ask(photos))
                for _ in range(20):
                    assert ask(photos) == windows[-1]
            except CollectionChanged:
                again += 1
    return windows, again


def refreshing(folder):
    """Looks for a newer commit before each round of questions, and when told to."""
    windows, again = list[tuple[int, int]](), 0
    with open_collection(folder / "c", embedder=FakeEmbedder()) as photos:
        while not (folder / "done").exists():
            photos.refresh()
            try:
                windows.append(ask(photos))
            except CollectionChanged:
                again += 1
    return windows, again


WAYS = {"anew": anew, "searching": searching, "keeping": keeping, "refreshing": refreshing}

if __name__ == "__main__":
    _, what, top, rounds = sys.argv
    if what == "write":
        write(Path(top) / "c", int(rounds))
    else:
        with open_collection(Path(top) / "c", embedder=FakeEmbedder()) as collection:
            ask(collection)  # loads what takes longer to load than the writer takes for some commits
        print("ready", flush=True)
        seen, again = WAYS[what](Path(top))
        assert seen == sorted(seen), "an older commit came after a newer one"
        print(json.dumps({"asked": len(seen), "windows": len(set(seen)), "again": again}))
