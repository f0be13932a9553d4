"""`clipsieve.json`: what a collection consists of.

A file that the manifest does not name does not exist, whatever lies in the folder; replacing the manifest is the only
commit. It is JSON whose keys are the field names below, and `checksum`, the SHA-256 of the rest, without which a
flipped digit would be believed. `format_version` rises when an older reader would misread.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from clipsieve.checks import check_choice, check_count, check_counts, check_finite, check_str, check_text
from clipsieve.durable import write_file
from clipsieve.errors import CollectionDamaged, CollectionError, CollectionMissing, InputError, ModelMismatch
from clipsieve.types import Decoding, Float32, ModelId

NAME = "clipsieve.json"
FORMAT_VERSION = 3
"""The newest that is read here. A folder has the least version that can tell what it holds."""

RESTORING = 2
"""From this version on the list of removed items has lines that take items back."""

DECODING = 3
"""From this version on images may be decoded as the reference libraries do, and so must be those of questions."""


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it was when it was written.

    path      relative to the folder, with forward slashes
    size      in bytes
    sha256    in hex; "" exactly for files that another program wrote
    mtime_ns  when it was last changed; a file with another time is read and compared before it is believed
    """

    path: str
    size: int
    sha256: str
    mtime_ns: int = 0

    def __post_init__(self) -> None:
        check_text("File.path", self.path)
        check_str("File.sha256", self.sha256)
        check_count("File.size", self.size)
        check_count("File.mtime_ns", self.mtime_ns, -(2**63))
        path = PurePosixPath(self.path)
        too_long = len(self.path.encode()) > 2000 or any(len(part.encode()) > 255 for part in path.parts)
        if "\0" in self.path or path.is_absolute() or ".." in path.parts or too_long:
            raise InputError(f"File.path is {self.path!r}; it must be the path of a file in the folder.")


@dataclass(frozen=True, slots=True)
class Source:
    """How far an input was read, so that a killed run goes on where the last commit ended.

    input                 the input and every option that changes which items it yields or their order
    partition, partitions which of how many equal parts of it; 0 of 1 when it is not split
    cursor                items of this partition consumed since its beginning; the reader yields them in a fixed
                          order, so resuming means passing over that many
    read                  items consumed for this shard; always embedded + skipped
    added                 read by `clipsieve add`, which takes what is new wherever it stands: there is no cursor
    retried               of `read`, those that an earlier shard lists as skipped: they were tried again
    """

    input: str
    cursor: int
    read: int
    embedded: int
    skipped: int
    partition: int = 0
    partitions: int = 1
    added: bool = False
    retried: int = 0

    def __post_init__(self) -> None:
        check_str("Source.input", self.input)
        for name in ("cursor", "read", "embedded", "skipped", "partition", "partitions"):
            check_count(f"Source.{name}", getattr(self, name), -(2**63))
        if min(self.read, self.embedded, self.skipped) < 0 or self.read != self.embedded + self.skipped:
            raise InputError(
                f"Source of {self.input!r} counts {self.read} read, {self.embedded} embedded, {self.skipped} skipped; "
                "read must be embedded + skipped."
            )
        if self.cursor < self.read:
            raise InputError(f"Source of {self.input!r} has cursor {self.cursor} after reading {self.read} items.")
        if not 0 <= self.partition < self.partitions:
            raise InputError(f"Source of {self.input!r} is partition {self.partition} of {self.partitions}.")


@dataclass(frozen=True, slots=True)
class Shard:
    """Row k of each of its files is one item.

    number            names the files; given once, never again
    rows              items; 0 for a shard that only records skipped inputs
    first_id, last_id the least and greatest id, both included; -1 when there are no rows
    files             by role: img_emb, text_emb, metadata, skipped, thumbs, region_emb, regions, crop_emb
    replaces          ids of items that items of this shard take the place of: they count as removed, from the same
                      commit on
    """

    number: int
    rows: int
    first_id: int
    last_id: int
    files: Mapping[str, File]
    source: Source | None = None
    replaces: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_count("Shard.number", self.number)
        check_count("Shard.rows", self.rows)
        check_counts("Shard.replaces", self.replaces)
        check_count("Shard.first_id", self.first_id, 0 if self.rows else -1)
        check_count("Shard.last_id", self.last_id, self.first_id if self.rows else -1)


@dataclass(frozen=True, slots=True)
class Index:
    """One built index.

    name        which vectors: "image", "text", "region" or "crop"
    kind        how it was made, for instance "flat" or a faiss factory string
    parameters  search parameters and whatever else opening it takes; JSON values
    shards      numbers of the shards it covers
    rows        rows in it
    recall      measured on this collection, 0..1; None if exhaustive
    """

    name: str
    kind: str
    parameters: Mapping[str, Any]
    shards: tuple[int, ...]
    rows: int
    recall: float | None
    files: Mapping[str, File]

    def __post_init__(self) -> None:
        check_str("Index.name", self.name)
        check_str("Index.kind", self.kind)
        check_counts("Index.shards", self.shards)
        check_count("Index.rows", self.rows)
        if self.recall is not None:
            check_finite("Index.recall", self.recall)


@dataclass(frozen=True, slots=True)
class Detection:
    """How regions are found in a collection's images.

    model  the detector's
    dim    dimensions of a region's vector
    most   regions of an image at most
    crops  whether each box is embedded by the collection's own model, too
    """

    model: ModelId
    dim: int
    most: int
    crops: bool


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What the collection's model made of three fixed images and texts. Compared with those of a model at opening.

    images, texts  float32 (3, d), unit rows; texts is None where the model has no text tower
    """

    images: Float32
    texts: Float32 | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Probe):
            return NotImplemented
        if (self.texts is None) != (other.texts is None):
            return False
        same_texts = self.texts is None or other.texts is None or np.array_equal(self.texts, other.texts)
        return same_texts and np.array_equal(self.images, other.images)

    __hash__ = None  # type: ignore[assignment]

    def require(self, other: "Probe", floor: float = 0.995) -> None:
        """Raise ModelMismatch unless every vector of `other` has a cosine of at least `floor` with its counterpart.

        The floor lets half precision and other devices pass; a wrong activation or resize falls below it.
        """
        for what, mine, theirs in (("image", self.images, other.images), ("text", self.texts, other.texts)):
            if mine is None or theirs is None:
                continue
            if mine.shape != theirs.shape:
                raise ModelMismatch(
                    f"The model gives {theirs.shape[1]} dimensions for the probe {what}s and the collection was made "
                    f"with {mine.shape[1]}; open it with the model that made it."
                )
            worst = float(np.einsum("ij,ij->i", mine, theirs).min())
            if not worst >= floor:
                raise ModelMismatch(
                    f"The model disagrees with the collection about the probe {what}s (cosine {worst:.4f}, at least "
                    f"{floor} is needed); check weights, activation and preprocessing, or embed the collection anew."
                )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A collection as of one commit.

    model       who made the vectors; None for a clip-retrieval folder, which does not say
    dim         dimensions of a vector
    dtype       of the stored vectors
    next_id     the id that the next item gets
    next_shard  the number that the next shard gets
    background  ids of the fixed random sample that calibration is measured on
    retired     sources of shards that were compacted away: what they read stays read
    removed     removed.jsonl as far as it counts: what follows was appended by a writer that died before committing;
                None if nothing was ever removed
    detection   what finds regions in its images; None if nothing does. Older shards may lack them all the same
    decoding    how images were decoded before the model saw them, and how those of questions are
    read_only   True for a folder that clipsieve did not write; such a manifest is never written to disk
    """

    model: ModelId | None
    dim: int
    dtype: str = "float16"
    licence: str | None = None
    next_id: int = 0
    next_shard: int = 0
    shards: tuple[Shard, ...] = ()
    indices: tuple[Index, ...] = ()
    probe: Probe | None = None
    background: tuple[int, ...] = ()
    retired: tuple[Source, ...] = ()
    removed: File | None = None
    detection: Detection | None = None
    decoding: Decoding = "own"
    read_only: bool = False
    format_version: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        check_count("Manifest.dim", self.dim)
        check_str("Manifest.dtype", self.dtype)
        check_count("Manifest.next_id", self.next_id)
        check_count("Manifest.next_shard", self.next_shard)
        check_counts("Manifest.background", self.background)
        check_choice("Manifest.decoding", self.decoding, Decoding)
        if self.decoding == "reference" and self.format_version < DECODING:
            object.__setattr__(self, "format_version", DECODING)
        ranges = sorted((shard.first_id, shard.last_id) for shard in self.shards if shard.rows)
        if any(first <= last for (_, last), (first, _) in itertools.pairwise(ranges)):
            raise InputError("Manifest.shards overlap in their ids; each id is given once.")

    @property
    def rows(self) -> int:
        """Rows in all shards, removed ones included."""
        return sum(shard.rows for shard in self.shards)

    @property
    def sources(self) -> list[Source]:
        """All that was read to make it, in order."""
        return [*self.retired, *(s.source for s in self.shards if s.source is not None)]

    @property
    def skipped(self) -> int:
        """Inputs that were skipped and have not come in since."""
        return sum(source.skipped - source.retried for source in self.sources)

    def progress(self, input: str, partition: int = 0, partitions: int = 1) -> Source:
        """What was read of this partition in all: its counts added up, and the cursor to resume from (0 if new)."""
        wanted = (input, partition, partitions)
        seen = [s for s in self.sources if (s.input, s.partition, s.partitions) == wanted]
        return Source(
            input=input,
            cursor=max((s.cursor for s in seen if not s.added), default=0),
            read=sum(s.read - s.retried for s in seen),
            embedded=sum(s.embedded for s in seen),
            skipped=sum(s.skipped - s.retried for s in seen),
            partition=partition,
            partitions=partitions,
        )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a clipsieve folder.

    CollectionMissing without one, CollectionDamaged if it cannot be read, CollectionError if it is too new.
    """
    path = folder / NAME
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CollectionMissing(
            f"{folder} holds no {NAME}; give the folder that `clipsieve inference` wrote."
        ) from None
    except ValueError as error:
        raise CollectionDamaged(f"{path} is not JSON ({error}); restore it from a copy.") from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CollectionError(
            f"{path} has format version {version}; this clipsieve reads up to {FORMAT_VERSION}, so upgrade it."
        )
    if isinstance(value, dict) and value.pop("checksum", None) != _checksum(value):
        raise CollectionDamaged(f"{path} is not as it was written: its checksum disagrees; restore it from a copy.")
    try:
        return _from_json(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CollectionDamaged(f"{path} is not a manifest ({error}); restore it from a copy.") from error


def commit(folder: Path, manifest: Manifest) -> None:
    """Replace the folder's manifest, durably and at once. Only the holder of the folder's lock may call this."""
    if manifest.read_only:
        raise InputError(f"The manifest of {folder} is read-only; it describes files of another program.")
    value = _to_json(manifest)
    text = json.dumps(value | {"checksum": _checksum(value)}, indent=1) + "\n"
    write_file(folder / NAME, lambda file: file.write(text.encode()))


def _checksum(value: Mapping[str, Any]) -> str:
    # Of the parsed values, not of the bytes: who reindents the file has changed nothing.
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _to_json(manifest: Manifest) -> dict[str, Any]:
    # Field by field, not asdict: that would deep-copy the probe's arrays and the background of ten thousand ids.
    value = {f.name: getattr(manifest, f.name) for f in dataclasses.fields(manifest) if f.name != "read_only"}
    if manifest.model is not None:
        value["model"] = dataclasses.asdict(manifest.model)
    value["shards"] = [dataclasses.asdict(s) for s in manifest.shards]
    value["indices"] = [dataclasses.asdict(i) for i in manifest.indices]
    value["retired"] = [dataclasses.asdict(s) for s in manifest.retired]
    value["removed"] = None if manifest.removed is None else dataclasses.asdict(manifest.removed)
    value["detection"] = None if manifest.detection is None else dataclasses.asdict(manifest.detection)
    if manifest.decoding == "own":  # as manifests were before there was a choice, for who reads them
        del value["decoding"]
    if manifest.probe is not None:
        value["probe"] = {"images": _floats(manifest.probe.images), "texts": _floats(manifest.probe.texts)}
    return value


def _from_json(value: Mapping[str, Any]) -> Manifest:
    fields = dict(value)
    if fields["model"] is not None:
        fields["model"] = ModelId(**fields["model"])
    fields["shards"] = tuple(_shard(**s) for s in fields["shards"])
    fields["indices"] = tuple(
        Index(**{**i, "shards": tuple(i["shards"]), "files": _files(i["files"])}) for i in fields["indices"]
    )
    fields["retired"] = tuple(Source(**s) for s in fields["retired"])
    fields["background"] = tuple(fields["background"])
    if fields["removed"] is not None:
        fields["removed"] = File(**fields["removed"])
    if fields.get("detection") is not None:
        fields["detection"] = Detection(**{**fields["detection"], "model": ModelId(**fields["detection"]["model"])})
    if fields["probe"] is not None:
        fields["probe"] = Probe(_array(fields["probe"]["images"]), _array(fields["probe"]["texts"]))
    return Manifest(**fields)


def _shard(*, files: Mapping[str, Any], source: Mapping[str, Any] | None, replaces: Any = (), **rest: Any) -> Shard:
    made = None if source is None else Source(**source)
    return Shard(files=_files(files), source=made, replaces=tuple(replaces), **rest)


def _files(value: Mapping[str, Any]) -> dict[str, File]:
    return {role: File(**file) for role, file in value.items()}


def _floats(array: Float32 | None) -> list[list[float]] | None:
    # str of a float32 is the shortest text that reads back to it; widened to float64 first it would be twice as long.
    return None if array is None else [[float(str(x)) for x in row] for row in array]


def _array(rows: list[list[float]] | None) -> Any:
    return None if rows is None else np.array(rows, dtype=np.float32)
