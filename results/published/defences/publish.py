"""What is published of the study in `studies/defences.toml`: the report's tables, and one of rule, defence, and both.

python results/published/defences/publish.py results/defences results/published/defences
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd

from hashrobust.reports.frame import results_frame
from hashrobust.reports.worst_case import worst_case_frame, worst_cases
from hashrobust.reports.write import write_report

FILES = (
    "results.csv",
    "summary.md",
    "differences.csv",
    "differences.md",
    "queries.parquet",
    "audits.csv",
    "audits.md",
)
TRAINING = ["epochs", "defence", "defence_params.gradient"]
COST = {"none": 1, "center-fast": 3, "center-at": 9}
"""Passes through the network of a step, in those of a plain step."""


def spread(values: pd.Series) -> str:
    """Mean and standard deviation over seeds, in percent."""
    mean = f"{100 * values.mean():.1f}"
    return f"{mean} ± {100 * values.std():.1f}" if len(values) > 1 else mean


def table(worst: pd.DataFrame) -> str:
    """Markdown: clean mAP and worst case in percent, a row a network, training and rule, means over seeds."""
    worst = worst.fillna({"defence_params.gradient": "exact"})
    epsilons = sorted(worst["epsilon"].unique())
    heads = [f"worst case at {255 * epsilon:.0f}/255" for epsilon in epsilons]
    lines = [
        "| network | defence | attacker in training follows | epochs | cost, plain epochs | rule | clean | "
        + " | ".join(heads)
        + " |",
        "| :-- | :-- | :-- | --: | --: | :-- | --: |" + " --: |" * len(heads),
    ]
    order = {rule: number for number, rule in enumerate(("bp", "usf", "brsf", "frsf"))}
    groups = sorted(
        worst.groupby(["backbone", *TRAINING, "rule"]),
        key=lambda group: (
            group[0][0],
            list(COST).index(group[0][2]),
            -group[0][1],
            group[0][3],
            order[group[0][4]],
        ),
    )
    for (backbone, epochs, defence, gradient, rule), rows in groups:
        cells = [spread(rows.loc[rows["epsilon"] == epsilon, "worst"]) for epsilon in epsilons]
        clean = spread(rows.drop_duplicates("run")["clean"])
        follows = "" if defence == "none" else f"{gradient} gradient"
        words = [backbone, defence, follows, str(epochs), str(epochs * COST[defence]), rule, clean, *cells]
        lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n"


def main(results: Path, published: Path) -> None:
    """Write all files. The worst case is that of the study's attacks, which all runs went through alike: four runs have
    those of audits besides.
    """
    report = results / "report"
    write_report(results, report, formats=("csv", "md", "parquet"))
    for name in FILES:
        shutil.copyfile(report / name, published / name)
    frame = results_frame(results)
    worst = worst_case_frame(worst_cases(frame[frame["audit"].isna()], results))
    worst.to_csv(published / "worst_case.csv", index=False)
    said = table(worst)
    (published / "defences.md").write_text(said)
    shutil.copyfile(results / "study-defences" / "study.toml", published / "study.toml")
    print(said)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
