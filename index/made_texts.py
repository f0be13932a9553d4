"""Texts such as people ask with, to measure an index with: from prompt templates and the collection's own words."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from clipsieve import shards
from clipsieve.index.templates import OPENAI
from clipsieve.manifest import Manifest

COMMON = """
    red blue green yellow orange purple pink brown black white grey cat dog horse bird fish cow sheep insect flower
    tree grass leaf forest mountain beach sea river lake sky cloud sun snow rain road street city house building
    bridge door window room kitchen table chair bed car bus truck train bicycle boat aeroplane man woman child baby
    face hand eye crowd shirt dress shoe hat bag book paper phone computer screen food fruit apple bread cake cup
    bottle plate ball game sport music toy sign text map flag light fire water stone wood metal glass circle square
    triangle line night old new big little round long two three many empty open running sitting standing with without
    under behind
""".split()  # noqa: SIM905
"""Everyday words: what people look for, where a collection brings no words of its own."""

OWN_WORDS = 500
"""Of the collection's own words, the most frequent ones."""

READ_SHARDS = 8
"""Shards whose metadata is read for words."""

LONGEST = 20
"""Letters of a word; what is longer is a name that nobody types."""

_WORD = re.compile(r"[^\W\d_]{3,}")


def own_words(folder: Path, manifest: Manifest) -> list[str]:
    """The most frequent words of captions, of other texts in the metadata and of keys, most frequent first."""
    counted: Counter[str] = Counter()
    parts = [s for s in manifest.shards if s.rows and "metadata" in s.files]
    for shard in parts[:: max(1, len(parts) // READ_SHARDS)][:READ_SHARDS]:
        table = shards.read_metadata(folder, shard).slice(0, 10_000)
        for name, column in zip(table.column_names, table.columns, strict=True):
            if pa.types.is_string(column.type) and name not in ("content_hash", "image_path", "url"):
                counted.update(_words(column.to_pylist()))
    return [word for word, _ in counted.most_common(OWN_WORDS)]


def make_texts(words: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Different texts, at most `count`: words alone, in a prompt template, with a word before, and several in a row."""
    rng = np.random.default_rng(seed)

    made: dict[str, None] = {}
    for number in range(4 * count):
        if len(made) == count:
            break
        form = number % 4  # a word, in a template, two in a template, several
        length = (1, 1, 2, int(rng.integers(2, 7)))[form]
        text = " ".join(words[i] for i in rng.integers(0, len(words), length))
        template = OPENAI[rng.integers(0, len(OPENAI))].removesuffix(".")
        made.setdefault(template.format(text) if form in (1, 2) else text)
    return list(made)


def vocabulary(own: Sequence[str]) -> list[str]:
    """The words that texts are made of: the collection's own, the templates' and everyday ones, each once."""
    return list(dict.fromkeys([*own, *_words(OPENAI), *COMMON]))


def _words(texts: Iterable[str | None]) -> list[str]:
    return [word for text in texts if text for word in _WORD.findall(text.lower()) if len(word) <= LONGEST]
