"""Which kind of index fits: a pure function of how many vectors there are, how long they are, and the memory."""

import math
from dataclasses import dataclass

from clipsieve.errors import InputError
from clipsieve.index.stored import FLAT

FLAT_ROWS = 100_000
TRAINING_PER_LIST = 64
MOST_LISTS = 65_536


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


def choose_index(n: int, d: int, memory_bytes: int) -> Plan:
    """The plan for n vectors of d dimensions in so many bytes.

    Flat to FLAT_ROWS: exact, nothing to build, and a scan takes tens of milliseconds. Beyond, inverted lists, because
    they are built in one pass, grow by appending, hold filters and deep searches well (a graph does neither), and
    can leave memory: their vectors as float16, which loses nothing of float16 shards, while that fits; then 8 bits a
    dimension; then product codes from one byte for every 2 dimensions to one for 16; then 8 bits on disk. Whatever is
    lost is made up for by scoring what a search finds from the shards themselves.
    """
    if n < 0 or d < 1 or memory_bytes < 1:
        raise InputError(f"An index of {n} vectors of {d} dimensions in {memory_bytes} bytes cannot be; check them.")
    if n <= FLAT_ROWS:
        return Plan(FLAT, False, 0, f"{n:,} vectors are few enough to read all of them for every question.")
    lists = lists_for(n, d, memory_bytes)
    fixed = lists * d * 4
    choices = [("SQfp16", 2 * d, "as float16, without loss"), ("SQ8", d, "at 8 bits a dimension")]
    for per_code in (2, 4, 8, 16):
        if d % per_code == 0 and d // per_code >= 1:
            choices.append((f"PQ{d // per_code}", d // per_code, f"at a byte for {per_code} dimensions"))
    for codes, size, words in choices:
        total = n * (size + 8) + fixed
        if total <= memory_bytes:
            why = f"{n:,} vectors in {lists:,} inverted lists {words} take {_gib(total)} of {_gib(memory_bytes)}."
            return Plan(f"IVF{lists},{codes}", False, total, why)
    why = f"{n:,} vectors do not fit into {_gib(memory_bytes)} in any form; their lists stay on disk, memory-mapped."
    return Plan(f"IVF{lists},SQ8", True, fixed, why)


def lists_for(n: int, d: int, memory_bytes: int) -> int:
    """How many inverted lists: about 4 sqrt(n), a power of two, so that training them fits into memory as well."""
    lists: int = 2 ** round(math.log2(max(1.0, 4 * math.sqrt(n))))
    most = min(MOST_LISTS, n // TRAINING_PER_LIST, memory_bytes // (TRAINING_PER_LIST * d * 4))
    while lists > 1 and lists > most:
        lists //= 2
    return lists


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
