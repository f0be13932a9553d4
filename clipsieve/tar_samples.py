"""Which members of a webdataset tar belong together. Its readers and those who find a member again follow this.

Members that follow each other and have one name up to its first dot, in one folder, are a group. If it holds just one
image and no suffix twice, it is a sample, as webdataset has it: `s1.input.jpg` and `s1.outputs.txt`. Else each member
belongs to the sample of its name without the last suffix: `2022.05.01.jpg` and `2022.05.02.jpg` are two.
"""

import posixpath
from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Generic, TypeVar

HELD_BYTES = 64 * 2**20
"""Members of a group that are waited with for others of their samples; beyond, the sample begun first is complete."""
HELD_SAMPLES = 4096

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Suffixes:
    """Which members are images, captions and JSON, by their suffixes: lower case, without a leading dot.

    exact  whether the user named the images' suffixes: then a member with exactly one of them is preferred to those
           that only end in one
    """

    images: frozenset[str]
    caption: str = "txt"
    exact: bool = False

    def is_image(self, suffix: str) -> bool:
        """Whether a member with this suffix, all after the name's first dot, is an image."""
        return _ends(suffix, self.images) is not None

    def is_read(self, suffix: str) -> bool:
        """Whether anything is made of such a member."""
        return _ends(suffix, (self.caption, "json")) is not None or self.is_image(suffix)

    def last(self, suffix: str) -> str:
        """What of the suffix is no part of the sample's name, should it be one of its own."""
        known = _ends(suffix, self.images) or _ends(suffix, (self.caption, "json"))
        return known or suffix.rpartition(".")[2]


@dataclass(slots=True)
class Sample(Generic[T]):
    """A sample's name, with its folder, and its members: suffix -> content."""

    name: str
    members: dict[str, T] = field(default_factory=dict)

    def image(self, suffixes: Suffixes) -> str | None:
        """The suffix of its image; None if it has none."""
        images = [suffix for suffix in self.members if suffixes.is_image(suffix)]
        exact = [suffix for suffix in images if suffix in suffixes.images]
        return next(iter(exact if suffixes.exact and exact else images), None)

    def beside(self, image: str | None, ending: str) -> list[str]:
        """Suffixes of the members that end so: first what is named so alone, then what is named as the image is."""
        found = [suffix for suffix in self.members if _ends(suffix, (ending,)) is not None]
        stem = "" if image is None else image.rpartition(".")[0]
        order = {ending: 0, f"{stem}.{ending}": 1}
        return sorted(found, key=lambda suffix: order.get(suffix, 2))


class Samples(Generic[T]):
    """Takes the members of one tar in their order and gives its samples, holding no more than HELD_BYTES back.

    given  how many samples came out so far
    """

    def __init__(self, suffixes: Suffixes) -> None:
        self._suffixes = suffixes
        self.given = 0
        self._names: set[str] = set()
        self._group: str | None = None
        self._whole: list[tuple[str, int, T]] = []  # of a group that may be one sample: suffix as written, bytes
        self._parts: OrderedDict[str, tuple[Sample[T], int]] | None = None  # of one that is several, and their bytes
        self._held = 0  # bytes in both
        self._newest = ""

    @property
    def reached(self) -> int:
        """The greatest number that the sample of the next member may have, counted from 0."""
        return self.given + (len(self._parts) if self._parts is not None else self._images() if self._whole else 0)

    def turn(self, name: str) -> list[Sample[T]]:
        """What is complete once a member of this name comes: to be asked before `add`."""
        return [] if split(name)[0] == self._group else self.finish()

    def add(self, name: str, size: int, content: T) -> list[Sample[T]]:
        """What is complete with a member of this name and size in bytes."""
        self._group, suffix = split(name)
        lower = suffix.lower()
        size = size if self._suffixes.is_read(lower) else 0
        if self._parts is not None:
            return self._given(self._put(suffix, size, content))
        again = any(lower == other.lower() for other, _, _ in self._whole)
        self._whole.append((suffix, size, content))
        self._held += size
        many = self._images() > 1 and (not self._suffixes.exact or self._held > HELD_BYTES)
        return self._given(self._split()) if again or many else []

    def finish(self, damaged: bool = False) -> list[Sample[T]]:
        """What is left, at the end of a group or of the tar.

        damaged  the tar cannot be read on: without the sample that may lack members
        """
        done: list[Sample[T]] = []
        if self._whole and not damaged:
            sample = Sample(str(self._group), {suffix.lower(): content for suffix, _, content in self._whole})
            exact = [suffix for suffix in sample.members if suffix in self._suffixes.images]
            images = exact if self._suffixes.exact and exact else sample.members
            count = sum(map(self._suffixes.is_image, images))
            again = count > 0 and sample.name in self._names
            done = self._split() if count > 1 or again else [sample]
        if self._parts is not None:
            done += [sample for sample, _ in self._parts.values() if not (damaged and sample.name == self._newest)]
        self._group, self._whole, self._parts, self._held = None, [], None, 0
        return self._given(done)

    def _images(self) -> int:
        return sum(self._suffixes.is_image(suffix.lower()) for suffix, _, _ in self._whole)

    def _split(self) -> list[Sample[T]]:
        waiting, self._whole, self._parts, self._held = self._whole, [], OrderedDict(), 0
        return [sample for member in waiting for sample in self._put(*member)]

    def _put(self, suffix: str, size: int, content: T) -> list[Sample[T]]:
        assert self._parts is not None
        last = self._suffixes.last(suffix.lower())
        rest = suffix[: len(suffix) - len(last)].rstrip(".")
        name = f"{self._group}.{rest}" if rest else str(self._group)
        done = []
        if name in self._parts and last in self._parts[name][0].members:
            done.append(self._pop(name))
        sample, held = self._parts.get(name, (Sample[T](name), 0))
        sample.members[last] = content
        self._parts[name] = (sample, held + size)
        self._held += size
        self._newest = name
        while len(self._parts) > 1 and (len(self._parts) > HELD_SAMPLES or self._held > HELD_BYTES):
            done.append(self._pop(next(iter(self._parts))))
        return done

    def _pop(self, name: str) -> Sample[T]:
        assert self._parts is not None
        sample, held = self._parts.pop(name)
        self._held -= held
        return sample

    def _given(self, done: list[Sample[T]]) -> list[Sample[T]]:
        done = [one for sample in done for one in self._apart(sample)]
        self.given += len(done)
        self._names.update(sample.name for sample in done if sample.image(self._suffixes) is not None)
        return done

    def _apart(self, sample: Sample[T]) -> list[Sample[T]]:
        """The sample with its first image, and each further one as a sample of the same name, so that it is counted."""
        images = [] if self._suffixes.exact else list(filter(self._suffixes.is_image, sample.members))
        return [sample, *(Sample(sample.name, {suffix: sample.members.pop(suffix)}) for suffix in images[1:])]


def split(name: str) -> tuple[str, str]:
    """A member's name up to the first dot of its file name, with its folder, and its suffix."""
    folder, base = posixpath.split(name)
    hidden = "." if base.startswith(".") else ""
    first, _, suffix = base[len(hidden) :].partition(".")
    return posixpath.join(folder, hidden + first), suffix


def _ends(suffix: str, known: Container[str]) -> str | None:
    """The longest of `known` that the suffix is, or ends in after a dot."""
    start = 0
    while suffix[start:] not in known:
        dot = suffix.find(".", start)
        if dot < 0:
            return None
        start = dot + 1
    return suffix[start:]
