"""The collections that a service serves, by name, each with its own options."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipsieve.back.flags import Flag, Flags
from clipsieve.back.pictures import Pictures, refuse_bombs
from clipsieve.checks import check_said
from clipsieve.errors import ClipsieveError, CollectionReadOnly, InputError, NotFound, StoreUnavailable, quoted
from clipsieve.image_memory import ImageMemory
from clipsieve.index.collection import Collection
from clipsieve.marks import Marks
from clipsieve.protocols import TextEmbedder
from clipsieve.reading import LongText, read_with
from clipsieve.types import ClassSet, Example, Float32, MetaClass
from clipsieve.whole import changed

COLUMNS = ("url", "image_path", "caption", "NSFW")
"""Metadata columns that clip-retrieval's service answers with by default."""


@dataclass(frozen=True, slots=True)
class Options:
    """How one collection is served.

    columns       metadata columns that answers of clip-retrieval's protocol have, where the collection has them
    multilingual  embeds texts of many languages into the images' space, for `use_mclip` and `multilingual`
    ratings       aesthetic rating 0..9 -> float32 (d,), added to a question by `aesthetic_score` and `rating`
    flags         "safety" and "violence" -> the class whose items are left out by that name, or what flags them
    long_text     what is done with a text that is longer than `multilingual` reads; the collection knows its own
    """

    columns: Sequence[str] = COLUMNS
    multilingual: TextEmbedder | None = None
    ratings: Mapping[int, Float32] = field(default_factory=dict)
    flags: Mapping[str, Flag] = field(default_factory=dict)
    long_text: LongText = "cut"


class Served:
    """One collection with its options. Safe to use from several threads at once.

    state         folder for what people make, in place of the collection's own
    image_memory  from which decoding its pictures reserves; by default one of its own
    """

    def __init__(
        self,
        name: str,
        collection: Collection,
        options: Options | None = None,
        state: Path | None = None,
        image_memory: ImageMemory | None = None,
    ) -> None:
        self.name = name
        self.collection = collection
        self.options = options or Options()
        self.kept_in = collection.folder if state is None else state
        self.marks = Marks(self.kept_in)
        self.image_memory = image_memory or ImageMemory()
        self.pictures = Pictures(collection, self.image_memory)
        self.flags = Flags(collection, self.options.flags)

    @contextlib.contextmanager
    def keeping(self) -> Iterator[Path]:
        """The folder in which class sets and marks are kept, to write there while a `with` lasts.

        CollectionReadOnly where nothing may be written, StoreUnavailable where that fails.
        """
        own = self.kept_in == self.collection.folder
        if own and (self.collection.manifest.read_only or not os.access(self.kept_in, os.W_OK)):
            raise CollectionReadOnly(
                f"The collection {self.name!r} may be read, not written; class sets and marks are kept in a folder "
                "that the service is started with, --state DIR."
            )
        try:
            self.kept_in.mkdir(parents=True, exist_ok=True)
            yield self.kept_in
        except ClipsieveError:
            raise
        except OSError as error:
            raise StoreUnavailable(
                f"Nothing can be kept in {self.kept_in} ({error}); make room, or give another folder with --state."
            ) from error

    @contextlib.contextmanager
    def just_found(self) -> Iterator[None]:
        """For what is asked about items that a question found: one that is gone went by a commit made meanwhile."""
        try:
            yield
        except NotFound as error:
            raise changed(self.collection.folder) from error

    def embed_text(self, text: str, multilingual: bool = False) -> Float32:
        """float32 (d,), unit length. InputError where there is no multilingual model."""
        if not multilingual:
            return self._embed(Example(text))
        if self.options.multilingual is None:
            raise InputError(
                f"The collection {quoted(self.name)} is served without a multilingual model; leave use_mclip out."
            )
        check_said("The text", text)
        vector: Float32 = read_with(self.options.multilingual, self.options.long_text)([text])[0]
        return vector

    def notes(self, text: str, multilingual: bool = False) -> tuple[str, ...]:
        """What is to be told of a text that `embed_text` takes; see `reading.notes_of`."""
        tower = self.options.multilingual if multilingual else None
        return self.collection.notes(ClassSet([MetaClass("text", [text])]), tower=tower)

    def embed_image(self, data: bytes) -> Float32:
        """The vector of an encoded image, float32 (d,), unit length. InputError if it is too large or no image."""
        refuse_bombs(data)
        return self._embed(Example(image=self.collection.add_example_image(data)))

    def _embed(self, example: Example) -> Float32:
        vector: Float32 = self.collection.embed_examples([example])[0]
        return vector


class Shelf:
    """Collections by name, in the order given. Safe to use from several threads at once."""

    def __init__(self, served: Sequence[Served] = ()) -> None:
        self._served: Mapping[str, Served] = {}
        self.fill(served)

    def fill(self, served: Sequence[Served]) -> None:
        """Hold these from now on, in the place of those before. InputError where two have one name."""
        by_name = {one.name: one for one in served}
        if len(by_name) < len(served):
            names = [one.name for one in served]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"Two collections are named {quoted(twice)}; give each a name of its own.")
        self._served = by_name

    @property
    def names(self) -> list[str]:
        """What they are called."""
        return list(self._served)

    def __iter__(self) -> Iterator[Served]:
        """As they are open, without a look for later commits."""
        return iter(self._served.values())

    def __getitem__(self, name: str | None) -> Served:
        """The collection of that name, or the first for None, as of its last commit. NotFound lists the names."""
        if name is None and self._served:
            name = next(iter(self._served))
        if name is None or name not in self._served:
            has = ", ".join(self._served) or "none"
            raise NotFound(f"There is no collection named {quoted(name)}; there is {has}.")
        one = self._served[name]
        one.collection.refresh()
        return one

    def load_models(self) -> None:
        """Load what embeds questions now and not with the first of them."""
        for one in self._served.values():
            one.embed_text("a picture")

    def close(self) -> None:
        """Let go of all files."""
        for one in self._served.values():
            one.collection.close()


Fetch = Callable[[str], bytes]
"""A URL -> the bytes behind it. InputError where they cannot be had or may not be asked for."""
