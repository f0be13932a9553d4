"""`demo`: the whole way from images to answers, on drawn scenes or on the user's own folder."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from clipsieve import options
from clipsieve.output_path import refuse_address
from clipsieve.parts import Parts, print_json


def demo(
    ctx: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where everything goes.", callback=refuse_address)
    ] = Path("demo"),
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Your own images, instead of drawn scenes.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=24, max=9999, help="How many scenes to draw.")] = 600,
    model: Annotated[
        str, typer.Option("--model", help="Another model than mini, the demo model; for your own images.")
    ] = "mini",
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Make a small collection, ask it three questions, and write a contact sheet. Downloads nothing.

    Example: clipsieve demo

    Example: clipsieve demo --images photos --out my-demo
    """
    from rich.console import Console

    from clipsieve.demo import run_demo

    parts: Parts = ctx.obj
    console = None if json else Console(width=None if sys.stdout.isatty() else 160)
    done = run_demo(out, images, lambda: parts.load(model, device=device), count=count, console=console)
    if json:
        print_json(done)
