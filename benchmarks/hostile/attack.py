"""Attacks by name: each a function of the lab and of its variant, which raises Failed where something got through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hostile.lab import Failed, Lab

Run = Callable[[Lab, Path, Any], str]


@dataclass(frozen=True)
class Attack:
    """One attack.

    number  of the item that it is about, in the issue on hostile input
    """

    number: int
    name: str
    run: Run
    variant: Any


class Attacks:
    """A module's attacks, in the order that they are written in."""

    def __init__(self) -> None:
        self.all: list[Attack] = []

    def add(self, number: int, variants: Mapping[str, Any]) -> Callable[[Run], Run]:
        """Marks a function as an attack in these variants; what it returns says what was seen when it held."""

        def mark(run: Run) -> Run:
            name = run.__name__.strip("_").replace("_", " ")
            self.all += [Attack(number, f"{name}: {variant}", run, given) for variant, given in variants.items()]
            return run

        return mark


def carry_out(attack: Attack, lab: Lab) -> tuple[bool, str]:
    """Whether it held, and a line on what was seen."""
    try:
        seen = attack.run(lab, lab.folder(f"{attack.number} {attack.name}"), attack.variant)
    except Failed as failed:
        return False, str(failed)
    except Exception as error:  # an answer of another shape than any that would do
        return False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return True, " ".join(seen.split())[:160]
