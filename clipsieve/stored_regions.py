"""The regions of a shard's items as they lie in the folder: what `shards.py` is for items.

    region_emb/region_emb_000000.npy      float16 (regions, r), unit rows in the detector's space
    regions/regions_000000.parquet        id int64, x0, y0, x1, y1, objectness, shift, scale float32; a row per region
    crop_emb/crop_emb_000000.npy          float16 (regions, d), each box as the collection's own model embeds it

Row k of each is one region; rows come by ascending id, those of an item by falling objectness. A shard without these
files was not looked at. The Parquet file's metadata has, under `unseen`, the ids of items that could not be.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve import shards
from clipsieve.checked_tables import FAULTS, read_parquet
from clipsieve.errors import CollectionDamaged, InputError
from clipsieve.manifest import Detection, Shard
from clipsieve.types import Float32, Int64, Regions
from clipsieve.whole import why_absent

ROLES = ("region_emb", "regions", "crop_emb")
"""A shard has the first two together or not at all, and the third only beside them."""

BOX = ("x0", "y0", "x1", "y1")
NUMBERS = ("objectness", "shift", "scale")

GROUP_ROWS = 4096
"""Regions in a row group of regions/: what has to be read to show those of one image."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredRegions:
    """The regions of n items, in the order and the precision in which they are stored.

    items    n
    item     int64 (m,), ascending: which of the items, counted from 0
    vectors  float16 (m, r), unit rows
    boxes    float32 (m, 4), as in Regions
    numbers  float32 (m, 3): objectness, shift, scale, as in Regions
    crops    float16 (m, d), unit rows; None where they are not embedded
    unseen   int64 (u,), ascending: items that could not be looked at
    """

    items: int
    item: Int64
    vectors: npt.NDArray[Any]
    boxes: Float32
    numbers: Float32
    crops: npt.NDArray[Any] | None
    unseen: Int64

    def __post_init__(self) -> None:
        m = len(self.item)
        lengths = {len(self.vectors), len(self.boxes), len(self.numbers), m if self.crops is None else len(self.crops)}
        if lengths != {m}:
            raise InputError(f"StoredRegions got {m} regions and columns of lengths {sorted(lengths)}; they agree.")
        for name, values in (("item", self.item), ("unseen", self.unseen)):
            if len(values) and not (values[0] >= 0 and (np.diff(values) >= 0).all() and values[-1] < self.items):
                raise InputError(f"StoredRegions.{name} must ascend from 0 and stay below {self.items}.")

    @property
    def bytes(self) -> int:
        """What the arrays take in memory."""
        return sum(a.nbytes for a in (self.item, self.vectors, self.boxes, self.numbers, self.crops) if a is not None)

    def take(self, kept: Int64) -> "StoredRegions":
        """Those of some of the items, ascending, which are counted anew."""
        rows = np.isin(self.item, kept)
        return StoredRegions(
            len(kept),
            np.searchsorted(kept, self.item[rows]),
            self.vectors[rows],
            self.boxes[rows],
            self.numbers[rows],
            None if self.crops is None else self.crops[rows],
            np.searchsorted(kept, self.unseen[np.isin(self.unseen, kept)]),
        )


def store(regions: Regions, items: int, crops: Float32 | None = None, unseen: Sequence[int] = ()) -> StoredRegions:
    """What a detector found in n items, as it is stored; `regions.item` counts them from 0."""
    numbers = np.stack([getattr(regions, name) for name in NUMBERS], axis=1)
    return StoredRegions(
        items,
        regions.item,
        regions.vectors.astype(np.float16),
        regions.boxes,
        numbers,
        None if crops is None else crops.astype(np.float16),
        np.array(unseen, dtype=np.int64),
    )


def join(parts: Sequence[StoredRegions]) -> StoredRegions:
    """The items of the parts, one after another."""
    starts = np.cumsum([0, *(part.items for part in parts)])
    crops = [part.crops for part in parts]
    return StoredRegions(
        int(starts[-1]),
        np.concatenate([part.item + start for part, start in zip(parts, starts[:-1], strict=True)]),
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.numbers for part in parts]),
        None if any(c is None for c in crops) else np.concatenate([c for c in crops if c is not None]),
        np.concatenate([part.unseen + start for part, start in zip(parts, starts[:-1], strict=True)]),
    )


def require_stored(regions: StoredRegions, items: int, detection: Detection | None, dim: int) -> None:
    """InputError unless these are regions of so many items as the collection's detector finds them.

    dim  of the collection's own model
    """
    if detection is None:
        raise InputError("The collection has no detector yet, so that nothing would say what its regions are.")
    if regions.items != items:
        raise InputError(f"Regions of {regions.items} items were passed for {items}.")
    if regions.vectors.shape[1] != detection.dim:
        raise InputError(
            f"The regions' vectors have {regions.vectors.shape[1]} dimensions, the collection's {detection.dim}."
        )
    if detection.crops and (regions.crops is None or regions.crops.shape[1] != dim):
        raise InputError(f"The collection keeps vectors of crops, {dim} dimensions each; pass them with the regions.")


def region_table(ids: Int64, regions: StoredRegions) -> pa.Table:
    """What lies in regions/, for items of these ids."""
    columns = {"id": pa.array(ids[regions.item])}
    columns |= {name: pa.array(regions.boxes[:, i]) for i, name in enumerate(BOX)}
    columns |= {name: pa.array(regions.numbers[:, i]) for i, name in enumerate(NUMBERS)}
    return pa.table(columns).replace_schema_metadata({"unseen": json.dumps(ids[regions.unseen].tolist())})


def write_table(file: BinaryIO, table: pa.Table) -> None:
    """Write a table of regions/. Its numbers are all different: to pack them would gain little and cost each reader."""
    pq.write_table(table, file, compression="none", use_dictionary=["id"], row_group_size=GROUP_ROWS)


def read_table(folder: str | os.PathLike[str], shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
    """The shard's regions/, all columns or some, in row order.

    NotFound, CollectionDamaged or CollectionChanged as in `shards.py`.
    """
    path = shards.path_of(folder, shard, "regions")
    try:
        return read_parquet(path, columns, trusted=bool(shard.files["regions"].sha256))
    except FileNotFoundError:
        raise why_absent(folder, shard.files["regions"]) from None
    except FAULTS as error:
        raise CollectionDamaged(f"{path} is not readable Parquet ({error}); run `clipsieve check`.") from error


def read_columns(folder: str | os.PathLike[str], shard: Shard, names: Sequence[str]) -> Float32:
    """Some of the numbers of a shard's regions, float32 (m, len(names)). The errors are those of `read_table`."""
    table = read_table(folder, shard, names)
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def unseen_ids(schema: pa.Schema) -> Int64:
    """The ids of items that could not be looked at, int64 (u,), from the schema of a table of regions/."""
    return np.array(json.loads((schema.metadata or {}).get(b"unseen", b"[]")), dtype=np.int64)


def read_regions(folder: str | os.PathLike[str], shard: Shard) -> StoredRegions:
    """The regions of all items of a shard that has them; vectors are mapped. The errors are those of `read_table`."""
    table, ids = read_table(folder, shard), shards.read_ids(folder, shard)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return StoredRegions(
        shard.rows,
        np.searchsorted(ids, columns["id"]),
        shards.open_array(folder, shard, "region_emb"),
        np.stack([columns[name] for name in BOX], axis=1),
        np.stack([columns[name] for name in NUMBERS], axis=1),
        shards.open_array(folder, shard, "crop_emb") if "crop_emb" in shard.files else None,
        np.searchsorted(ids, unseen_ids(table.schema)),
    )
