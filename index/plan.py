"""Which kind of index fits: a pure function of how many vectors there are, how long they are, and the memory."""

import math
from dataclasses import dataclass

from clipsieve.errors import InputError
from clipsieve.index.coarse import width_of
from clipsieve.index.stored import FLAT

EXACT_ROWS = 1_000_000
"""Vectors that every question reads by a coarse copy where no latency is asked for: a fraction of a second."""

FLAT_ROWS = 100_000
"""Vectors that every question reads as they are stored, where there is no copy or it does not fit."""

TRAINING_PER_LIST = 64
MOST_LISTS, LEAST_LISTS = 65_536, 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How to index.

    kind      "flat" (the shards themselves, read in order) or a faiss factory string
    on_disk   whether its lists stay on disk, memory-mapped
    bytes     what a process that searches it holds in memory, about
    why       a sentence for people
    """

    kind: str
    on_disk: bool
    bytes: int
    why: str


def choose_index(
    n: int,
    d: int,
    memory_bytes: int,
    latency_ms: float | None = None,
    scan_ms: float = 0.0,
    most: int = EXACT_ROWS,
) -> Plan:
    """The plan for n vectors of d dimensions in so many bytes.

    latency_ms  what a question may take; None to go by `most`
    scan_ms     what reading all vectors takes it, measured; looked at with `latency_ms` alone
    most        vectors that are read for every question

    Flat as long as that is fast enough and the coarse copy fits: exact, and nothing to train. Beyond, inverted lists,
    because they are built in one pass, grow by appending, hold filters and deep searches well (a graph does neither),
    and can leave memory: their vectors as float16, which loses nothing of float16 shards, while that fits; then 8 bits
    a dimension; then product codes from one byte for every 2 dimensions to one for 16; then 8 bits on disk. Whatever
    is lost is made up for by scoring what a search finds from the shards themselves. Where not even a few lists fit,
    all vectors are read from disk.
    """
    if n < 0 or d < 1 or memory_bytes < 1:
        raise InputError(f"An index of {n} vectors of {d} dimensions in {memory_bytes} bytes cannot be; check them.")
    copy = n * width_of(d) if n > FLAT_ROWS else 0
    late = n > most if latency_ms is None else scan_ms > latency_ms
    if not late and copy <= memory_bytes:
        took = "" if latency_ms is None else f" in {scan_ms:.0f} ms, of {latency_ms:g} ms asked for"
        return Plan(FLAT, False, copy, f"Every question reads all {n:,} vectors{took}: answers are exact.")
    if not late:
        cause = f"The coarse copy of {n:,} vectors takes {_size(copy)} of {_size(memory_bytes)}"
    elif latency_ms is None:
        cause = f"{n:,} vectors are more than the {most:,} that every question reads"
    else:
        cause = f"Reading all {n:,} vectors takes a question {scan_ms:.0f} ms, of {latency_ms:g} ms asked for"
    lists = lists_for(n, d, memory_bytes)
    fixed = lists * d * 4
    if lists < LEAST_LISTS:
        few = f"in {_size(memory_bytes)}" if memory_bytes < LEAST_LISTS * TRAINING_PER_LIST * d * 4 else "of so few"
        return Plan(FLAT, False, 0, f"{cause}, but no index can be made {few}: all are read, and answers are exact.")
    choices = [("SQfp16", 2 * d, "as float16, without loss"), ("SQ8", d, "at 8 bits a dimension")]
    for per_code in (2, 4, 8, 16):
        if d % per_code == 0 and d // per_code >= 1:
            choices.append((f"PQ{d // per_code}", d // per_code, f"at a byte for {per_code} dimensions"))
    for codes, size, words in choices:
        total = n * (size + 8) + fixed
        if total <= memory_bytes:
            why = f"{cause}; {lists:,} inverted lists {words} take {_size(total)} of {_size(memory_bytes)}."
            return Plan(f"IVF{lists},{codes}", False, total, why)
    why = f"{cause}; they do not fit into {_size(memory_bytes)} in any form: their lists stay on disk, memory-mapped."
    return Plan(f"IVF{lists},SQ8", True, fixed, why)


def lists_for(n: int, d: int, memory_bytes: int) -> int:
    """How many inverted lists: about 4 sqrt(n), a power of two, so that training them fits into memory as well."""
    lists: int = 2 ** round(math.log2(max(1.0, 4 * math.sqrt(n))))
    most = min(MOST_LISTS, n // TRAINING_PER_LIST, memory_bytes // (TRAINING_PER_LIST * d * 4))
    while lists > 1 and lists > most:
        lists //= 2
    return lists


def _size(count: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if count >= 2**power:
            return f"{count / 2**power:.{int(power == 30)}f} {unit}"
    return f"{count / 1024:.0f} KiB"
