import inspect
import pickle
import re

import pytest

from clipsieve import errors


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
