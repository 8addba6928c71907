"""What a task is measured by: retrieval by average precision, classification by whether the class is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A score in [0, 1] of one query or image, as a column of `queries.parquet`, and its mean in `metrics.json`."""

    task: str
    score: str
    mean: str
    words: str
    """What the mean is called where people read it."""

    def mean_of(self, score: str) -> str:
        """The name of a column's mean: `clean_ap` becomes `clean_map`, `correct_8bit` becomes `accuracy_8bit`."""
        return score.replace(self.score, self.mean, 1)


MEASURES: Mapping[str, Measure] = {
    measure.task: measure
    for measure in (
        Measure("hashing", "ap", "map", "mAP"),
        Measure("classification", "correct", "accuracy", "accuracy"),
    )
}
