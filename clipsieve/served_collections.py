"""The collections that `back` serves, opened with what their answers may need besides: other texts, ratings, flags."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.image_memory import ImageMemory

if TYPE_CHECKING:
    from clipsieve.back.config import Entry
    from clipsieve.back.flags import Flag
    from clipsieve.back.shelf import Served, Shelf
    from clipsieve.index.collection import Collection
    from clipsieve.protocols import TextEmbedder
    from clipsieve.reading import LongText
    from clipsieve.served_models import Models

FILTER_SECONDS = 10.0
"""That a filter of a request may take."""


def open_entries(
    load: Callable[[str], Any],
    entries: Sequence["Entry"],
    state: Path | None,
    texts: "TextEmbedder | None",
    columns: str | None,
    ratings: Path | None,
    flags: "Mapping[str, Flag]",
    image_memory: ImageMemory | None = None,
    images: Sequence[Path] = (),
    long_text: "LongText" = "cut",
) -> "list[Served]":
    """The collections opened.

    load       makes the embedder of a name, once
    texts      the multilingual one
    long_text  what is done with texts of questions that are longer than a model reads
    """
    from clipsieve.back.shelf import COLUMNS, Options, Served
    from clipsieve.types import MetaClass

    own = COLUMNS if columns is None else tuple(re.findall(r"[^\s,\[\]\"']+", columns))  # clip-retrieval's is a literal
    served = []
    for entry in entries:
        own_state = state / entry.name if state is not None and len(entries) > 1 else state
        collection = _open(entry, load, own_state, image_memory, images, long_text)
        if texts is not None and texts.dim != collection.dim:
            raise InputError(
                f"The model {texts.model.name!r} embeds texts in {texts.dim} dimensions and the collection "
                f"{entry.name!r} has {collection.dim}; --mclip takes one that was made for the collection's model."
            )
        for flag, head in flags.items():
            if not isinstance(head, MetaClass) and head.dim != collection.dim:
                raise InputError(
                    f"What flags {flag} takes vectors of {head.dim} dimensions and the collection {entry.name!r} has "
                    f"{collection.dim}; give the one of the collection's model."
                )
        options = Options(entry.columns or own, texts, read_ratings(ratings, collection.dim), flags, long_text)
        served.append(Served(entry.name, collection, options, own_state, image_memory))
    return served


def model_of(shelf: "Shelf") -> str:
    """The name of the model that made the first collection. ModelUnavailable where the folder does not say it."""
    if not shelf.names:
        raise ModelUnavailable("This service has no model that embeds; start it with one: clipsieve back --model NAME.")
    served = shelf[None]
    made_with = served.collection.manifest.model
    if made_with is None:
        raise ModelUnavailable(f"The collection {served.name!r} does not say which model made it; give --model.")
    return made_with.name


def encoder_of(models: "Models", shelf: "Shelf", name: str | None) -> Any:
    """The batcher of the model named, or of the first collection's, which decodes images as that one has them."""
    batcher = models.batcher(name or model_of(shelf))
    return batcher.decoding_as(shelf[None].collection.manifest.decoding) if shelf.names else batcher


def read_ratings(folder: Path | None, dim: int) -> dict[int, Any]:
    """rating0.npy to rating9.npy, each float (d,); {} without a folder. InputError where one is missing or another."""
    import numpy as np

    from clipsieve.arrays import UNREADABLE, load_array

    found: dict[int, Any] = {}
    for rating in range(10) if folder is not None else ():
        path = Path(str(folder)) / f"rating{rating}.npy"
        try:
            vector = load_array(path).astype(np.float32).reshape(-1)
        except UNREADABLE as error:
            raise InputError(f"{path} cannot be read as a rating ({error}).") from error
        if len(vector) != dim:
            raise InputError(f"{path} has {len(vector)} dimensions and the collection {dim}; they are another model's.")
        found[rating] = vector
    return found


def read_flags(
    classes: Path | None, safety_head: Path | None, threshold: float, violence_prompts: Path | None
) -> "dict[str, Flag]":
    """What requests may have left out by the names safety and violence. InputError where a file is not what it is for.

    threshold  of what the safety head gives
    """

    from clipsieve.arrays import UNREADABLE, load_array
    from clipsieve.index.head import make_network, make_prompts
    from clipsieve.inference.tensors import read_tensors
    from clipsieve.question import read_set

    flags: dict[str, Flag] = {} if classes is None else {c.name: c for c in read_set(classes).classes}
    if unknown := set(flags) - {"safety", "violence"}:
        raise InputError(
            f"{classes}: the class {min(unknown)!r} is asked for by nobody; name them safety and violence."
        )
    for name, file in (("safety", safety_head), ("violence", violence_prompts)):
        if file is not None and name in flags:
            raise InputError(f"{classes} has a class {name}, and {file} flags by that name too; give one of them.")
    if safety_head is not None:
        flags["safety"] = make_network(read_tensors(safety_head), str(safety_head), threshold)
    if violence_prompts is not None:
        try:
            array = load_array(violence_prompts)
        except UNREADABLE as error:
            raise InputError(f"{violence_prompts} cannot be read as an array ({error}).") from error
        flags["violence"] = make_prompts(array, str(violence_prompts))
    return flags


def _open(
    entry: "Entry",
    load: Callable[[str], Any],
    state: Path | None,
    image_memory: ImageMemory | None,
    images: Sequence[Path],
    long_text: "LongText",
) -> "Collection":
    from clipsieve.opening import open_collection

    def load_model(name: str, device: str = "auto") -> Any:
        return load(name)

    # A filter that counts boxes may cost a pass over all regions: not for a request. One that takes long goes on where
    # its client has left.
    return open_collection(
        entry.folder,
        model=entry.model,
        state=state,
        load=load_model,
        load_detector=None,
        filter_s=FILTER_SECONDS,
        image_memory=image_memory,
        images=images,
        long_text=long_text,
    )
