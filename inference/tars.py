"""Webdataset tars: neighbouring members of one stem are a sample - an image, its caption, its metadata."""

import copy
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Self

from clipsieve.inference.decode import image_extensions
from clipsieve.inference.parts import Items, narrowed, read_parts, states
from clipsieve.inference.paths import Place, readable, relative_names
from clipsieve.inference.sidecar import caption_of, clean_caption, metadata_of
from clipsieve.path_text import to_text
from clipsieve.types import FileState, ImageItem, Skipped

BLOCK = 512
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


@dataclass(slots=True)
class _Sample:
    """A stem and its members: extension as written after the first dot, lower case -> bytes (empty if passed over)."""

    stem: str
    members: dict[str, bytes] = field(default_factory=dict)


class TarSource:
    """See `reader.Source`. The key of an image is `name.tar/member` without the member's extension.

    A tar that is cut short or damaged gives the samples before the damage, and then one Skipped for the rest.
    """

    def __init__(
        self,
        name: str,
        tars: Sequence[Place],
        image_key: str | None = None,
        caption_key: str = "txt",
        partition: int = 0,
        partitions: int = 1,
    ) -> None:
        self.name = name
        self.partition = partition
        self.partitions = partitions
        self._tars = list(zip(relative_names(tars), tars, strict=True))[partition::partitions]
        self._caption_key = caption_key.lower().lstrip(".")
        self._image_keys = (
            frozenset(ext[1:] for ext in image_extensions())
            if image_key is None
            else frozenset(part.strip().lower().lstrip(".") for part in image_key.split(";"))
        )

    @property
    def total(self) -> None:
        """Not known: a tar has no table of contents."""
        return

    @property
    def ignored(self) -> Mapping[str, int]:
        """None are: a sample without an image is a Skipped."""
        return {}

    def items(self, start: int = 0, pass_over: object = None) -> Iterator[ImageItem | Skipped]:
        """See `reader.Source.items`. Passing over reads the members' headers, not the members."""
        return read_parts(self._tars, self._read, start)

    def states(self) -> Mapping[str, FileState]:
        """See `reader.Source.states`."""
        return states(self._tars)

    def only(self, paths: Container[str]) -> Self:
        """See `reader.Source.only`."""
        other = copy.copy(self)
        other._tars = narrowed(self._tars, paths)
        return other

    def _read(self, name: str, place: Place, start: int) -> Items:
        with place.open() as file, tarfile.open(fileobj=file, mode="r:*") as tar:
            number = 0
            try:
                for sample in self._samples(tar, start):
                    if number >= start:
                        yield self._item(name, sample)
                    number += 1
                problem = _end_problem(tar)
            except _DAMAGE as error:
                problem = f"it is damaged or cut short ({error})"
        if problem:
            if number >= start:
                yield Skipped(
                    name, f"The tar could not be read past its sample {number}: {problem}; restore it from a copy."
                )
            number += 1
        return number

    def _samples(self, tar: tarfile.TarFile, start: int) -> Iterator[_Sample]:
        wanted = {self._caption_key, "json"}
        sample, number = None, 0
        for member in tar:
            if not member.isfile():
                continue
            folder, base = posixpath.split(member.name)
            first, _, suffix = base.partition(".")
            if not first:  # a hidden file: its name begins with the dot
                first, _, suffix = base[1:].partition(".")
                first = f".{first}"
            stem, suffix = posixpath.join(folder, first), suffix.lower()
            if sample is None or sample.stem != stem:
                if sample is not None:
                    yield sample
                    number += 1
                sample = _Sample(stem)
            # Read where met: going back would decompress a gzipped tar from its beginning again.
            if number >= start and (
                suffix in wanted or _last(suffix) in self._image_keys or suffix in self._image_keys
            ):
                opened = tar.extractfile(member)
                data = b"" if opened is None else opened.read()
                if len(data) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
                sample.members[suffix] = data
            else:
                sample.members[suffix] = b""
        if sample is not None:
            yield sample

    def _item(self, name: str, sample: _Sample) -> ImageItem | Skipped:
        key = f"{name}/{to_text(sample.stem)}"
        images = [suffix for suffix in sample.members if suffix in self._image_keys]
        if not images:  # "photo.v2.jpg": webdataset takes "v2.jpg" for the extension
            images = [suffix for suffix in sample.members if _last(suffix) in self._image_keys]
            if len(images) > 1:
                return Skipped(
                    key,
                    f"The sample has several images ({', '.join(map(readable, images))}); name one with wds_image_key.",
                )
        if not images:
            has = ", ".join(sorted(map(readable, sample.members)))
            return Skipped(key, f"The sample has no image but {has or 'nothing'}; check wds_image_key.")
        meta = metadata_of(sample.members["json"]) if "json" in sample.members else {}
        written = sample.members.get(self._caption_key)
        caption = caption_of(written) if written is not None else clean_caption(meta.get("meta.caption"))
        if meta.get("meta.caption") == caption:
            meta.pop("meta.caption", None)
        return ImageItem(key, sample.members[images[0]], caption, meta)


def _last(suffix: str) -> str:
    return suffix.rpartition(".")[2]


def _end_problem(tar: tarfile.TarFile) -> str:
    """Why the members stopped coming, unless it is a tar's proper end: tarfile itself takes any junk for the end."""
    file: BinaryIO = tar.fileobj  # type: ignore[assignment]
    file.seek(tar.offset)
    block = file.read(BLOCK)
    if len(block) == BLOCK and not any(block):
        return ""
    return "its end is missing" if len(block) < BLOCK else "what follows is no tar header"
