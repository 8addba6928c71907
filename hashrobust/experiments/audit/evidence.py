"""What an audit has measured, as its checks and its headline read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hashrobust.experiments.audit.checks import Scores
from hashrobust.experiments.audit.plan import Cell
from hashrobust.experiments.measures import MEASURES, Measure


@dataclass(frozen=True)
class Evidence:
    """All that was measured: a table a finished cell (`queries.parquet`), its metrics, and errors of the others."""

    cells: Sequence[Cell]
    tables: Mapping[str, pd.DataFrame]
    metrics: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, str]
    determinism: Mapping[str, Any]
    validation_score: float
    control_validation_score: float | None = None
    control_determinism: Mapping[str, Any] | None = None
    measure: Measure = MEASURES["hashing"]

    def of(self, part: str, kind: str = "") -> Scores:
        """The attacked, or with a kind the "clean_", "theory_" or "chance_" score a query of one part."""
        values: NDArray[np.float64] = self.tables[part][kind + self.measure.score].to_numpy(dtype=np.float64)
        return values

    def parts(self, *access: str, on_control: bool = False) -> list[str]:
        """Finished parts at the audited epsilon whose attacker knows that much."""
        return [
            cell.part
            for cell in self.cells
            if cell.access in access
            and cell.on_epsilon
            and cell.on_control == on_control
            and cell.part in self.tables
        ]

    def scores(self, *access: str, on_control: bool = False) -> dict[str, Scores]:
        """Scores of those parts."""
        return {part: self.of(part) for part in self.parts(*access, on_control=on_control)}

    def theory(self, part: str) -> Scores:
        """The score a query that full success of a part would leave; chance where the attack aims at no code."""
        known = f"theory_{self.measure.score}" in self.tables[part]
        return self.of(part, "theory_" if known else "chance_")


def lowest(scores: Mapping[str, Scores]) -> Scores:
    """The lowest score of each query."""
    least: Scores = np.min(np.stack(list(scores.values())), axis=0)
    return least
