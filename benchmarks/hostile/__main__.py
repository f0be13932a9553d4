"""Attacks on the real commands and a real service: what loses data, does nothing in silence, or lets somebody in.

    python -m benchmarks.hostile [--only WORD ...] [--number N ...]

Prints one line for each attack, held or failed and what was seen; the exit code is 1 if any failed. Everything happens
in a temporary folder, with the demo model and without a network. Linux only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.hostile import files, models, requests, stored, tables
from benchmarks.hostile.attack import Attack, carry_out
from benchmarks.hostile.lab import open_lab

ALL: Sequence[Attack] = sorted(
    [one for module in (files, tables, models, stored, requests) for one in module.ATTACKS.all], key=lambda a: a.number
)
AT_ONCE = 2
"""Attacks that go on at the same time, save those on the service's memory and threads, which come last and alone."""


def run(attacks: Sequence[Attack], base: Path) -> Iterator[tuple[Attack, bool, str]]:
    """Each attack, whether it held, and what was seen."""
    alone = [one for number in requests.ALONE for one in attacks if one.number == number]
    together = [one for one in attacks if one.number not in requests.ALONE]
    with open_lab(base, stored.serve) as lab, ThreadPoolExecutor(AT_ONCE) as pool:
        for attack, (held, seen) in zip(together, pool.map(lambda a: carry_out(a, lab), together), strict=True):
            yield attack, held, seen
        for attack in alone:
            yield attack, *carry_out(attack, lab)


def main() -> int:
    """Carry them out and print what came of each; 1 if one got through."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description="Attacks, and whether they hold.")
    parser.add_argument("--only", action="append", default=[], help="attacks with this in their name")
    parser.add_argument("--number", action="append", type=int, default=[], help="attacks of this number")
    args = parser.parse_args()
    wanted = [
        one
        for one in ALL
        if (not args.number or one.number in args.number) and (not args.only or any(w in one.name for w in args.only))
    ]
    if not wanted:
        parser.error("no attack has such a name or number; names are as they are printed")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="clipsieve-hostile-") as base:
        for attack, held, seen in run(wanted, Path(base)):
            failed += not held
            print(f"{'held  ' if held else 'failed'} {attack.number:>2} {attack.name:<52} {seen}", flush=True)
    print(f"{len(wanted) - failed} of {len(wanted)} held")
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
