"""What is published of the study in `studies/imagenet-weights.toml`: tables and figures of the
report, and one table of the finding.

python results/published/imagenet-weights/publish.py results/imagenet-weights results/published/imagenet-weights
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd

from hashrobust.reports.frame import results_frame
from hashrobust.reports.write import write_report

FILES = (
    *(
        "results.csv",
        "queries.parquet",
        "summary.md",
        "worst_case.csv",
        "worst_case.md",
        "differences.csv",
        "differences.md",
    ),
    *("map_against_epsilon.png", "masking_gap.png"),
)
RULES = ("bp", "usf", "brsf", "frsf")


def spread(values: pd.Series) -> str:
    """Mean and standard deviation over seeds, in percent."""
    if len(values) == 0:
        return ""
    return (
        f"{100 * values.mean():.1f} ± {100 * values.std():.1f}"
        if len(values) > 1
        else f"{100 * values.mean():.1f}"
    )


def table(frame: pd.DataFrame) -> str:
    """Markdown, in percent: clean and attacked mAP by either gradient, a row a rule and scale; and beside the rule's
    own gradient that of bp's weights through the same feedback, which never trained them; at last under random signs.
    """
    noise, frame = (frame[frame["attack"] == name] for name in ("noise", "center"))
    lines = [
        "| epsilon | rule | feedback scale | seeds | clean | exact gradient | (rule gradient) | "
        "bp's weights through the same feedback (rule) | random signs |",
        "| :-- | :-- | :-- | --: | --: | --: | --: | --: | --: |",
    ]
    groups = frame[~frame["gradient"].str.startswith("rule:")].groupby(["epsilon", "rule", "feedback_scale"])
    for (epsilon, rule, scale), rows in sorted(
        groups, key=lambda g: (g[0][0], RULES.index(g[0][1]), g[0][2] == "matched")
    ):
        by = {gradient: rows.loc[rows["gradient"] == gradient] for gradient in ("exact", "rule")}
        control = frame[
            (frame["epsilon"] == epsilon)
            & (frame["gradient"] == f"rule:{rule}")
            & (frame["feedback_scale"] == scale)
        ]
        random = noise[noise["run"].isin(rows["run"]) & (noise["epsilon"] == epsilon)]
        told = [spread(by["rule"]["map"]), spread(control["map"])]
        cells = [
            *(f"{255 * epsilon:.0f}/255", rule, "" if rule == "bp" else scale, str(rows["seed"].nunique())),
            *(spread(by["exact"]["clean_map"]), spread(by["exact"]["map"])),
            *(f"(rule: {number})" if number else "" for number in told),
            spread(random["map"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(results: Path, published: Path) -> None:
    """Write all files."""
    report = results / "report"
    write_report(results, report, formats=("csv", "md", "parquet", "png"))
    for name in FILES:
        shutil.copyfile(report / name, published / name)
    said = table(results_frame(results))
    (published / "finding.md").write_text(said)
    shutil.copyfile(results / "study-imagenet-weights" / "study.toml", published / "study.toml")
    print(said)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
