"""How long a study that is under way will take, from the parts that it has done."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable

from hashrobust.experiments.study.plan import Cell


class Pace:
    """Seconds of a part, by stage and task: a training lasts longer than an attack on what it made.

    Parts of a kind of which none is done are taken to last as long as the mean of all.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._units: dict[tuple[str, str], int] = defaultdict(int)

    def note(self, cell: Cell, units: int, seconds: float) -> None:
        """So many units of a cell took so long."""
        if units and seconds:
            self._seconds[_kind(cell)] += seconds
            self._units[_kind(cell)] += units

    def seconds_left(self, missing: Iterable[tuple[Cell, int]]) -> float:
        """What so many units of each cell will take, as many at a time as until now; infinity before any is done."""
        worked, units_done = sum(self._seconds.values()), sum(self._units.values())
        if not units_done:
            return math.inf
        work = 0.0
        for cell, units in missing:
            kind = _kind(cell)
            done = self._units.get(kind)
            work += units * (self._seconds[kind] / done if done else worked / units_done)
        return work * (time.perf_counter() - self._started) / worked


def _kind(cell: Cell) -> tuple[str, str]:
    return cell.stage, cell.task
