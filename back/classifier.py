"""Images scored by deployed classifiers. Nothing of HTTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipsieve.back.deployed import Deployed
from clipsieve.back.pictures import refuse_bombs
from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.index.directai import raw_scores, softmax
from clipsieve.index.examples import Remembered, embed_classes, embed_texts, texts_of
from clipsieve.index.rule import Compiled, compile_classes, maxima, settle
from clipsieve.index.templates import expand
from clipsieve.kept import Kept
from clipsieve.protocols import ImageEmbedder, TextEmbedder
from clipsieve.reading import notes_of
from clipsieve.types import Example, Float32, content_hash

MOST_BYTES = 256 * 2**20
"""Of the classes' vectors that are kept."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a classifier says of an image.

    raw     class -> DirectAI's raw score, in 0..1
    scores  class -> its share; they sum to 1
    pred    the class of the greatest raw score
    """

    scores: dict[str, float]
    pred: str
    raw: dict[str, float]


class Classifier:
    """Scores images with one model. Texts and images are embedded once; safe to use from several threads at once.

    embedder  gives the model, an ImageEmbedder and TextEmbedder, when the first question needs it
    """

    def __init__(self, embedder: Callable[[], Any], most_bytes: int = MOST_BYTES) -> None:
        self._embedder = embedder
        self._texts, self._images = Remembered(), Remembered()
        self._compiled: Kept[Compiled] = Kept(most_bytes, lambda compiled: compiled.units.nbytes)

    def embed_image(self, data: bytes) -> Float32:
        """The vector of an encoded image, float32 (d,), unit length. InputError if it cannot be opened."""
        name = content_hash(data)
        vector = self._images.find(name)
        if vector is None:
            refuse_bombs(data)
            vector = self._model().embed_images([data])[0]
            self._images.put(name, vector)
        return vector

    def score(self, deployed: Deployed, image: Float32) -> Scored:
        """The image, float32 (d,), by a classifier's configuration."""
        compiled = self._compile(deployed)
        raw = raw_scores(*maxima(compiled, settle(compiled, image[np.newaxis])))[:, 0]  # (c,)
        scores = softmax(raw[:, np.newaxis])[:, 0]
        names = compiled.names
        return Scored(
            dict(zip(names, scores.tolist(), strict=True)),
            names[int(raw.argmax())],
            dict(zip(names, raw.tolist(), strict=True)),
        )

    def notes(self, deployed: Deployed) -> tuple[str, ...]:
        """What is to be told of the texts of a configuration; see `reading.notes_of`. ModelUnavailable without one."""
        return notes_of(texts_of(deployed.classes), expand(deployed.templates), self._model())

    def _compile(self, deployed: Deployed) -> Compiled:
        """The classes as vectors. The key is all that decides them: what is deployed anew under an id is made anew."""
        return self._compiled.get((deployed.classes, deployed.templates), lambda: self._embed(deployed))

    def _embed(self, deployed: Deployed) -> Compiled:
        embedder = self._model()

        def texts(wanted: Sequence[str]) -> Float32:
            return embed_texts(wanted, deployed.templates, embedder, self._texts)

        def images(wanted: Sequence[Example]) -> Float32:
            raise InputError("A deployed classifier has texts only.")

        return compile_classes(embed_classes(deployed.classes, embedder.model, texts, images))

    def _model(self) -> Any:
        """The model. ModelUnavailable where there is none that embeds images and texts, whatever the reason."""
        try:
            embedder = self._embedder()
        except InputError as error:  # a wrong name is the service's fault, not the request's
            raise ModelUnavailable(str(error)) from error
        if not isinstance(embedder, ImageEmbedder) or not isinstance(embedder, TextEmbedder):
            raise ModelUnavailable(
                f"The model {embedder.model.name!r} does not embed both images and texts; serve another one by --model."
            )
        return embedder
