"""A line of the report, and what the benchmarks' figures are made of."""

from __future__ import annotations

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
