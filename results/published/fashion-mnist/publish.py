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
from hashrobust.metrics import paired_bootstrap_interval
from hashrobust.reports.figures import map_against_epsilon
from hashrobust.reports.frame import results_frame
from hashrobust.reports.page import write_page
from hashrobust.reports.write import shown_rows, write_report

FILES = ("results.csv", "summary.md", "paper_table.md", "worst_case.csv", "worst_case.md")
FIGURES = ("map_against_epsilon.png", "masking_gap.png", "steps.png")
PICTURES = ("training_curves", "examples")
SETTING = ["task", "backbone", "attack", "epsilon", "seed"]


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


def differences(frame: pd.DataFrame, queries: pd.DataFrame) -> pd.DataFrame:
    """By the exact gradient: each rule's score minus that of bp with the same seed on the same queries, a row a seed,
    with the 95% interval over queries.
    """
    main, _ = shown_rows(frame)
    main = main[(main["gradient"] == "exact") & main["attack"].isin(["center", "pgd"])]
    main = main[main["params.loss"].isna() & (main["feedback_scale"] == "xavier")]
    scores = {
        folder: table.set_index("query_id") for folder, table in queries.groupby("folder", observed=True)
    }
    folders = {
        tuple(row[name] for name in ("rule", *SETTING)): row["folder"] for row in main.to_dict("records")
    }
    rows = []
    for (rule, *setting), folder in folders.items():
        base = folders.get(("bp", *setting))
        if rule == "bp" or base is None:
            continue
        own, other = scores[folder], scores[base].loc[scores[folder].index]
        row = {"rule": rule, **dict(zip(SETTING, setting, strict=True))}
        for name in ("clean", "score"):
            low, high = paired_bootstrap_interval(own[name], other[name])
            row |= {name: (own[name] - other[name]).mean(), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows).sort_values([*SETTING, "rule"], ignore_index=True)


def finding(frame: pd.DataFrame, place: Path) -> None:
    """The figure that opens README.md: the deeper network, one attack for each task, by either gradient."""
    main, _ = shown_rows(frame)
    chosen = main[(main["backbone"] == "resnet20") & main["attack"].isin(["center", "pgd"])]
    chosen = chosen[chosen["params.loss"].isna() & ~chosen["gradient"].str.startswith("rule:")]
    chosen.attrs = dict(frame.attrs)
    map_against_epsilon(chosen, place)


def main(results: Path, place: Path) -> None:
    """Write all of it."""
    report = results / "report"
    write_report(results, report, formats=("csv", "md", "png"))
    for name in (*FILES, *FIGURES):
        shutil.copyfile(report / name, place / name)
    for name in PICTURES:
        shutil.rmtree(place / name, ignore_errors=True)
        shutil.copytree(report / name, place / name)
    frame = results_frame(results)
    queries = per_query(results, frame)
    queries.to_parquet(place / "queries.parquet", index=False)
    differences(frame, queries).round(4).to_csv(place / "differences.csv", index=False)
    finding(frame, place / "finding.png")
    write_page(results, place / "page.html")
    shutil.copyfile(results / f"study-{results.name}" / "study.toml", place / "study.toml")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
