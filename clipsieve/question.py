"""A question from words of the command line: texts, image files, or a class of a set in a file."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clipsieve import classset
from clipsieve.checks import check_said
from clipsieve.errors import InputError, NotFound, quoted
from clipsieve.path_text import given_path, to_text
from clipsieve.types import Calibration, ClassSet, Example, MetaClass, content_hash

_G = TypeVar("_G")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked.

    classes  the one class, with its calibration and templates; of `read_asked` all that the set has
    uploads  content hash -> bytes, of the images among its examples
    names    content hash -> what the user called the image
    notes    what was decided on the user's behalf, to be told
    """

    classes: ClassSet
    uploads: Mapping[str, bytes] = field(default_factory=dict)
    names: Mapping[int | str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def question(self) -> MetaClass:
        """The class that was asked for."""
        return self.classes.classes[0]


def ask(
    texts: Sequence[str] = (),
    not_texts: Sequence[str] = (),
    images: Sequence[Path] = (),
    not_images: Sequence[Path] = (),
    *,
    threshold: float | None = None,
    calibration: Calibration | None = None,
) -> Asked:
    """A question of texts and image files, positive and negative.

    calibration  None chooses: "background" where texts and images meet, for an image's cosines would drown every
                 text's; "none" where they do not

    InputError without a positive example, or for an image that cannot be read.
    """
    uploads: dict[str, bytes] = {}
    names: dict[int | str, str] = {}

    def upload(path: Path) -> Example:
        data = read_image(path)
        digest = content_hash(data)
        uploads[digest] = data
        names[digest] = to_text(given_path(path))
        return Example(image=digest)

    for where, given in (("The text", texts), ("The text of --not", not_texts)):
        for text in given:
            check_said(where, text)
    positive = [*(Example(text=t) for t in texts), *map(upload, images)]
    negative = [*(Example(text=t) for t in not_texts), *map(upload, not_images)]
    if not positive:
        raise InputError("Nothing was asked for; give a text, --image FILE or --set FILE.")
    notes = []
    if calibration is None:
        mixed = len({e.text is None for e in positive + negative}) == 2
        calibration = "background" if mixed else "none"
        if mixed:
            notes.append(
                "Texts and images are compared by how unusual their likeness is in this collection "
                "(--calibration background): scores, and --threshold, are on that scale and not cosines."
            )
    if calibration == "none" and threshold is not None and threshold > 1:
        notes.append(
            f"No cosine reaches --threshold {threshold:g}; a line from the page is on the scale of "
            "--calibration background."
        )
    name = " or ".join([*texts, *(to_text(p.name) for p in images)])
    question = MetaClass(name, positive, negative, threshold)
    return Asked(ClassSet([question], calibration), uploads, names, tuple(notes))


def ask_set(
    path: Path, name: str | None, *, threshold: float | None = None, calibration: Calibration | None = None
) -> Asked:
    """One class of a set in a file: the one named, or the only one.

    threshold, calibration  override the set's own
    """
    asked = read_asked(path)
    classes = asked.classes
    names = [c.name for c in classes.classes]
    if name is None and len(names) > 1:
        raise InputError(f"{path} holds {len(names)} classes; choose one with --class: {', '.join(names)}.")
    if name is not None and name not in names:
        raise NotFound(f"{path} has no class {quoted(name)}; it has {', '.join(names)}.")
    chosen = classes.classes[0 if name is None else names.index(name)]
    if threshold is not None:
        chosen = MetaClass(chosen.name, chosen.positive, chosen.negative, threshold)
    one = ClassSet([chosen], calibration or classes.calibration, classes.templates, classes.nms, classes.mode)
    return Asked(one, asked.uploads, asked.names)


def read_set(path: Path) -> ClassSet:
    """The class set in a file, in our JSON or DirectAI's. InputError names the file and what is wrong in it."""
    return _parsed(path, classset.loads, path.read_bytes())


def read_asked(path: Path) -> Asked:
    """The same with the image files that it names, {"image": "crop.png"}: their paths begin at the file's folder."""
    value = _parsed(path, json.loads, path.read_bytes())
    uploads: dict[str, bytes] = {}
    names: dict[int | str, str] = {}
    for example in _examples(value):
        name = example.get("image")
        if isinstance(name, str) and not re.fullmatch(r"[0-9]{1,19}|[0-9a-f]{64}", name):
            data = _parsed(path, read_image, path.parent / name)
            digest = content_hash(data)
            example["image"], uploads[digest], names[digest] = digest, data, name
    return Asked(_parsed(path, classset.from_json, value), uploads, names)


def _examples(value: Any) -> Iterator[dict[str, Any]]:
    """What stands in a set, as JSON has it, where an example that is an image may stand."""
    classes = value.get("classes") if isinstance(value, dict) else None
    for one in classes if isinstance(classes, list) else []:
        for side in ("positive", "negative"):
            examples = one.get(side) if isinstance(one, dict) else None
            yield from (e for e in (examples if isinstance(examples, list) else []) if isinstance(e, dict))


def _parsed(path: Path, parse: Callable[[_G], _T], given: _G) -> _T:
    try:
        return parse(given)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: The class set is not JSON: {error}.") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_image(path: Path) -> bytes:
    """The bytes of an image file given as an example, by its path or by the text that answers show of it."""
    there = Path(given_path(path))
    if not there.is_file():
        raise InputError(f"The image {to_text(path)} is not there; check the path.")
    return there.read_bytes()
