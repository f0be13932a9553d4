"""A line of the report, and what the benchmarks' figures are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report: a value, the most or least it may be, and what it aims at."""

    what: str
    value: float | str
    most: float | None = None
    least: float | None = None
    aim: float | None = None

    @property
    def target(self) -> str:
        """The target in words; empty where there is none."""
        goal = f"at most {self.most:g}" if self.most is not None else ""
        goal = f"at least {self.least:g}" if self.least is not None else goal
        return goal if self.aim is None else f"{goal}, aim {self.aim:g}"

    @property
    def met(self) -> bool | None:
        """None where there is no target."""
        if isinstance(self.value, str) or (self.most is None and self.least is None):
            return None
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)


Record = dict[str, Any]


def print_figures(figures: Mapping[str, float], goals: Mapping[str, tuple[float, float | None]]) -> None:
    """A line for each, with what it is to reach at least and what it aims at, where it has goals."""
    for name, value in figures.items():
        least, aim = goals.get(name, (None, None))
        figure = Figure(name, value, least=least, aim=aim)
        verdict = "" if figure.met is None else "  met" if figure.met else "  MISSED"
        print(f"{name:36} {value:9.3f}   {figure.target}{verdict}")
