"""What a room expects of an object handed to it. Anything with these members will do; nothing need be inherited.

Every implementation passes the conformance class of its protocol in `tests/contracts/`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from clipsieve.reading import Reading
from clipsieve.types import Box, Decoding, Float32, Int64, ModelId, Neighbors, Regions


@runtime_checkable
class ImageEmbedder(Protocol):
    """Encoded images to unit vectors."""

    @property
    def model(self) -> ModelId:
        """The space the vectors lie in."""

    @property
    def dim(self) -> int:
        """d, the number of dimensions."""

    def embed_images(self, images: Sequence[bytes]) -> Float32:
        """n encoded files -> float32 (n, d), C-contiguous, unit rows, in the order given; n may be 0.

        A row does not depend on the rest of the batch beyond float32 rounding. InputError names the position of the
        first image that cannot be decoded; nothing is returned for the others then.
        """


@runtime_checkable
class DecodesImages(Protocol):
    """What an ImageEmbedder also is, if it decodes with clipsieve and so can do it in either way."""

    def decoding_as(self, decoding: Decoding) -> ImageEmbedder:
        """The same model, given images decoded so."""


@runtime_checkable
class TextEmbedder(Protocol):
    """Texts to unit vectors. A CLIP is this and an ImageEmbedder, with one model and dim for both."""

    @property
    def model(self) -> ModelId:
        """The space the vectors lie in: that of the images they may be compared with."""

    @property
    def dim(self) -> int:
        """d, the number of dimensions."""

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """n texts -> float32 (n, d), C-contiguous, unit rows, in the order given; n may be 0.

        A text beyond the model's context is cut. The empty string is a text like any other. Templates are the
        caller's business.
        """


@runtime_checkable
class ReadsTexts(Protocol):
    """What a TextEmbedder or Detector also is, if it can say what its model reads of texts. It runs no model."""

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        """What is read of each of n texts."""

    def split_text(self, text: str) -> list[str]:
        """A text in parts that are read whole, cut between words where that is possible."""


@runtime_checkable
class Detector(Protocol):
    """Encoded images to regions, and texts into the regions' space."""

    @property
    def model(self) -> ModelId:
        """The space of the region vectors and of `embed_texts`."""

    @property
    def dim(self) -> int:
        """d, the number of dimensions."""

    def detect(self, images: Sequence[bytes]) -> Regions:
        """n encoded files -> the best regions of each, by falling objectness within an image.

        `Regions.item` is the image's position in `images`, ascending. InputError names the position of an image that
        cannot be decoded.
        """

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """n texts -> float32 (n, d), C-contiguous, unit rows."""

    def embed_example(self, image: bytes, box: Box | None = None) -> Float32:
        """What a picture shows, as a vector to be asked with like a text's: float32 (d,), of length 1.

        box  the part of it that is meant; None for what is likeliest an object in it

        InputError if it cannot be decoded, for a box that is none, or if nothing is found there.
        """


@runtime_checkable
class VectorIndex(Protocol):
    """Rows by inner product. Unit rows make that the cosine; rows of other lengths are allowed (regions need them).

    Safe to search from several threads at once: a search leaves no setting changed behind it.
    """

    @property
    def count(self) -> int:
        """How many rows it holds."""

    @property
    def dim(self) -> int:
        """d, the number of dimensions of a row and of a query."""

    @property
    def exhaustive(self) -> bool:
        """True if every row is compared with every query, so that no neighbour can be missed."""

    @property
    def score_error(self) -> float:
        """Bound on |score returned - inner product with the stored vector|; 0.0 unless rows are quantised."""

    def search(self, queries: Float32, k: int, *, only: Int64 | None = None, without: Int64 | None = None) -> Neighbors:
        """The k best rows for each query.

        queries        float32 (m, d); m may be 0
        k              at least 1; may pass `count`
        only, without  int64 (r,), ids that alone may be found, ids that must not be; applied inside the search, so
                       that k rows still come back where there are k
        returns        ids and scores (m, k); equal scores of an exhaustive index come by ascending id

        InputError for queries of another dimension or dtype, or k < 1.
        """

    def range_search(
        self, queries: Float32, score: float, *, only: Int64 | None = None, without: Int64 | None = None
    ) -> list[Neighbors]:
        """Every row whose inner product with the query is at least `score`.

        Returns m Neighbors, one per query, each of shape (1, r) with its own r and no -1.
        """


@runtime_checkable
class MetadataStore(Protocol):
    """What is known of items beside their vectors."""

    def get(self, ids: Sequence[int]) -> list[Mapping[str, object]]:
        """The rows of these ids, in their order, each with at least `id` and `key`. NotFound names an unknown id."""

    def select(self, where: str) -> Int64:
        """The ids of rows for which the expression holds: int64 (r,), ascending.

        InputError if the expression cannot be read or names no such column; it says which columns there are.
        """
