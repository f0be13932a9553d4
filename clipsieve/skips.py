"""What was skipped on the way into a collection and still is, and the commonest reasons."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from clipsieve.manifest import Manifest
from clipsieve.shards import read_metadata, read_skipped
from clipsieve.types import Skipped

_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\([^()]*\)|\d[\d,.]*|https?://\S+")


def current_skips(folder: Path, manifest: Manifest) -> dict[int, list[Skipped]]:
    """Number of each shard -> what was skipped while it was made and has not come in since, in order.

    What was tried again with other limits counts as its last outcome says. What is not tried again is always listed.
    """
    found: dict[int, list[Skipped]] = {}
    open_keys: dict[str, int] = {}  # of what may be tried again -> number of the shard that lists it
    for shard in sorted(manifest.shards, key=lambda s: s.number):
        skipped = read_skipped(folder, shard)
        if open_keys and shard.rows:
            keys = read_metadata(folder, shard, ["key"])["key"].to_pylist()
            _drop(found, open_keys, keys)
        _drop(found, open_keys, [s.key for s in skipped if s.limits is not None])
        found[shard.number] = skipped
        open_keys |= {s.key: shard.number for s in skipped if s.limits is not None}
    return found


def _drop(found: dict[int, list[Skipped]], open_keys: dict[str, int], keys: Iterable[str]) -> None:
    """Take out what was skipped under these keys and could be tried again."""
    gone: dict[int, set[str]] = {}
    for key in keys:
        if key in open_keys:
            gone.setdefault(open_keys.pop(key), set()).add(key)
    for number, some in gone.items():
        found[number] = [s for s in found[number] if s.limits is None or s.key not in some]


def commonest(reasons: Mapping[str, int], most: int = 3) -> list[tuple[str, int]]:
    """The commonest reasons, and how often each, those first; sentences that differ in names and figures are one."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for reason, count in reasons.items():
        kind = _VARIABLE.sub("", reason)
        counts[kind] += count
        examples.setdefault(kind, reason)
    return [(examples[kind], count) for kind, count in counts.most_common(most)]
