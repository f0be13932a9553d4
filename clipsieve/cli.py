"""The command line, and with it the composition root: real objects are made here and in what this imports.

    clipsieve inference photos photos.clip
    clipsieve index photos.clip
    clipsieve search photos.clip "red bus" --not "red truck"

Nothing heavy is imported before a command needs it, so that `clipsieve --help` is there at once.
"""

import codecs
import io
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

import clipsieve
from clipsieve.command import Command, Group
from clipsieve.commands_ask import filter_, search
from clipsieve.commands_back import back
from clipsieve.commands_batch import end2end, inference_worker
from clipsieve.commands_build import index, inference, info
from clipsieve.commands_change import add, check, compact, remove, restore
from clipsieve.commands_demo import demo
from clipsieve.commands_detect import detect
from clipsieve.commands_embed import embed_server, export_onnx
from clipsieve.commands_evaluate import evaluate
from clipsieve.commands_front import front
from clipsieve.commands_label import label
from clipsieve.commands_load import load_test
from clipsieve.commands_move import export, import_
from clipsieve.commands_regions import regions
from clipsieve.commands_watch import watch
from clipsieve.image_memory import ImageMemory
from clipsieve.opening import load_detector, load_model, load_text_model
from clipsieve.parts import Parts
from clipsieve.path_text import spell_out

app = typer.Typer(
    name="clipsieve",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "inference": inference,
    "inference.worker": inference_worker,
    "regions": regions,
    "index": index,
    "end2end": end2end,
    "search": search,
    "filter": filter_,
    "label": label,
    "detect": detect,
    "evaluate": evaluate,
    "back": back,
    "front": front,
    "embed-server": embed_server,
    "load-test": load_test,
    "export-onnx": export_onnx,
    "add": add,
    "remove": remove,
    "restore": restore,
    "watch": watch,
    "compact": compact,
    "check": check,
    "info": info,
    "import": import_,
    "export": export,
}
for name, command in COMMANDS.items():
    app.command(name, cls=Command)(command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"clipsieve {clipsieve.__version__}")
        raise typer.Exit()


@app.callback()
def _clipsieve(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Ask an image collection for classes given by positive and negative examples.

    Each command shows an example with --help. The options of clip-retrieval are understood too.
    """


def main() -> None:
    """The console script."""
    # Libraries log each of their retries, some twice. What matters of it comes back as an error, which is said once.
    logging.disable(logging.ERROR)
    codecs.register_error("clipsieve", spell_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files are shown on every terminal
            stream.reconfigure(errors="clipsieve")
    memory = ImageMemory()
    models = partial(load_model, image_memory=memory), partial(load_detector, image_memory=memory)
    app(obj=Parts(*models, load_text_model, memory))
