"""Webdataset tars of samples: an image, its caption, its metadata. `tar_samples` says which members are one sample."""

import copy
import lzma
import tarfile
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Self

from clipsieve.inference.decode import image_extensions
from clipsieve.inference.parts import Items, narrowed, read_parts, states
from clipsieve.inference.paths import Place, readable, relative_names
from clipsieve.inference.sidecar import (
    caption_of,
    flatten,
    json_object,
    metadata_of,
    text_of,
    unique,
    with_caption,
)
from clipsieve.path_text import to_text
from clipsieve.tar_samples import Sample, Samples, Suffixes, split
from clipsieve.types import FileState, ImageItem, Skipped

BLOCK = 512
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


class TarSource:
    """See `reader.Source`. The key of an image is `name.tar/sample`.

    Texts and JSON beside the caption and the first JSON are metadata under their suffixes.

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
        names: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.partition = partition
        self.partitions = partitions
        self._tars = list(zip(names or relative_names(tars), tars, strict=True))[partition::partitions]
        known = frozenset(ext[1:] for ext in image_extensions())
        chosen = None if image_key is None else frozenset(p.strip().lower().lstrip(".") for p in image_key.split(";"))
        self._suffixes = Suffixes(chosen or known, caption_key.lower().lstrip("."), chosen is not None)

    @property
    def total(self) -> None:
        """Not known: a tar has no table of contents."""
        return

    def items(self, start: int = 0, pass_over: object = None) -> Items:
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
            samples, links = Samples[bytes](self._suffixes), list[tarfile.TarInfo]()
            number = 0
            try:
                for sample in self._samples(tar, samples, links, start):
                    if number >= start:
                        yield self._item(name, sample)
                    number += 1
                problem = _end_problem(tar)
            except _DAMAGE as error:
                problem = f"it is damaged or cut short ({error})"
                for sample in samples.finish(damaged=True):
                    if number >= start:
                        yield self._item(name, sample)
                    number += 1
        for link in links:
            if number >= start:
                yield Skipped(
                    f"{name}/{to_text(link.name)}",
                    "It is a link in the tar, and links are not followed; make the tar with --hard-dereference and "
                    "--dereference.",
                )
            number += 1
        if problem:
            if number >= start:
                yield Skipped(
                    name, f"The tar could not be read past its sample {number}: {problem}; restore it from a copy."
                )
            number += 1
        return number

    def _samples(
        self, tar: tarfile.TarFile, samples: Samples[bytes], links: list[tarfile.TarInfo], start: int
    ) -> Iterator[Sample[bytes]]:
        """The samples in order; images that are links to other members or files go to `links`."""
        for member in tar:
            if not member.isfile():
                if (member.islnk() or member.issym()) and self._suffixes.is_image(split(member.name)[1].lower()):
                    links.append(member)
                continue
            yield from samples.turn(member.name)
            data = b""
            # Read where met: going back would decompress a gzipped tar from its beginning again.
            if samples.reached >= start and self._suffixes.is_read(split(member.name)[1].lower()):
                opened = tar.extractfile(member)
                data = b"" if opened is None else opened.read()
                if len(data) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
            yield from samples.add(member.name, member.size, data)
        yield from samples.finish()

    def _item(self, name: str, sample: Sample[bytes]) -> ImageItem | Skipped:
        key = f"{name}/{to_text(sample.name)}"
        image = sample.image(self._suffixes)
        if image is None:
            has = ", ".join(sorted(map(readable, sample.members)))
            return Skipped(
                key,
                f"The sample has no image but {has or 'nothing'}; check wds_image_key, and that its members follow "
                "each other.",
            )
        captions = sample.beside(image, self._suffixes.caption)
        jsons = [suffix for suffix in sample.beside(image, "json") if suffix not in captions]
        fields, caption, meta = dict[str, Any](), None, dict[str, Any]()
        if jsons:
            try:
                fields = json_object(sample.members[jsons[0]])
            except (ValueError, RecursionError):
                meta = metadata_of(sample.members[jsons[0]])  # which says what is wrong
        if captions:
            caption = caption_of(sample.members[captions[0]])
            meta |= flatten(fields)
        elif not meta:
            written = fields.pop("caption", None)
            caption, meta = with_caption("caption", written, fields)
        if caption is not None and meta.get("meta.caption") == caption:
            meta.pop("meta.caption")
        further = [(suffix, text_of(sample.members[suffix]).strip()) for suffix in captions[1:]]
        for suffix in jsons[1:]:
            stem = suffix.removesuffix(".json")
            further += [(f"{stem}.{field}", value) for field, value in metadata_of(sample.members[suffix]).items()]
        if further:
            pairs = [*meta.items(), *((readable(n), readable(v) if isinstance(v, str) else v) for n, v in further)]
            meta = dict(zip(unique(n for n, _ in pairs), (v for _, v in pairs), strict=True))
        return ImageItem(key, sample.members[image], caption, meta)


def _end_problem(tar: tarfile.TarFile) -> str:
    """Why the members stopped coming, unless it is a tar's proper end: tarfile itself takes any junk for the end."""
    file: BinaryIO = tar.fileobj  # type: ignore[assignment]
    file.seek(tar.offset)
    block = file.read(BLOCK)
    if len(block) == BLOCK and not any(block):
        return ""
    return "its end is missing" if len(block) < BLOCK else "what follows is no tar header"
