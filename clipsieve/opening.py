"""`clipsieve.open`: a collection and the model that made it, which is loaded when a question first needs it."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from clipsieve.image_memory import ImageMemory

if TYPE_CHECKING:
    from clipsieve.index.collection import Collection
    from clipsieve.reading import LongText


def load_model(
    name: str, *, device: str = "auto", precision: str = "auto", image_memory: ImageMemory | None = None
) -> Any:
    """The embedder of that name; see `clipsieve.inference.embedder.load_embedder`."""
    from clipsieve.inference.embedder import load_embedder  # torch comes with it

    return load_embedder(name, device=device, precision=precision, image_memory=image_memory)


def load_text_model(name: str, *, device: str = "auto", precision: str = "auto") -> Any:
    """The embedder of texts of that name; see `clipsieve.inference.embedder.load_text_embedder`."""
    from clipsieve.inference.embedder import load_text_embedder

    return load_text_embedder(name, device=device, precision=precision)


def load_detector(
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    regions: int | None = None,
    image_memory: ImageMemory | None = None,
) -> Any:
    """The detector of that name; see `clipsieve.inference.detector.open_detector`."""
    from clipsieve.inference.detector import open_detector

    return open_detector(name, device=device, precision=precision, regions=regions, image_memory=image_memory)


def open_collection(
    folder: str | os.PathLike[str],
    *,
    model: str | None = None,
    embedder: Any = None,
    device: str = "auto",
    state: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    load: Callable[..., Any] = load_model,
    load_detector: Callable[..., Any] | None = load_detector,
    filter_s: float = 30.0,
    long_text: "LongText" = "cut",
    image_memory: ImageMemory | None = None,
    images: "Sequence[str | os.PathLike[str]]" = (),
) -> "Collection":
    """Open a collection folder to ask it; a context manager.

    model     what to embed questions with, where the folder does not say (clip-retrieval's do not)
    embedder  an embedder of your own, in place of the named model
    device    where the model runs: "auto", "cpu", "cuda", "cuda:1", "mps"
    state     folder for what is derived, where the collection's own cannot be written
    progress  called with (rows read, rows to read) while the metadata cache is made
    load      (name, device=...) -> the embedder of a name
    load_detector  likewise a detector, where boxes are asked for; None: they cannot be
    filter_s  seconds that a filter on metadata may take
    long_text  a text that is longer than the model reads is "cut", which `QueryResult.notes` tells; an "error"; or
               embedded in parts, of whose vectors the "average" is taken
    image_memory  from which decoding images reserves; by default one of its own
    images    folders of images. Paths in metadata that clip-retrieval wrote, or that was imported, are opened below the
              collection's folder and these alone

    >>> clipsieve.open("photos").search(MetaClass("bus", ["red bus"], ["red truck"]), k=40)  # doctest: +SKIP
    """
    from clipsieve.index import collection
    from clipsieve.index.image_places import ImageAccess

    memory = image_memory or ImageMemory()

    def probe(embedder: Any) -> Any:
        from clipsieve.inference.probe import probe

        return probe(embedder)

    def cut(data: bytes, box: Any) -> bytes:
        from clipsieve.inference.finding import cut

        return cut(data, box, memory)

    return collection.open_collection(
        folder,
        model=model,
        embedder=embedder,
        state=state,
        load=lambda name: load(name, device=device),
        load_detector=None if load_detector is None else lambda name: load_detector(name, device=device),
        probe=probe,
        cut=cut,
        progress=progress,
        filter_s=filter_s,
        long_text=long_text,
        access=ImageAccess.of(images, memory),
    )
