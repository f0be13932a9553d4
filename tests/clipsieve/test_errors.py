import errno
import inspect
import os
import pickle
import re
from pathlib import Path

import pytest
import typer

from clipsieve import errors
from clipsieve.command import Command, sentence
from clipsieve.errors import InputError, quoted


def classes():
    return [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.ClipsieveError)]


def test_docstring_draws_the_tree_as_it_is():
    drawn: dict[str, set[str | None]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+)(?: \((\w+)\))?(?:  |$)", line)
        if match:
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            drawn[match[2]] = {above[depth - 1] if depth else "Exception", match[3]} - {None}
    assert drawn == {c.__name__: {base.__name__ for base in c.__bases__} for c in classes()}


@pytest.mark.parametrize("error", classes())
def test_str_is_the_sentence(error):
    assert str(error("No such id: 7.")) == "No such id: 7."


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.ModelMismatch, ValueError),
        (errors.NotFound, KeyError),
        (errors.ModelUnavailable, OSError),
        (errors.MissingExtra, ImportError),
        (errors.Overloaded, BlockingIOError),
        (errors.TimedOut, TimeoutError),
        (errors.Closed, RuntimeError),
        (errors.StoreUnavailable, ConnectionError),
        (errors.ServiceUnavailable, ConnectionError),
        (errors.CollectionMissing, FileNotFoundError),
        (errors.CollectionDamaged, ValueError),
        (errors.CollectionLocked, BlockingIOError),
        (errors.CollectionReadOnly, PermissionError),
    ],
)
def test_is_the_builtin_a_caller_would_catch(error, builtin):
    with pytest.raises(builtin):
        raise error("sentence")


def test_overloaded_says_when_to_come_again_and_keeps_saying_it():
    error = errors.Overloaded("Come later.", retry_after=2.5)
    assert pickle.loads(pickle.dumps(error)).retry_after == error.retry_after == 2.5
    assert str(pickle.loads(pickle.dumps(error))) == "Come later."


def test_what_is_given_comes_back_short():
    assert [quoted(given) for given in ("it's", None, ["a"], 7)] == [repr("it's"), "None", "['a']", "7"]
    assert quoted("x" * 300) == f"'{'x' * 199}... (300 letters)"
    assert quoted("no such column: a", "") == "no such column: a"
    long = str(InputError("The start. " + "x" * 10_000 + " The end."))
    assert len(long) < 2_000
    assert long.startswith("The start.")
    assert long.endswith("The end.")


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "x"), RuntimeError("can't start new thread")])
def test_a_command_without_memory_ends_in_a_sentence(error, capsys):
    def work():
        raise error

    app = typer.Typer()
    app.command(cls=Command)(work)
    with pytest.raises(SystemExit) as ended:
        app([])
    assert ended.value.code == 1
    assert "Error: There is not enough memory" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a" * 5_000, os.fsdecode(b"\xff") * 5_000])
def test_a_name_that_is_too_long_is_repeated_by_its_beginning(name):
    with pytest.raises(OSError, match="too long") as raised:
        Path(name).read_text()
    assert len(sentence(raised.value)) < 500
