"""Rules beside backpropagation, in pairs of the same seed, attack and queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hashrobust.experiments.store import Folder
from hashrobust.reports.differences import differences_frame, differences_tables
from hashrobust.reports.frame import results_frame
from hashrobust.reports.queries import queries_frame
from hashrobust.reports.write import write_report

EPSILON = 8 / 255
Make = dict[str, Callable[..., Any]]


def attack(
    make: Make, run: Folder, scores: list[float], ids: list[int] | None = None, **config: Any
) -> Folder:
    """An attack with these scores of its queries, all of which scored 0.9 before."""
    made = make["attack"](run, float(np.mean(scores)), **{"attack": "hag", "epsilon": EPSILON, **config})
    table = {"query_id": ids or range(len(scores)), "clean_ap": [0.9] * len(scores), "ap": scores}
    made.write_table("queries.parquet", pd.DataFrame(table))
    return made


def found(results: Path) -> list[dict[str, Any]]:
    return differences_frame(results_frame(results), results).to_dict("records")


def test_difference_is_that_of_the_same_queries(tmp_path: Path, make: Make) -> None:
    attack(make, make["run"](tmp_path, "bp", 0), [0.1, 0.4, 0.2, 0.3])
    attack(make, make["run"](tmp_path, "frsf", 0), [0.4, 0.5, 0.2, 0.1], ids=[1, 2, 3, 0])
    (row,) = found(tmp_path)
    # by id: 0.1 - 0.1, 0.4 - 0.4, 0.5 - 0.2, 0.2 - 0.3
    assert row["difference"] == pytest.approx(np.mean([0, 0, 0.3, -0.1]))
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert (row["rule"], row["clean_difference"], row["above"], row["below"]) == ("frsf", 0, 0, 0)
    assert row["bp_folder"].split("-")[3:5] != row["folder"].split("-")[3:5]


@pytest.mark.parametrize(("shift", "above", "below"), [(0.2, 1, 0), (-0.2, 0, 1), (0.0, 0, 0)])
def test_above_and_below_are_told_by_the_interval(
    tmp_path: Path, make: Make, shift: float, above: int, below: int
) -> None:
    scores = np.linspace(0.3, 0.5, 20)
    noise = np.tile([0.01, -0.01], 10)
    attack(make, make["run"](tmp_path, "bp", 0), scores.tolist())
    attack(make, make["run"](tmp_path, "usf", 0), (scores + shift + noise).tolist())
    (row,) = found(tmp_path)
    assert (row["above"], row["below"]) == (above, below)


def test_other_seeds_attacks_queries_and_rule_gradients_make_no_pair(tmp_path: Path, make: Make) -> None:
    attack(make, make["run"](tmp_path, "bp", 0), [0.1, 0.2])
    frsf = make["run"](tmp_path, "frsf", 0)
    attack(make, frsf, [0.8, 0.8], gradient="rule")
    attack(make, frsf, [0.3, 0.3], attack="center")
    attack(make, frsf, [0.3, 0.3], ids=[5, 6])
    attack(make, make["run"](tmp_path, "frsf", 1), [0.3, 0.3])
    assert found(tmp_path) == []


def test_the_report_writes_differences_and_queries(tmp_path: Path, make: Make) -> None:
    for seed in (0, 1):
        attack(make, make["run"](tmp_path, "bp", seed), [0.1, 0.2, 0.3])
        attack(make, make["run"](tmp_path, "usf", seed), [0.2, 0.3, 0.4])
    output = tmp_path / "report"
    write_report(tmp_path, output, formats=("csv", "md", "parquet"))
    assert pd.read_csv(output / "differences.csv")["difference"].tolist() == pytest.approx([0.1, 0.1])
    assert "| usf | 2 | 0.0 ± 0.0 | 10.0 ± 0.0 | 2 | 0 |" in (output / "differences.md").read_text()
    assert "(differences.md)" in (output / "summary.md").read_text()
    scores = pd.read_parquet(output / "queries.parquet")
    means = scores.groupby("folder", observed=True)["score"].mean()
    frame = results_frame(tmp_path).set_index("folder")["map"]
    assert len(means) == 4 and means.to_dict() == pytest.approx(frame[means.index].to_dict())


def test_nothing_to_compare_writes_nothing(tmp_path: Path, make: Make) -> None:
    attack(make, make["run"](tmp_path, "usf", 0), [0.2, 0.3, 0.4])
    frame = results_frame(tmp_path)
    assert differences_tables(differences_frame(frame, tmp_path)) == []
    assert len(queries_frame(frame, tmp_path)) == 3
    write_report(tmp_path, tmp_path / "report", formats=("csv", "md"))
    assert not list((tmp_path / "report").glob("differences*"))
