"""A folder of clip-retrieval as what vectors are imported from: embeddings, or an index that gives them back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clipsieve import shards
from clipsieve.errors import CollectionMissing, InputError
from clipsieve.importing import Block
from clipsieve.index import bare, cache
from clipsieve.index.stored import rows_of, shards_of


class PeerSource:
    """See VectorSource. Captions without a vector of their own are kept as texts."""

    def __init__(self, folder: Path) -> None:
        try:
            self._manifest = shards.open_manifest(folder)
        except CollectionMissing:
            if not bare.is_bare(folder):
                raise
            self._manifest = bare.make_manifest(folder)
        if not self._manifest.read_only:
            raise InputError(f"{folder} is a collection of clipsieve's already; there is nothing to import.")
        self.name = f"clip-retrieval:{folder.resolve()}"
        self.total: int | None = self._manifest.rows
        self._folder = folder
        self._rows, self._parts = {}, {}
        if bare.is_manifest(self._manifest):
            for entry in self._manifest.indices:
                self._parts[entry.name] = bare.open_parts(folder, entry.name)
                self._rows[entry.name] = bare.make_rows(folder, self._parts[entry.name])
        else:
            for name in ("image", "text"):
                if parts := shards_of(self._manifest, name):
                    dim = self._manifest.dim
                    self._rows[name] = rows_of(folder, dim, parts, name, masked=False)
        if "image" not in self._rows:
            raise InputError(f"{folder} holds vectors of captions alone; import needs those of the images.")

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """See VectorSource."""
        for shard in self._manifest.shards:
            if not shard.rows or shard.last_id < start:
                continue
            table = cache.read_table(self._folder, shard, None)
            for first in range(max(start, shard.first_id), shard.last_id + 1, size):
                ids = np.arange(first, min(first + size, shard.last_id + 1))
                part = table.slice(first - shard.first_id, len(ids))
                columns = {c: part[c].to_pylist() for c in cache.named(part) if c not in ("id", "has_caption")}
                texts = self._rows["text"].take(ids) if "text" in self._rows else None
                yield Block(self._rows["image"].take(ids), columns["key"], columns, texts)
