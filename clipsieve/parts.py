"""What commands are given instead of making it themselves, so that tests can give something else."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import typer

from clipsieve.image_memory import ImageMemory
from clipsieve.opening import load_detector
from clipsieve.path_text import json_text
from clipsieve.progress import Progress


@dataclass(frozen=True, slots=True)
class Parts:
    """The replaceable parts of the command line.

    load           (name, *, device="auto", precision="auto") -> an embedder of images, of texts too if the model is
    load_detector  (name, *, device="auto", precision="auto", regions=None) -> a detector; regions of an image at most
    load_texts     as `load` -> an embedder of texts, of images too if the model is; by default `load`
    image_memory   from which all decoding reserves; the models' is the same
    """

    load: Callable[..., Any]
    load_detector: Callable[..., Any] = load_detector
    load_texts: Callable[..., Any] | None = None
    image_memory: ImageMemory = field(default_factory=ImageMemory)


def progress(what: str, unit: str) -> Progress:
    """Progress on stderr."""
    return Progress(what, unit, sys.stderr)


@contextlib.contextmanager
def stages(unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """A function (stage, done, total) that shows one line after another, for work in several stages."""
    shown: dict[str, Progress] = {}
    with contextlib.ExitStack() as lines:

        def update(stage: str, done: int, total: int) -> None:
            if stage not in shown:
                lines.close()
                shown[stage] = lines.enter_context(progress(stage, unit))
            shown[stage].update(done, total)

        yield update


def print_json(value: object) -> None:
    """One JSON object on stdout: what --json prints."""
    typer.echo(json_text(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)))
