"""What `info` says of sizes, of the cost of what no index covers, and of what is worth doing."""

from pathlib import Path

import pytest

from clipsieve.index import costs
from clipsieve.index.build import build_indices
from clipsieve.index.collection import open_collection
from clipsieve.index.kinds import OLD_K
from clipsieve.manifest import Manifest
from clipsieve.types import Embeddings, Skipped
from clipsieve.writer import open_writer
from tests.index.made import MODEL, make_vectors

DIM = 16


def append(folder: Path, rows: int, seed: int = 0) -> None:
    with open_writer(folder, Manifest(MODEL, DIM)) as writer:
        keys = tuple(f"{seed}/{i}" for i in range(rows))
        images = Embeddings(make_vectors(rows, DIM, seed), keys, MODEL)
        writer.append(images, thumbs=[b"thumb"] * rows, skipped=[Skipped("broken.jpg", "It is no image.")])


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    append(tmp_path, 300)
    build_indices(tmp_path, factory="IVF4,Flat")
    with open_collection(tmp_path) as photos:
        found = photos.info()["bytes"]
    there: dict[str, int] = {}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            kind = {"img_emb": "vectors", "skipped": "metadata"}.get(path.parent.name, path.parent.name)
            kind = "indices" if path.name.startswith("image.") else "cache" if path.name == "cache.sqlite" else kind
            there[kind] = there.get(kind, 0) + path.stat().st_size
    assert found.pop("regions") == 0
    assert found == {kind: there[kind] for kind in ("vectors", "metadata", "thumbs", "indices", "cache")}


@pytest.mark.slow
def test_what_is_not_covered_is_timed_and_no_question_reads_the_rest(tmp_path: Path) -> None:
    append(tmp_path, 3_000)
    with open_collection(tmp_path) as photos:
        (flat,) = photos.info(timed=True)["indices"]
        build_indices(tmp_path, factory="IVF4,Flat")
        assert photos.refresh()
        (covered,) = photos.info(timed=True)["indices"]
        append(tmp_path, 30, seed=1)
        assert photos.refresh()
        (extended,) = photos.info(timed=True)["indices"]
        assert "advice" not in photos.info()
    assert (flat["kind"], flat["not_covered"], flat["search_ms"]) == (None, 3_000, None)
    assert (covered["not_covered"], covered["scan_ms"]) == (0, 0)
    assert covered["search_ms"] > 0
    assert extended["not_covered"] == 30
    assert 0 < extended["scan_ms"] < flat["scan_ms"]


def made_info(**changed: object) -> dict[str, object]:
    index: dict[str, object] = {
        "name": "image",
        "kind": "IVF64,Flat",
        "rows": 200_000,
        "not_covered": 0,
        "search_ms": 2.0,
        "scan_ms": 0.0,
    }
    index["kinds"] = []
    whole = {"folder": "c", "read_only": False, "count": 200_000, "removed": 0, "shards": 2, "regions": None}
    return whole | {"indices": [index | {k: v for k, v in changed.items() if k in index}]} | {
        k: v for k, v in changed.items() if k in whole
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"not_covered": 2_000, "scan_ms": 3.0}, None),
        ({"kinds": [{"k": 100}]}, None),
        ({"kinds": [{"k": OLD_K}]}, "measured with images alone"),
        ({"not_covered": 20_000, "scan_ms": 30.0}, "takes 30 ms"),
        ({"not_covered": 20_000, "scan_ms": 30.0, "search_ms": 40.0}, None),
        ({"not_covered": 20_000, "scan_ms": 30.0, "search_ms": None}, "takes 30 ms"),
        ({"kinds": [{"source": "image", "k": OLD_K}]}, "measured with images alone"),
        ({"kinds": [{"source": "image", "k": 40}]}, None),
        ({"kind": None, "rows": 0, "not_covered": 50_000, "scan_ms": 70.0}, "it finds duplicates"),
        ({"kind": "flat", "rows": 50_000, "scan_ms": 70.0}, None),
        ({"kind": "flat", "rows": 50_000, "not_covered": 10, "scan_ms": 70.0}, "looked through for duplicates"),
        ({"kind": "flat", "rows": 1_000_000, "not_covered": 1, "scan_ms": 150.0}, "an index is worth it"),
        ({"count": 161_000, "removed": 39_000}, None),
        ({"count": 160_000, "removed": 40_000}, "20% of what is stored was removed"),
        ({"shards": 1_002}, None),
        ({"shards": 1_003}, "1,003 shards"),
        ({"regions": {"lacking": 0, "indices": [{"not_covered": 100_000}]}}, None),
        ({"regions": {"lacking": 3, "indices": []}}, "`clipsieve regions c`: 3 images were not looked through"),
        ({"regions": {"lacking": 0, "indices": [{"not_covered": 100_001}]}}, "so many regions now"),
        ({"kind": None, "read_only": True, "removed": 200_000, "shards": 9_999}, None),
    ],
)
def test_advice(changed: dict[str, object], said: str | None) -> None:
    found = costs.advice(made_info(**changed))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_a_collection_of_removed_items_alone(tmp_path: Path) -> None:
    append(tmp_path, 3)
    with open_collection(tmp_path) as photos:
        photos.remove([0, 1, 2])
        known = photos.info(timed=True)
    assert known["indices"][0]["scan_ms"] == 0
    assert any("100% of what is stored was removed" in sentence for sentence in known["advice"])
