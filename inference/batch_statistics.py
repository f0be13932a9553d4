"""What a RowQueue counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tally:
    """How many, and how many nanoseconds they took together."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True)
class KindStatistics:
    """What was done for the requests of one kind since the beginning. Those for no rows do not count.

    succeeded   requests, from arrival to answer
    failed      requests that ended in an error or were given up, from arrival to that
    refused     requests that were not accepted, because too much waited
    rows        rows of the succeeded requests
    prepare     succeeded requests, from arrival until their first rows were ready for the model
    queue       succeeded requests, from then until the model took up the first of these
    compute     succeeded requests, in the model: an execution counts in full for each that has rows in it
    executions  rows in one call of the model -> such calls
    wasted      calls of the model that failed; they are not among `executions`
    """

    succeeded: Tally
    failed: Tally
    refused: int
    rows: int
    prepare: Tally
    queue: Tally
    compute: Tally
    executions: Mapping[int, Tally]
    wasted: Tally


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """A moment's figures, all of the same moment.

    kinds    "image", "text"
    waiting  rows accepted that the model has not taken up
    names    the same as in `kinds` for the requests of one name each, where these were given; an execution counts, with
             all its rows, for every name that has rows in it
    """

    kinds: Mapping[str, KindStatistics]
    waiting: int
    names: Mapping[str, KindStatistics] = field(default_factory=dict)


@dataclass(slots=True)
class Sum:
    """A Tally that grows."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """One more."""
        self.count += 1
        self.ns += ns

    def taken(self) -> Tally:
        """As it stands."""
        return Tally(self.count, self.ns)


@dataclass(slots=True)
class KindCounts:
    """KindStatistics that grow. Not safe in many threads; its owner holds a lock."""

    succeeded: Sum = field(default_factory=Sum)
    failed: Sum = field(default_factory=Sum)
    refused: int = 0
    rows: int = 0
    prepare: Sum = field(default_factory=Sum)
    queue: Sum = field(default_factory=Sum)
    compute: Sum = field(default_factory=Sum)
    executions: dict[int, Sum] = field(default_factory=dict)
    wasted: Sum = field(default_factory=Sum)

    def taken(self) -> KindStatistics:
        """As they stand."""
        return KindStatistics(
            succeeded=self.succeeded.taken(),
            failed=self.failed.taken(),
            refused=self.refused,
            rows=self.rows,
            prepare=self.prepare.taken(),
            queue=self.queue.taken(),
            compute=self.compute.taken(),
            executions={rows: calls.taken() for rows, calls in sorted(self.executions.items())},
            wasted=self.wasted.taken(),
        )
