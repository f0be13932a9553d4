"""A folder opened to be asked: where manifest, rows, indices, metadata and an embedder meet."""

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from clipsieve.errors import CollectionReadOnly, InputError
from clipsieve.index import boxes, labels_out, query
from clipsieve.index.asked import Asked, Own, RankedAnswer, choose, scales_of
from clipsieve.index.box_questions import BoxQuestions
from clipsieve.index.counting import counted_texts
from clipsieve.index.example_images import Examples
from clipsieve.index.examples import Embedded, Embedding, Templates
from clipsieve.index.first_line import Proposal, propose
from clipsieve.index.image_places import ImageAccess
from clipsieve.index.kinds import Source
from clipsieve.index.label import PART_ROWS, Labelling
from clipsieve.index.learn import Learned
from clipsieve.index.marked import learn_class
from clipsieve.index.metadata import FILTER_SECONDS
from clipsieve.index.missing import Looked, missing_files
from clipsieve.index.nearest import nearest
from clipsieve.index.opened import Opened
from clipsieve.index.ordinary_texts import LEAST, Ordinary
from clipsieve.index.regions import CollectionRegions
from clipsieve.index.review import Asking, Review
from clipsieve.index.rule import Question, Veto, View
from clipsieve.index.stored import Modality
from clipsieve.manifest import Manifest, Probe
from clipsieve.protocols import Detector, TextEmbedder
from clipsieve.reading import LongText
from clipsieve.restoring import Restored, restore
from clipsieve.types import (
    Box,
    Calibration,
    ClassSet,
    ClassVectors,
    Distribution,
    Example,
    Float32,
    Hit,
    Int64,
    MetaClass,
    ModelId,
    QueryResult,
)
from clipsieve.writer import open_writer


def open_collection(
    folder: str | os.PathLike[str],
    *,
    model: str | None = None,
    embedder: Any = None,
    state: str | os.PathLike[str] | None = None,
    load: Callable[[str], Any] | None = None,
    load_detector: Callable[[str], Any] | None = None,
    probe: Callable[[Any], Probe] | None = None,
    cut: Callable[[bytes, Box], bytes] | None = None,
    progress: Callable[[int, int], None] | None = None,
    filter_s: float = FILTER_SECONDS,
    long_text: LongText = "cut",
    access: ImageAccess | None = None,
) -> "Collection":
    """Open a collection that clipsieve made, or, for reading, one of clip-retrieval.

    model     name of the model that questions are embedded with, where the folder does not say (clip-retrieval's)
    embedder  an ImageEmbedder or TextEmbedder, or both; needed for texts and uploaded images only
    state     folder for what is derived, where the collection's own cannot be written
    load      makes an embedder of a model's name, when the first question needs one
    load_detector  likewise a detector, for questions about boxes and filters that count them
    probe     what an embedder makes of the fixed probe images and texts (clipsieve.inference.probe.probe); compared
              with what the manifest holds before the embedder is used
    cut       a part of an encoded image, encoded, for examples that are parts
    progress  called with (rows read, rows to read) while the metadata cache is made
    filter_s  seconds that a filter on metadata may take
    long_text  what is done with a text that is longer than the model reads: "cut" and told, see `notes`; "error"; or
              "average", which takes the mean of its parts' vectors
    access    what images are read with

    ModelMismatch for an embedder of another model; CollectionMissing, CollectionDamaged for a folder that is no, or no
    whole, collection.
    """
    opened = Opened.of(Path(folder), state, progress, filter_s, access)
    try:
        embedding = Embedding(Path(folder), opened.manifest, model, load, probe, cut, long_text)
        if embedder is not None:
            embedding.use(embedder)
    except BaseException:
        opened.close()
        raise
    return Collection(Path(folder), opened, embedding, load_detector, long_text=long_text)


class Collection:
    """Images that can be asked for. Safe to use from several threads at once; a context manager."""

    def __init__(
        self,
        folder: Path,
        opened: Opened,
        embedding: Embedding | Embedded,
        load_detector: Callable[[str], Detector] | None = None,
        without: Int64 | None = None,
        long_text: LongText = "cut",
    ) -> None:
        self.folder = folder
        self._without = without
        self._opened = opened
        self._examples = Examples(embedding)
        self._boxes = BoxQuestions(load_detector, long_text)
        self._ordinary = Ordinary()
        self._refreshing = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """The manifest that this reads from; `refresh` looks for a newer one."""
        return self._opened.manifest

    @property
    def count(self) -> int:
        """Items, removed ones not counted."""
        return self._opened.count

    @property
    def dim(self) -> int:
        """d, the dimensions of a vector."""
        return self.manifest.dim

    @property
    def modalities(self) -> tuple[str, ...]:
        """What can be asked: "image", "text" or both."""
        return self._opened.modalities

    @property
    def revision(self) -> str:
        """Which commit this reads from: another text after each one that `refresh` brings."""
        return self._opened.revision

    @property
    def committed(self) -> float | None:
        """When that commit was made, in seconds since 1970; None for a folder that is not clipsieve's."""
        return self._opened.committed

    @property
    def passes(self) -> dict[str, dict[int, int]]:
        """Modality -> questions answered in one pass over all rows -> such passes since the collection was opened."""
        return {modality: counts.taken() for modality, counts in self._opened.passes.items()}

    @property
    def model(self) -> ModelId | None:
        """What made the vectors; where the folder does not say, what embeds questions, once there is something."""
        return self._examples.embedding.model

    @property
    def columns(self) -> tuple[str, ...]:
        """The metadata columns that a filter may use."""
        return self._opened.metadata.columns

    @property
    def has_groups(self) -> bool:
        """Whether it is known which items are near-duplicates of each other."""
        return self._opened.has_groups

    def search(
        self,
        question: MetaClass | ClassSet,
        k: int = 40,
        *,
        name: str | None = None,
        threshold: float | None = None,
        where: str | None = None,
        within: Int64 | None = None,
        dedup: bool = False,
        modality: Modality = "image",
        budget_ms: float | None = None,
        templates: Templates | Own = "own",
        calibration: Calibration | None = None,
        view: View = "matched",
        order: query.Order = "score",
        veto: Veto = "soft",
    ) -> QueryResult:
        """The best k items of a class.

        question     a class, or one of a set, by `name`; a set of one class needs none
        threshold    least score, in place of the class's own
        where        a filter over the metadata: an SQL expression, see `columns`; `count('red circle') >= 3` in it
                     holds for images in which a detector saw so many, see `counting`
        within       ids that alone may be found
        dedup        one item per group of duplicates
        modality     "text" compares with the items' captions instead of their images
        budget_ms    when to stop and say so
        templates    wrapped around texts; the set's own by default, none for a single class
        calibration  in place of the set's own; "none" for a single class
        view         "rejected": reaches the threshold but for its negatives; "below": does not reach it
        order        by falling score, by falling margin, or what was added last first
        veto         what a negative does that is nearer than every positive: "soft" lowers the score by as much as it
                     is nearer, "hard" removes the item, as `filter` and `label` do
        """
        asked = self._ask(question, k, name, threshold, where, modality, within, templates, calibration)
        return asked.rank(dedup, view, order, budget_ms, veto).result()

    def rank(
        self,
        question: MetaClass | ClassSet,
        k: int = 40,
        *,
        name: str | None = None,
        threshold: float | None = None,
        where: str | None = None,
        within: Int64 | None = None,
        dedup: bool = False,
        modality: Modality = "image",
        budget_ms: float | None = None,
        templates: Templates | Own = "own",
        calibration: Calibration | None = None,
        view: View = "matched",
        order: query.Order = "score",
        veto: Veto = "soft",
    ) -> RankedAnswer:
        """As `search`, without looking up whose keys they are: for answers of which only a part is shown at a time."""
        asked = self._ask(question, k, name, threshold, where, modality, within, templates, calibration)
        return asked.rank(dedup, view, order, budget_ms, veto)

    def explain(
        self,
        question: MetaClass | ClassSet,
        id: int,
        *,
        name: str | None = None,
        modality: Modality = "image",
        templates: Templates | Own = "own",
        calibration: Calibration | None = None,
    ) -> tuple[MetaClass, list[float], list[float]]:
        """Why an item stands where it does: the class, and the item's score with each of its positives and negatives.

        NotFound for an item that is not there.
        """
        asked = self._ask(question, 1, name, None, None, modality, None, templates, calibration)
        return asked.meta, *asked.explain(id)

    def nearest(
        self,
        vector: Float32,
        k: int = 40,
        *,
        modality: Modality = "image",
        dedup: bool = False,
        without: Int64 | None = None,
        source: Source | None = None,
        timings: dict[str, float] | None = None,
    ) -> tuple[Int64, Float32]:
        """The items with the greatest inner product with a vector: ids int64 (r,), products float32 (r,), best first.

        vector   float (d,), of any length but 0
        dedup    one item per group of duplicates; where the folder has no groups, what is near-duplicate among the
                 first few thousand is found on the way
        without  ids that must not be found
        source   what the vector is of, which says how deep an approximate index is searched; as the hardest by default
        timings  with `dedup`, "dedup" in it grows by the seconds that telling duplicates took

        InputError for a vector of another dimension, of length 0, or with what is no number.
        """
        opened, model = self._opened, self.model
        if self._without is not None:
            without = self._without if without is None else np.union1d(self._without, without)
        how = {"modality": modality, "dedup": dedup, "without": without, "source": source, "timings": timings}
        return nearest(opened, vector, k, model, **how)  # type: ignore[arg-type]

    def filter(
        self,
        question: MetaClass | ClassSet,
        threshold: float | None = None,
        *,
        name: str | None = None,
        where: str | None = None,
        within: Int64 | None = None,
        dedup: bool = False,
        modality: Modality = "image",
        templates: Templates | Own = "own",
        calibration: Calibration | None = None,
    ) -> Iterator[Hit]:
        """Every item of a class, by ascending id, as they are found; with `dedup` the first of each group.

        The arguments are those of `search`. What is wrong with them is raised here, not at the first item.
        """
        asked = self._ask(question, 1, name, threshold, where, modality, within, templates, calibration)
        return asked.filter(dedup)

    def distribution(
        self,
        question: MetaClass | ClassSet,
        *,
        name: str | None = None,
        threshold: float | None = None,
        where: str | None = None,
        modality: Modality = "image",
        templates: Templates | Own = "own",
        calibration: Calibration | None = None,
        sample: int | None = None,
        edges: Float32 | None = None,
        veto: Veto = "soft",
    ) -> Distribution:
        """How the items fall under a class: matched, rejected, below, and a histogram; as `search` is asked.

        sample  look at that many random items and scale up; all by default
        edges   float32 (b + 1,), ascending, of the histogram's bins, on the score's scale
        """
        asked = self._ask(question, 1, name, threshold, where, modality, None, templates, calibration)
        return asked.distribution(sample, edges, veto)

    def propose(
        self,
        classes: ClassSet,
        *,
        where: str | None = None,
        modality: Modality = "image",
    ) -> Proposal:
        """A threshold for each class that has none, from the shape of its scores, and how many items are accepted then.

        where  as in `search`
        """
        vectors, opened = self.embed(classes), self._opened
        scales = scales_of(opened, classes, vectors, modality) or (None,) * len(vectors)
        given = [c.threshold for c in classes.classes]
        return propose(opened.rows(modality), vectors, scales, given, self._only(opened, where, None))

    def review(
        self,
        question: MetaClass | ClassSet,
        right: Sequence[int] = (),
        wrong: Sequence[int] = (),
        limit: int = 40,
        *,
        name: str | None = None,
        threshold: float | None = None,
        where: str | None = None,
        modality: Modality = "image",
        asking: Asking = "doubtful",
        learned: Learned | None = None,
    ) -> Review[tuple[Hit, ...]]:
        """What to ask about next, and what would do as an example; see `Review`. Else asked as `search`.

        right, wrong  ids of items that somebody said are of the class, or are not
        asking        "spread": about items of all ranks, what `learn` learns most from
        learned       what `learn` made of the marks so far, to rank by in place of the class's examples
        """
        asked = self._ask(question, 1, name, threshold, where, modality)
        return asked.review(right, wrong, limit, asking, learned)

    def learn(
        self,
        question: MetaClass | ClassSet,
        right: Sequence[int],
        wrong: Sequence[int],
        *,
        name: str | None = None,
        modality: Modality = "image",
    ) -> tuple[Learned, tuple[Example, ...]]:
        """What marks teach beyond the class's texts, and the examples that it rests on, in the order of its parts.

        Its direction ranks the collection, by `nearest`. The class's image examples count as marks; items that are no
        longer there do not. Its texts count if a positive one is among them. Nothing is kept: the marks are the truth,
        and the same marks teach the same.

        InputError unless something was said to be right and something to be wrong.
        """
        classes, meta = choose(question, name, "own", None)
        opened, (vectors,) = self._opened, self.embed(classes)
        return learn_class(meta, vectors, opened.rows(modality), opened.background(modality), right, wrong)

    def label(
        self,
        classes: ClassSet,
        out: str | os.PathLike[str],
        *,
        reject: bool = False,
        progress: Callable[[int], object] | None = None,
        part_rows: int = PART_ROWS,
        raw_csv: bool = False,
    ) -> dict[str | None, int]:
        """Give every item the class of the set that fits it best; how many each class got (None: no class).

        out        a `.parquet` or `.csv` file, or a folder for Parquet parts. Killed, it goes on where it was: until it
                   is finished the parts of a file lie in a folder beside it
        reject     give no label to items that no class accepts
        progress   called with the number of items after each part; what it raises ends the work as a kill would
        part_rows  items of a part
        raw_csv    a CSV has texts as they are, also those that a spreadsheet would compute
        """
        vectors, opened = self.embed(classes), self._opened
        work = Labelling(vectors, classes.classes, scales_of(opened, classes, vectors, "image"), reject)
        rows = opened.rows("image")
        how: dict[str, Any] = {"part_rows": part_rows, "progress": progress, "raw_csv": raw_csv}
        return labels_out.label_to(rows, work, Path(out), opened.keys, **how)

    def embed(
        self, classes: ClassSet, templates: Templates | Own = "own", tower: TextEmbedder | None = None
    ) -> tuple[ClassVectors, ...]:
        """The examples of a set as vectors, class by class; by default with the set's own templates.

        tower  embeds the texts in place of the collection's own model, into the same space: other languages

        InputError where an embedder is needed and there is none; NotFound for an image that is neither an item nor was
        passed to `add_example_image`.
        """
        wrapped = classes.templates if templates == "own" else templates
        return self._examples.classes(self._opened, classes.classes, wrapped, tower)

    def notes(
        self,
        classes: ClassSet,
        templates: Templates | Own = "own",
        tower: TextEmbedder | None = None,
        where: str | None = None,
        modality: Modality | None = None,
    ) -> tuple[str, ...]:
        """What is to be told of the texts of a set, in sentences: what of them the model leaves out, or does not know.

        where     a filter, whose counted texts are looked at too
        modality  where given, texts are named that find no more in the collection than any text does, as its own model
                  reads them

        The other arguments and the errors are those of `embed`.
        """
        wrapped = classes.templates if templates == "own" else templates
        opened = self._opened
        notes = self._examples.embedding.notes(classes.classes, wrapped, tower) + self._filter_notes(opened, where)
        if modality is None or tower is not None:
            return notes
        return notes + self._ordinary_notes(opened, classes, wrapped, modality)

    def box_notes(self, classes: ClassSet, detector: Detector | None = None) -> tuple[str, ...]:
        """The same of the detector that finds boxes; the arguments and errors are those of `search_regions`."""
        return self._boxes.notes(self._opened, classes.classes, detector, classes.templates)

    def embed_examples(self, examples: Sequence[Example]) -> Float32:
        """Examples as vectors, float32 (n, d), unit rows, in order; texts as they are, without templates.

        The errors are those of `embed`.
        """
        (vectors,) = self._examples.classes(self._opened, [MetaClass("examples", examples)], None)
        return vectors.positive

    def add_example_image(self, data: bytes) -> str:
        """Embed an uploaded image so that it may be an example; its content hash, which Example takes."""
        return self._examples.add(data)

    def keep_example_image(self, data: bytes) -> str:
        """The same for examples of boxes, or parts: the image is kept, 64 MB of such, and not embedded."""
        return self._examples.keep(data)

    def example_bytes(self, image: int | str) -> bytes:
        """The encoded image that an Example means. NotFound where it is not there, or no longer."""
        return self._examples.image_bytes(self._opened, image)

    @property
    def regions(self) -> CollectionRegions:
        """What a detector found in the images, to load and to search. NotFound where none looked."""
        return self._opened.regions

    def sample(self, count: int, modality: Modality = "image") -> Int64:
        """So many random ids, always the same of one commit, or all where there are fewer: int64 (r,), ascending."""
        return self._opened.rows(modality).sample(count)

    def search_regions(
        self,
        question: MetaClass | ClassSet,
        detector: Detector | None = None,
        k: int = 40,
        *,
        name: str | None = None,
        threshold: float | None = None,
        where: str | None = None,
        within: Int64 | None = None,
        every_box: bool = False,
        templates: Templates | Own = "own",
    ) -> QueryResult:
        """The best k boxes of a class; a hit is an image with its box. See `boxes.search`.

        detector   the one that found the regions, `regions.model`; ModelMismatch for another. By default it is loaded
        threshold  least score, in 0..1, in place of the class's own
        every_box  an image comes with each of its boxes; by default once, with its best one

        The others are those of `search`. NotFound where no detector looked.
        """
        # A detector has a scale of its own, on which texts and images meet.
        classes, meta = choose(question, name, templates, "background")
        opened = self._opened
        vectors = self._boxes.embed(opened, meta, detector, classes.templates, self.example_bytes)
        found = boxes.search(
            opened.regions,
            vectors,
            meta,
            k,
            opened.keys,
            threshold=meta.threshold if threshold is None else threshold,
            only=self._only(opened, where, within),
            every_box=every_box,
        )
        return dataclasses.replace(found, notes=self.box_notes(classes, detector) + self._filter_notes(opened, where))

    def items(self, ids: Sequence[int] | Int64, columns: Sequence[str] | None = None) -> list[Mapping[str, object]]:
        """The metadata rows of these items, in order. NotFound names an id that was never given, or was removed.

        columns  those to read beside `id`; all by default
        """
        self._opened.require(ids)
        return self._opened.items(ids, columns)

    def keys(self, ids: Sequence[int] | Int64) -> list[str]:
        """The keys of these ids, in order."""
        return self._opened.keys(ids)

    def ids_of_keys(self, keys: Sequence[str]) -> Int64:
        """The ids of these keys, int64 (n,), in order. NotFound names an unknown key."""
        return self._opened.metadata.ids_of_keys(keys)

    def select(self, where: str) -> Int64:
        """The ids of items that a filter lets through, int64 (r,), ascending, removed ones left out."""
        opened = self._opened
        found = opened.metadata.select(where, count=self._boxes.counter(opened))
        return found[~np.isin(found, opened.removed)]

    def vectors(self, ids: Sequence[int] | Int64, modality: Modality = "image") -> Float32:
        """The stored vectors of these items, float32 (n, d), in order; NotFound names one that has none."""
        return self._opened.vectors(ids, modality)

    def image_bytes(self, id: int, *, thumbnails: bool = True) -> bytes:
        """The encoded image of an item from where it was read; its thumbnail, if allowed, where that is gone.

        NotFound says what was looked for.
        """
        return self._opened.image_bytes(id, thumbnails=thumbnails)

    def image_file(self, id: int) -> Path:
        """The file that an item's image is. NotFound where it is a part of another one, gone, or no image."""
        return self._opened.image_file(id)

    def image_size(self, id: int) -> tuple[int, int]:
        """Width and height of an item's image, upright, in pixels. NotFound where it is gone."""
        return self._opened.image_size(id)

    def thumbnail(self, id: int) -> bytes:
        """A small encoded image of an item, where the collection keeps them; else its original."""
        self._opened.require([id])
        return self._opened.originals.thumbnail(id) or self.image_bytes(id)

    def missing(self) -> Looked:
        """Which items' files are no longer there; see `missing_files`."""
        return missing_files(self.folder, self.manifest, self._opened.removed)

    def remove(self, ids: Sequence[int], *, gone: bool = False) -> None:
        """Remove items: from now on nothing finds them. NotFound if an id was never given.

        gone  their files are no longer there: should they come back, `clipsieve add` takes them again

        `restore` undoes it until `compact`.
        """
        if self.manifest.read_only:
            raise CollectionReadOnly(f"{self.folder} was not made by clipsieve; it opens for reading only.")
        with open_writer(self.folder) as writer:
            writer.remove(ids, gone=gone)
        self.refresh()

    def restore(self, ids: Sequence[int] | None = None) -> Restored:
        """Undo that items were removed, the last time or those of these ids; see `restoring.restore`."""
        if self.manifest.read_only:
            raise CollectionReadOnly(f"{self.folder} was not made by clipsieve; it opens for reading only.")
        restored = restore(self.folder, ids)
        self.refresh()
        return restored

    def fixed(self, vectors: Sequence[ClassVectors] = (), without: Int64 | None = None) -> "Collection":
        """This commit for work that takes long: it stays, whatever `refresh` brings here. It is not to be closed.

        vectors  the classes that it can be asked for, embedded before by `embed`; it embeds nothing itself
        without  ids that are not found; `label` and `search_regions` look at them all the same

        Where a later commit did away with items, asking for their keys, rows or images is CollectionChanged.
        """
        return Collection(self.folder, self._opened, Embedded(vectors, self.model), without=without)

    def refresh(self) -> bool:
        """Read a newer manifest, if there is one; whether there was."""
        if not self._opened.stale() or not self._refreshing.acquire(blocking=False):
            return False  # where another thread is at it, this one goes on with what was read before
        try:
            self._opened = self._opened.again()
        finally:
            self._refreshing.release()
        return True

    def keep_rows(self, most_bytes: int) -> None:
        """Hold a coarse copy of the vectors in memory, a byte a number, where there is no index and it fits: for those
        who ask again and again. Without torch it is a copy in float32.

        To be called before the first question; they are read anew after each commit.
        """
        self._opened.row_memory = most_bytes

    def info(self, *, timed: bool = False) -> dict[str, Any]:
        """What the collection holds, as JSON values.

        timed  find out what a question pays for vectors that no index covers, `scan_ms` of each index, and with that
               what is worth doing, `advice`; takes up to a second
        """
        return self._opened.info(timed=timed) | {"model": None if self.model is None else self.model.name}

    def use(self, embedder: Any) -> None:
        """Embed questions with this from now on. ModelMismatch unless it is what made the vectors."""
        self._examples.embedding.use(embedder)

    def close(self) -> None:
        """Let go of the files."""
        self._opened.close()

    def __enter__(self) -> "Collection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(
        self,
        question: MetaClass | ClassSet,
        k: int,
        name: str | None,
        threshold: float | None,
        where: str | None,
        modality: Modality,
        within: Int64 | None = None,
        templates: Templates | Own = "own",
        calibration: Calibration | None = None,
    ) -> Asked:
        classes, meta = choose(question, name, templates, calibration)
        opened = self._opened
        vectors = self._examples.classes(opened, classes.classes, classes.templates)
        scales = scales_of(opened, classes, vectors, modality)
        asked = Question(
            vectors[0],
            k,
            threshold=meta.threshold if threshold is None else threshold,
            only=self._only(opened, where, within),
            without=self._without,
            scale=None if scales is None else scales[0],
        )
        notes = self._examples.embedding.notes(classes.classes, classes.templates) + self._filter_notes(opened, where)
        notes += self._ordinary_notes(opened, classes, classes.templates, modality)
        return Asked(opened, meta, asked, modality, notes)

    def _ordinary_notes(
        self, opened: Opened, classes: ClassSet, wrapped: Templates, modality: Modality
    ) -> tuple[str, ...]:
        """Which positive texts find no more than any text does."""
        texts = list(dict.fromkeys(e.text for c in classes.classes for e in c.positive if e.text is not None))
        if not texts or isinstance(self._examples.embedding, Embedded) or opened.rows(modality).count < LEAST:
            return ()

        def embed(wanted: Sequence[str]) -> Float32:
            return self._examples.classes(opened, [MetaClass("texts", wanted)], wrapped)[0].positive

        key = (modality, repr(wrapped), self.model)
        try:
            return self._ordinary.notes(opened.background(modality), key, texts, embed)
        except (
            InputError
        ):  # of some text nothing reaches the model: the question itself says so, and TEXTS tell nothing
            return ()

    def _filter_notes(self, opened: Opened, where: str | None) -> tuple[str, ...]:
        """What is to be told of the texts that a filter counts."""
        classes = [MetaClass(text, [text]) for text in counted_texts(where or "")]
        return self._boxes.notes(opened, classes, None, None) if classes else ()

    def _only(self, opened: Opened, where: str | None, within: Int64 | None) -> Int64 | None:
        if where is None:
            return within
        found = opened.metadata.select(where, count=self._boxes.counter(opened))
        return found if within is None else np.intersect1d(found, within)
