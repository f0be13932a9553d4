"""What commands are given instead of making it themselves, so that tests can give something else."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from clipsieve.progress import Progress


@dataclass(frozen=True, slots=True)
class Parts:
    """The replaceable parts of the command line.

    load  (name, *, device="auto", precision="auto") -> an embedder of images, and of texts where the model has them
    """

    load: Callable[..., Any]


def progress(what: str, unit: str) -> Progress:
    """Progress on stderr."""
    return Progress(what, unit, sys.stderr)


def print_json(value: object) -> None:
    """One JSON object on stdout: what --json prints."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False))
