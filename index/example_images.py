"""The images that are examples, whether items, parts of items or uploads: as vectors, and as they were encoded."""

from collections.abc import Sequence

from clipsieve.index.examples import Embedded, Embedding, Templates, unit_rows
from clipsieve.index.opened import Opened
from clipsieve.kept import Kept
from clipsieve.protocols import TextEmbedder
from clipsieve.types import ClassVectors, Example, Float32, MetaClass, content_hash

UPLOAD_BYTES = 64 * 2**20
"""Of uploaded images that are kept as they came: they may be cut, or embedded by another model."""


class Examples:
    """Examples of questions to a collection, whichever commit of it is asked. Safe in many threads."""

    def __init__(self, embedding: Embedding | Embedded) -> None:
        self.embedding = embedding
        self._uploads: Kept[bytes] = Kept(UPLOAD_BYTES, len)

    def classes(
        self, opened: Opened, classes: Sequence[MetaClass], templates: Templates, tower: TextEmbedder | None = None
    ) -> tuple[ClassVectors, ...]:
        """Classes as vectors; see `Collection.embed`."""
        return self.embedding.classes(classes, templates, lambda example: self._image_vector(opened, example), tower)

    def add(self, data: bytes) -> str:
        """Embed an uploaded image, and keep it; its content hash."""
        name = self.embedding.upload(data)
        self._uploads.put(name, data)
        return name

    def keep(self, data: bytes) -> str:
        """Keep an uploaded image; its content hash."""
        name = content_hash(data)
        self._uploads.put(name, data)
        return name

    def image_bytes(self, opened: Opened, image: int | str) -> bytes:
        """The encoded image. NotFound where it is not there, or no longer."""
        kept = self._uploads.find(image) if isinstance(image, str) else None
        return opened.image_bytes(opened.id_of(image), thumbnails=False) if kept is None else kept

    def _image_vector(self, opened: Opened, example: Example) -> Float32:
        assert example.image is not None
        if example.box is None:
            vector: Float32 = unit_rows(opened.vectors([opened.id_of(example.image)]))[0]
            return vector
        if isinstance(example.image, int) and opened.manifest.detection is not None:
            stored = opened.regions.crop(example.image, example.box)
            if stored is not None:
                return stored
        return self.embedding.part(example, self.image_bytes(opened, example.image))
