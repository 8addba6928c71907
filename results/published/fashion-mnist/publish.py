"""What is published of the study in `studies/fashion-mnist.toml`: tables, figures, the page, and every query's score.

python results/published/fashion-mnist/publish.py results/fashion-mnist results/published/fashion-mnist
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd

from hashrobust.experiments.measures import MEASURES
from hashrobust.experiments.store import Folder
from hashrobust.reports.frame import results_frame
from hashrobust.reports.page import write_page
from hashrobust.reports.write import write_report

FIGURES = ("map_against_epsilon.png", "masking_gap.png", "steps.png")
TABLES = ("results.csv", "summary.md", "paper_table.md", "worst_case.csv", "worst_case.md")


def per_query(results: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """One row a query and attack: the attack's folder, the query's id, its score unattacked and attacked."""
    tables = []
    for row in frame[frame["attack"] != "none"].to_dict("records"):
        score = MEASURES[row["task"]].score
        table = Folder(results / row["folder"]).read_table("queries.parquet", made_by="attack")
        tables.append(
            pd.DataFrame(
                {
                    "folder": row["folder"],
                    "query_id": table["query_id"],
                    "clean": table[f"clean_{score}"].astype("float32"),
                    "score": table[score].astype("float32"),
                }
            )
        )
    return pd.concat(tables, ignore_index=True).astype({"folder": "category"})


def main(results: Path, place: Path) -> None:
    """Write all of it."""
    report = results / "report"
    write_report(results, report, formats=("csv", "md", "png"))
    for name in (*TABLES, *FIGURES):
        if (report / name).exists():
            shutil.copyfile(report / name, place / name)
    per_query(results, results_frame(results)).to_parquet(place / "queries.parquet", index=False)
    write_page(results, place / "page.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
