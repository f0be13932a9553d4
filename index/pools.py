"""The examples that an index is measured with: its own rows held out, those of the other modality, made texts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from clipsieve.errors import ClipsieveError
from clipsieve.index.asked_kinds import Pool, halves
from clipsieve.index.kinds import Source
from clipsieve.index.made_texts import make_texts, own_words, vocabulary
from clipsieve.index.rows import Rows
from clipsieve.index.stored import Modality, rows_of, shards_of
from clipsieve.manifest import Manifest
from clipsieve.types import Float32, Int64

DRAWN = 1_200
"""Rows that examples are, half to tune with."""

TEXTS = 256
"""Made texts in each half."""

STORED, MADE = 0, 1
"""Sorts of examples: rows of the collection, and texts made for the purpose."""

EmbedTexts = Callable[[Sequence[str]], Float32]
"""n texts -> float32 (n, d), unit rows, by the collection's model."""


def make_pools(
    folder: Path, manifest: Manifest, modality: Modality, rows: Rows, embed: EmbedTexts | None
) -> tuple[dict[Source, tuple[Pool, Pool]], str]:
    """By source the examples to tune with and those to measure with; and why there are no texts, where there are none.

    rows   those that the index holds
    embed  None where nothing embeds texts; what it raises is the reason
    """
    other: Modality = "text" if modality == "image" else "image"
    stored = {modality: _stored(rows, seed=2)}
    parts = shards_of(manifest, other)
    if parts:
        stored[other] = _stored(rows_of(folder, manifest.dim, parts, other), seed=3)
    rng = np.random.default_rng(0)
    pools: dict[Source, tuple[Pool, Pool]] = {
        source: halves(pool, rng) for source, pool in stored.items() if len(pool.vectors) > 3
    }
    made, why = _made(folder, manifest, embed)
    if made is not None:
        own = pools.get("text")
        pools["text"] = made if own is None else (_joined(own[0], made[0]), _joined(own[1], made[1]))
    return pools, "" if "text" in pools else why


def _stored(rows: Rows, seed: int) -> Pool:
    ids = rows.sample(DRAWN, seed)
    return Pool(rows.questions(ids), ids, np.full(len(ids), STORED, np.int64))


def _made(folder: Path, manifest: Manifest, embed: EmbedTexts | None) -> tuple[tuple[Pool, Pool] | None, str]:
    """Texts of two halves that share no word."""
    if embed is None:
        return None, "nothing that embeds texts was given"
    words = np.random.default_rng(4).permutation(vocabulary(own_words(folder, manifest))).tolist()
    try:
        tuning, stating = (_texts(embed, words[half::2], half) for half in (0, 1))
    except (ClipsieveError, ImportError, OSError) as error:
        return None, str(error)
    return (tuning, stating), ""


def _texts(embed: EmbedTexts, words: Sequence[str], seed: int) -> Pool:
    vectors = embed(make_texts(words, TEXTS, seed))
    nothing: Int64 = np.full(len(vectors), -1, np.int64)
    return Pool(vectors, nothing, np.full(len(vectors), MADE, np.int64))


def _joined(one: Pool, other: Pool) -> Pool:
    pairs: Mapping[str, Sequence[np.ndarray]] = {
        name: (getattr(one, name), getattr(other, name)) for name in ("vectors", "selves", "sorts")
    }
    return Pool(**{name: np.concatenate(pair) for name, pair in pairs.items()})
