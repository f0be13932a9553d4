"""The examples of classes as vectors: texts through the embedder, items by their rows, uploads by content hash."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipsieve.errors import InputError, ModelMismatch
from clipsieve.index.templates import expand
from clipsieve.kept import Kept
from clipsieve.manifest import Manifest, Probe
from clipsieve.protocols import DecodesImages, ImageEmbedder, TextEmbedder
from clipsieve.reading import LongText, check_long_text, notes_of, read_with, require_read
from clipsieve.types import Box, ClassVectors, Example, Float32, MetaClass, ModelId, TemplateSet, content_hash

Templates = tuple[str, ...] | TemplateSet | None

BATCH = 256
REMEMBERED = 4096
"""Texts and uploads of which the vectors are kept: at most some tens of MB."""


class Remembered(Kept[Float32]):
    """Vectors, float32 (d,), under the text or example that each is of."""

    def __init__(self, most: int = REMEMBERED) -> None:
        super().__init__(most, lambda _: 1)


class Embedding:
    """The embedder of a collection's questions, found when first needed, and what it has embedded.

    name   of the model, where the manifest does not say; overrides it for `load`
    load   makes an embedder of a name
    probe  what an embedder makes of the fixed probe images and texts; compared with the manifest's before it is used
    cut    a part of an encoded image, encoded
    long_text  what is done with texts that are longer than the model reads
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        name: str | None = None,
        load: Callable[[str], Any] | None = None,
        probe: Callable[[Any], Probe] | None = None,
        cut: Callable[[bytes, Box], bytes] | None = None,
        long_text: LongText = "cut",
    ) -> None:
        check_long_text(long_text)
        self._long_text: LongText = long_text
        self._folder, self._manifest = folder, manifest
        self._name, self._load, self._probe, self._cut = name, load, probe, cut
        self._embedder: Any = None
        self._texts, self._uploads = Remembered(), Remembered()
        self._towers: dict[ModelId, Remembered] = {}
        self._loading = threading.Lock()

    @property
    def model(self) -> ModelId | None:
        """What made the vectors; where that is not known, what embeds questions, once there is something."""
        if self._manifest.model is not None or self._embedder is None:
            return self._manifest.model
        made_with: ModelId = self._embedder.model
        return made_with

    def use(self, embedder: Any) -> None:
        """Embed with this from now on. ModelMismatch unless it is what made the vectors."""
        if not isinstance(embedder, ImageEmbedder | TextEmbedder):
            raise InputError(f"A {type(embedder).__name__} embeds neither texts nor images; give an embedder.")
        if self._manifest.model is not None:
            self._manifest.model.require(embedder.model, "The question")
        if embedder.dim != self._manifest.dim:
            raise ModelMismatch(
                f"The embedder {embedder.model.name!r} makes {embedder.dim} dimensions and {self._folder} holds "
                f"{self._manifest.dim}; open it with the model that made it."
            )
        if self._probe is not None and self._manifest.probe is not None:
            self._manifest.probe.require(self._probe(embedder))
        self._embedder = embedder

    def classes(
        self,
        classes: Sequence[MetaClass],
        templates: Templates,
        image_vector: Callable[[Example], Float32],
        tower: TextEmbedder | None = None,
    ) -> tuple[ClassVectors, ...]:
        """The classes as vectors.

        image_vector  an image that was not uploaded -> float32 (d,), unit length
        tower         embeds the texts in place of the collection's own model, into the same space
        """
        if tower is None and any(e.text is not None for c in classes for e in c.positive + c.negative):
            self._need_texts()  # its model's name is asked for next
        model = self.model or ModelId(self._name or "not known", "", "")

        def texts(wanted: Sequence[str]) -> Float32:
            if tower is None:
                return embed_texts(wanted, templates, self._need_texts(), self._texts, self._long_text)
            memory = self._towers.setdefault(tower.model, Remembered())
            return embed_texts(wanted, templates, tower, memory, self._long_text)

        def images(wanted: Sequence[Example]) -> Float32:
            known = [self._uploads.find((e.image, e.box)) for e in wanted]
            return np.stack([image_vector(e) if v is None else v for e, v in zip(wanted, known, strict=True)])

        return embed_classes(classes, model, texts, images)

    def notes(
        self, classes: Sequence[MetaClass], templates: Templates, tower: TextEmbedder | None = None
    ) -> tuple[str, ...]:
        """What is to be told of the classes' texts, see `reading.notes_of`; else as `classes`."""
        texts = texts_of(classes)
        if not texts:
            return ()
        return notes_of(texts, expand(templates), tower or self._need_texts(), self._long_text)

    def upload(self, data: bytes) -> str:
        """Embed an image; its content hash, under which it is remembered."""
        name = content_hash(data)
        if self._uploads.find((name, None)) is None:
            self._uploads.put((name, None), self._need_images(whole=True).embed_images([data])[0])
        return name

    def part(self, example: Example, data: bytes) -> Float32:
        """The vector of a part of an image, which is remembered: float32 (d,). InputError if it cannot be decoded."""
        if self._cut is None or example.box is None:
            raise InputError("A part of an image cannot be cut out here; open the collection with clipsieve.open.")
        vector: Float32 = self._need_images().embed_images([self._cut(data, example.box)])[0]
        self._uploads.put((example.image, example.box), vector)
        return vector

    def _need_images(self, *, whole: bool = False) -> ImageEmbedder:
        """The embedder of images; of whole ones, decoded as the collection's were. Parts were cut from decoded ones."""
        embedder = self._need("An image")
        if whole and isinstance(embedder, DecodesImages):
            return embedder.decoding_as(self._manifest.decoding)
        if not isinstance(embedder, ImageEmbedder):
            raise InputError("The embedder given takes no images; give one that does, or ask with texts or items.")
        return embedder

    def _need_texts(self) -> TextEmbedder:
        embedder = self._need("A text")
        if not isinstance(embedder, TextEmbedder):
            raise InputError(
                f"The model {embedder.model.name!r} embeds no texts; ask with images, or with a collection of a model "
                "that has a text tower."
            )
        return embedder

    def _need(self, what: str) -> Any:
        with self._loading:
            if self._embedder is None:
                name = self._name or (None if self._manifest.model is None else self._manifest.model.name)
                if name is None:
                    raise InputError(
                        f"{what} must be embedded, and {self._folder} does not say by which model; give --model."
                    )
                if self._load is None:
                    raise InputError(
                        f"{what} must be embedded by {name!r}, and no embedder was given; open the collection with one."
                    )
                self.use(self._load(name))
            return self._embedder


class Embedded:
    """Classes that were embedded before, in place of an Embedding: it needs no model, and nothing new can be asked."""

    def __init__(self, vectors: Sequence[ClassVectors], model: ModelId | None) -> None:
        self.model = model
        self._vectors = {v.name: v for v in vectors}
        for v in vectors:
            if model is not None:
                model.require(v.model, f"Class {v.name!r}")

    def classes(
        self,
        classes: Sequence[MetaClass],
        templates: Templates,
        image_vector: Callable[[Example], Float32],
        tower: TextEmbedder | None = None,
    ) -> tuple[ClassVectors, ...]:
        """Those of these names. InputError for another one."""
        for c in classes:
            if c.name not in self._vectors:
                raise InputError(f"The class {c.name!r} was not embedded before; ask the collection itself.")
        return tuple(self._vectors[c.name] for c in classes)

    def notes(
        self, classes: Sequence[MetaClass], templates: Templates, tower: TextEmbedder | None = None
    ) -> tuple[str, ...]:
        """Nothing: whoever embedded the classes has told it."""
        return ()

    def use(self, embedder: object) -> None:
        """InputError: there is nothing to embed."""
        raise InputError("What was embedded before takes no embedder; give it to the collection itself.")

    def upload(self, data: bytes) -> str:
        """InputError: there is nothing to embed with."""
        raise InputError("What was embedded before takes no further image; give it to the collection itself.")

    def part(self, example: Example, data: bytes) -> Float32:
        """InputError: there is nothing to embed with."""
        raise InputError("What was embedded before takes no further image; give it to the collection itself.")


def embed_classes(
    classes: Sequence[MetaClass],
    model: ModelId,
    texts: Callable[[Sequence[str]], Float32],
    images: Callable[[Sequence[Example]], Float32],
) -> tuple[ClassVectors, ...]:
    """The classes with a vector for each example, in order.

    texts   n texts -> float32 (n, d), unit rows; each text is passed once, all together
    images  n examples that are images -> float32 (n, d), unit rows, likewise
    """
    examples = [e for c in classes for e in c.positive + c.negative]
    wanted_texts = texts_of(classes)
    wanted_images = list(dict.fromkeys(e for e in examples if e.image is not None))
    known: dict[Example, Float32] = {}
    if wanted_texts:
        known |= {Example(text=t): v for t, v in zip(wanted_texts, texts(wanted_texts), strict=True)}
    if wanted_images:
        known |= dict(zip(wanted_images, images(wanted_images), strict=True))
    dim = len(next(iter(known.values())))

    def rows(side: Sequence[Example]) -> Float32:
        return np.stack([known[e] for e in side]) if side else np.zeros((0, dim), np.float32)

    return tuple(ClassVectors(c.name, rows(c.positive), rows(c.negative), model) for c in classes)


def texts_of(classes: Sequence[MetaClass]) -> list[str]:
    """The texts among the examples of classes, in order, each once."""
    examples = [e for c in classes for e in c.positive + c.negative]
    return list(dict.fromkeys(e.text for e in examples if e.text is not None))


def embed_texts(
    texts: Sequence[str],
    templates: Templates,
    embedder: TextEmbedder,
    memory: Remembered,
    long_text: LongText = "cut",
) -> Float32:
    """n texts -> float32 (n, d): each template's vector normalised, averaged, normalised again.

    embedder   for texts that are not remembered
    long_text  what is done with a text that, in its template, is longer than the model reads

    InputError for a text of which nothing reaches the model.
    """
    prompts = expand(templates)
    new = [t for t in texts if memory.find((t, prompts)) is None]
    require_read(embedder, new)
    embed = read_with(embedder, long_text)
    found: dict[str, Float32] = {}
    step = max(1, BATCH // len(prompts))
    for start in range(0, len(new), step):
        chunk = new[start : start + step]
        vectors = embed([prompt.replace("{}", text) for text in chunk for prompt in prompts])
        means = unit_rows(vectors).reshape(len(chunk), len(prompts), -1).mean(axis=1)  # (c, t, d) -> (c, d)
        for text, vector in zip(chunk, unit_rows(means), strict=True):
            found[text] = vector
            memory.put((text, prompts), vector)
    rows = []
    for text in texts:
        vector = found.get(text)
        if vector is None:
            vector = memory.find((text, prompts))
        # One that other threads' questions drove out meanwhile is embedded again.
        rows.append(embed_texts([text], templates, embedder, Remembered(), long_text)[0] if vector is None else vector)
    return np.stack(rows)


def unit_rows(vectors: Float32) -> Float32:
    """The rows scaled to length 1: rows stored as float16 are off by a little. A row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(length, 1e-12), dtype=np.float32)
