"""The published study of Fashion-MNIST: its tables say what the stored scores of its queries say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

PLACE = Path(__file__).resolve().parents[1] / "results" / "published" / "fashion-mnist"

# task, attack, rule and gradient of a cell at 8/255 on resnet20, and the column of summary.md where it stands
CELLS = [
    ("hashing", "center", "bp", "exact", "mAP, exact gradient (%)"),
    ("hashing", "center", "frsf", "rule", "mAP, rule gradient (%)"),
    ("classification", "pgd", "usf", "exact", "accuracy, exact gradient (%)"),
]


def row_of_summary(attack: str, rule: str, column: str) -> dict[str, str]:
    """The row of the first table of summary.md that has this column."""
    head: list[str] = []
    for line in (PLACE / "summary.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if "attack" in cells:
            head = cells
        row = dict(zip(head, cells, strict=False))
        wanted = (
            row.get("backbone"),
            row.get("attack"),
            row.get("epsilon"),
            row.get("rule"),
            row.get("loss", "—"),
        )
        if column in row and wanted == ("resnet20", attack, "8/255", rule, "—"):
            return row
    raise AssertionError(f"summary.md has no row of {attack} on {rule}")


@pytest.mark.parametrize(("task", "attack", "rule", "gradient", "column"), CELLS)
def test_a_published_cell_follows_from_the_scores_of_its_queries(
    task: str, attack: str, rule: str, gradient: str, column: str
) -> None:
    results = pd.read_csv(PLACE / "results.csv")
    chosen = results[
        (results["task"] == task)
        & (results["backbone"] == "resnet20")
        & (results["attack"] == attack)
        & (results["rule"] == rule)
        & (results["gradient"] == gradient)
        & np.isclose(results["epsilon"], 8 / 255)
        & results["params.loss"].isna()
        & results["max_steps"].isna()
    ]
    assert sorted(chosen["seed"]) == [0, 1, 2]
    queries = pd.read_parquet(PLACE / "queries.parquet")
    scores = [queries.loc[queries["folder"] == folder, "score"] for folder in chosen["folder"]]
    assert [len(score) for score in scores] == [200, 200, 200]
    means = 100 * np.array([score.mean() for score in scores])
    said = f"{means.mean():.1f} ± {means.std(ddof=1):.1f}"
    cell = row_of_summary(attack, rule, column)[column]
    assert cell == (f"(rule: {said})" if gradient == "rule" else said)


def test_the_pages_name_files_that_are_there() -> None:
    for page in ("README.md", "summary.md"):
        text = (PLACE / page).read_text()
        links = [part.partition(")")[0] for part in text.split("](")[1:]]
        missing = [link for link in links if "://" not in link and not (PLACE / link).exists()]
        assert links and not missing
