"""The thinking of `clipsieve watch`: which files of an input are to be read in a round, and what to do if none can be.

What looks, acts and waits is passed in, and so is the clock.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from clipsieve.command import sentence
from clipsieve.errors import ClipsieveError, CollectionLocked, InputError

if TYPE_CHECKING:
    from clipsieve.types import FileState

REST_SECONDS = 2.0
"""A file that nobody wrote to for so long is taken for whole."""


class Seen(NamedTuple):
    """One look.

    files   the input's files as they are now: path -> state
    commit  changes whenever the collection does
    """

    files: Mapping[str, "FileState"]
    commit: object


@dataclass(frozen=True, slots=True)
class Plan:
    """What one round is to do.

    read     paths of files that are new or changed, and at rest
    waiting  paths of those that are still being written to
    missing  whether to look for files that have gone
    """

    read: frozenset[str]
    waiting: frozenset[str]
    missing: bool

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to do."""
        return not self.read and not self.missing


class Memory:
    """What earlier rounds saw and did. `held` says why the last one left all as it is, if so."""

    def __init__(self) -> None:
        self.held: str | None = None
        self._done: dict[str, FileState] = {}  # as they were when they were read last
        self._since: dict[str, tuple[FileState, float]] = {}  # those to be read: how they are, and since when
        self._gone: frozenset[str] | None = None  # of those in _done, when missing files were looked for last
        self._commit: object = None

    def plan(self, seen: Seen, now: float) -> Plan:
        """What is to be done about what was seen at `now`, in seconds since 1970.

        Once somebody else changed the collection all files count as new: what was made of them may not be there.
        """
        if seen.commit != self._commit:
            self._done, self._gone = {}, None
        news = {path: state for path, state in seen.files.items() if self._done.get(path) != state}
        before = self._since
        self._since = {
            path: before[path] if path in before and before[path][0] == state else (state, now)
            for path, state in news.items()
        }
        waiting = frozenset(path for path, (state, since) in self._since.items() if not _rests(state, since, now))
        read = frozenset(news) - waiting
        gone = frozenset(self._done.keys() - seen.files.keys())
        return Plan(read, waiting, gone != self._gone or (self.held is not None and bool(read)))

    def done(self, plan: Plan, seen: Seen, commit: object, held: str | None) -> None:
        """The plan was carried out, which led to `commit`.

        held  if so, what is gone is looked for again when any file comes or goes; once that is over, all files count
              as new, since some were passed over meanwhile
        """
        self._done |= {path: seen.files[path] for path in plan.read}
        gone = self._done.keys() - seen.files.keys()
        if held is None:
            for path in gone:
                del self._done[path]
        self._gone = frozenset() if held is None else frozenset(gone)
        self._commit = None if held is None and self.held is not None else commit
        self.held = held


class Watcher:
    """Rounds over an input that others change.

    look  what is there now; InputError or OSError if the input cannot be seen
    act   carries out a plan: the commit that it led to, and a sentence if instead it left all as it is
    note  takes a sentence on why a round could not do all that it should
    now   seconds since 1970
    """

    def __init__(
        self,
        look: Callable[[], Seen],
        act: Callable[[Plan], tuple[object, str | None]],
        note: Callable[[str], object],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._look, self._act, self._note, self._now = look, act, note, now
        self._memory = Memory()

    def round(self) -> tuple[Plan, str | None]:
        """One round: what it did, and a sentence if instead it left all as it is."""
        return self._carry_out(self._look())

    def keep(self, wait: Callable[[], object]) -> NoReturn:
        """Round after round, and `wait` after each, until that raises.

        What cannot be done now is noted once and tried again, except that the error of the first look is raised: an
        input that was never there is a mistake.
        """
        looked, noted = False, None
        while True:
            try:
                seen = self._look()
            except (InputError, OSError) as error:
                if not looked:
                    raise
                problem: str | None = str(error) if isinstance(error, ClipsieveError) else sentence(error)
            else:
                looked = True
                try:
                    problem = self._carry_out(seen)[1]
                except CollectionLocked as error:
                    problem = str(error)
            if problem is not None and problem != noted:
                self._note(problem)
            noted = problem
            wait()

    def _carry_out(self, seen: Seen) -> tuple[Plan, str | None]:
        plan = self._memory.plan(seen, self._now())
        if not plan.nothing:
            commit, held = self._act(plan)
            self._memory.done(plan, seen, commit, held)
        return plan, self._memory.held


def _rests(state: "FileState", since: float, now: float) -> bool:
    """Whether a file that is in this state since then was left alone long enough.

    By its own time, or, where that lies in the future (a server's clock), by how long it has been so.
    """
    return isinstance(state, str) or now - state[1] >= REST_SECONDS or now - since >= REST_SECONDS
