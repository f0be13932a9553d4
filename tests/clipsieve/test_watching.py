"""What a round of `watch` does, told by what it sees; no clock ticks here and nobody waits."""

import pytest

from clipsieve.errors import CollectionLocked, InputError
from clipsieve.watching import Memory, Plan, Seen, Watcher

NOW = 1_000_000.0


def file(size=10, age=100.0):
    return size, NOW - age


def plan(memory, files, now=NOW, commit=1):
    return memory.plan(Seen(files, commit), now)


def carry_out(memory, files, now=NOW, commit=1, held=None):
    made = plan(memory, files, now, commit)
    memory.done(made, Seen(files, commit), commit, held)
    return made


def test_the_first_round_reads_all_and_a_second_one_does_nothing():
    memory = Memory()
    files = {"a": file(), "b": file(), "address": "etag 1"}
    assert carry_out(memory, files) == Plan(frozenset(files), frozenset(), missing=True)
    assert plan(memory, files).nothing


def test_what_is_new_or_changed_is_read_and_what_is_gone_looked_for():
    memory = Memory()
    carry_out(memory, {"a": file(), "b": file(), "c": "etag 1"})
    files = {"a": file(size=11), "c": "etag 2", "d": file()}
    assert carry_out(memory, files) == Plan(frozenset("acd"), frozenset(), missing=True)
    assert plan(memory, files).nothing
    assert carry_out(memory, {**files, "b": file()}) == Plan(frozenset("b"), frozenset(), missing=False)


def test_a_file_that_is_written_to_waits_until_it_rests():
    memory = Memory()
    carry_out(memory, {})
    assert plan(memory, {"a": (5, NOW - 1)}) == Plan(frozenset(), frozenset("a"), missing=False)
    assert plan(memory, {"a": (9, NOW + 9)}, NOW + 10).waiting == {"a"}
    assert plan(memory, {"a": (9, NOW + 9)}, NOW + 11).read == {"a"}


def test_a_file_from_a_clock_that_is_ahead_is_read_once_two_looks_agree():
    memory = Memory()
    carry_out(memory, {})
    assert plan(memory, {"a": (5, NOW + 3600)}).waiting == {"a"}
    assert plan(memory, {"a": (6, NOW + 3601)}, NOW + 1).waiting == {"a"}
    assert plan(memory, {"a": (6, NOW + 3601)}, NOW + 2.5).waiting == {"a"}
    assert plan(memory, {"a": (6, NOW + 3601)}, NOW + 3).read == {"a"}


def test_what_could_not_be_carried_out_is_planned_again():
    memory = Memory()
    carry_out(memory, {"a": file()})
    assert plan(memory, {"b": file()}) == plan(memory, {"b": file()}) == Plan(frozenset("b"), frozenset(), missing=True)


def test_after_a_change_by_somebody_else_all_is_looked_at():
    memory = Memory()
    carry_out(memory, {"a": file()})
    assert carry_out(memory, {"a": file()}, commit=2) == Plan(frozenset("a"), frozenset(), missing=True)
    assert plan(memory, {"a": file()}, commit=2).nothing


def test_while_it_is_held_back_only_a_change_makes_it_try_and_then_it_takes_all():
    memory = Memory()
    carry_out(memory, {"a": file(), "b": file()})
    assert carry_out(memory, {}, held="a disk").missing
    assert plan(memory, {}).nothing
    assert carry_out(memory, {"stranger": file()}, held="a disk").missing
    assert plan(memory, {"stranger": file()}).nothing
    back = {"a": file(), "b": file(), "stranger": file()}
    assert carry_out(memory, back).missing
    assert carry_out(memory, back).read == set(back)  # the stranger was passed over
    assert plan(memory, back).nothing


def test_held_back_from_the_first_round_on_it_tries_again_when_a_file_comes():
    memory = Memory()
    assert carry_out(memory, {}, held="a disk").missing
    assert plan(memory, {}).nothing
    assert plan(memory, {"a": file()}) == Plan(frozenset("a"), frozenset(), missing=True)


class Enough(Exception):
    pass


def rounds(looks, act=lambda plan: (1, None)):
    """What a watcher notes while it looks as often as there are `looks`, each either files or an error."""
    left, noted = list(looks), list[str]()

    def look():
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return Seen(one, 1)

    def wait():
        if not left:
            raise Enough

    with pytest.raises(Enough):
        Watcher(look, act, noted.append, lambda: NOW).keep(wait)
    return noted


def test_an_input_that_vanishes_is_said_once_and_waited_for():
    acted = []

    def act(plan):
        acted.append(plan)
        return 1, None

    gone = InputError("The input 'x' does not exist; check the path.")
    unwell = OSError(5, "Input/output error", "x")
    noted = rounds([{"a": file()}, gone, gone, {"a": file()}, gone, unwell], act)
    assert noted == [str(gone), str(gone), "x: Input/output error."]
    assert len(acted) == 1


def test_an_input_that_was_never_there_is_an_error():
    with pytest.raises(InputError, match="nowhere"):
        rounds([InputError("nowhere")])


def test_another_writer_is_named_once_and_waited_for():
    acted = []

    def act(plan):
        acted.append(plan)
        if len(acted) < 3:
            raise CollectionLocked("c is being written by process 7.")
        return 1, None

    assert rounds([{"a": file()}] * 5, act) == ["c is being written by process 7."]
    assert acted == [Plan(frozenset("a"), frozenset(), missing=True)] * 3


def test_what_is_held_back_is_said_once():
    assert rounds([{}, {}, {}], lambda plan: (1, "None of the files is there.")) == ["None of the files is there."]
