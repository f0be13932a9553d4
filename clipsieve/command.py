"""What every command of ours does beside its work: it takes the peers' spellings, and it fails in one sentence.

Exit codes: 0 done, 1 failed, 2 misused, 130 interrupted. An expected failure (a ClipsieveError or an OSError) is a
sentence on stderr; anything else is a bug and keeps its traceback.
"""

import errno
import os
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from clipsieve.errors import ClipsieveError, CollectionChanged, InputError, lacks_memory, quoted, without_middle
from clipsieve.peer_flags import Grammar, rewrite

STOPPED = {
    "inference": "What was embedded is kept; the same command goes on from there.",
    "inference.worker": "What was embedded is kept; the same command goes on from there.",
    "end2end": "What was embedded is kept; the same command goes on from there.",
    "add": "What was embedded is kept; the same command goes on from there.",
    "watch": "What was embedded is kept; the same command goes on from there.",
    "import": "What was imported is kept; the same command goes on from there.",
    "label": "What was labelled is kept; the same command goes on from there.",
    "regions": "Shards that were looked through are kept; the same command goes on with the next.",
    "detect": "A file that was begun is gone; a folder holds whole files, but not all of them.",
    "demo": "What was made is kept; the same command goes on from there.",
}
"""What to tell somebody who interrupts a command. The others leave nothing half done."""

ASKING = ("search", "info")
"""Commands that are over soon and show nothing before they have all of it."""
AGAIN = 10

_ROOM = "make room there and run the same command again"
_RIGHTS = "change its permissions, or be somebody who has them"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "let this process write longer files, or write to another disk",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "mount it for writing, or write to another disk",
}
"""What to do about it."""


NO_MEMORY = (
    "There is not enough memory; give this process more, or less to do at once: a smaller --batch_size or -k, fewer "
    "--num_prepro_workers, smaller images."
)


class Group(TyperGroup):
    """The commands by name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is asked for, of which an error repeats the beginning where it is long."""
        name, *rest = args
        return super().resolve_command(ctx, [quoted(name, ""), *rest])


class Command(TyperCommand):
    """A command of the app."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrite the peers' spellings, then parse."""
        try:
            args, notes = rewrite(args, self.grammar())
        except InputError as error:
            fail(str(error), misused=True)
        for note in notes:
            say(f"Note: {note}")
        try:
            return super().parse_args(ctx, args)
        except InputError as error:  # of an option's callback
            fail(str(error), misused=True)

    def invoke(self, ctx: Any) -> Any:
        """Do the work. A failure that was foreseen ends in a sentence."""
        try:
            return self._invoke(ctx)
        except KeyboardInterrupt:
            say(f"Stopped. {STOPPED.get(self.name or '', 'Nothing was left half done.')}")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # `| head` has seen enough; typer ends quietly
            raise
        except ClipsieveError as error:
            fail(str(error), misused=isinstance(error, InputError))
        except OSError as error:
            fail(NO_MEMORY if lacks_memory(error) else sentence(error))
        except (MemoryError, RuntimeError, ImportError) as error:
            if not lacks_memory(error):
                raise
            fail(NO_MEMORY)

    def _invoke(self, ctx: Any) -> Any:
        for _ in range(AGAIN if self.name in ASKING else 0):
            try:
                return super().invoke(ctx)
            except CollectionChanged:  # somebody compacted the folder between its opening and the answer
                continue
        return super().invoke(ctx)

    def grammar(self) -> Grammar:
        """The options and arguments that this command declares."""
        options = {"--help": False}
        for parameter in self.params:
            if parameter.param_type_name == "option":
                takes_value = not getattr(parameter, "is_flag", False)
                options |= dict.fromkeys([*parameter.opts, *parameter.secondary_opts], takes_value)
        arguments = tuple(p.name or "" for p in self.params if p.param_type_name == "argument")
        return Grammar(self.name or "", options, arguments)


def say(text: str) -> None:
    """A line on stderr."""
    typer.echo(text, err=True)


def fail(text: str, misused: bool = False) -> NoReturn:
    """End the command with a sentence on stderr."""
    say(f"Error: {without_middle(text)}")
    raise typer.Exit(2 if misused else 1)


def sentence(error: OSError) -> str:
    """What the operating system said, without its number, and what to do about it where that is known."""
    if error.errno is None or error.strerror is None:
        return str(error)
    file = error.filename2 or error.filename  # of two the second is the one to be written
    said = error.strerror
    if isinstance(file, str | bytes):
        named = os.fsdecode(file)
        named = quoted(named, "") if error.errno == errno.ENAMETOOLONG else named
        said = f"{named}: {os.strerror(error.errno)}"
    return f"{said}; {_ADVICE[error.errno]}." if error.errno in _ADVICE else f"{said}."
