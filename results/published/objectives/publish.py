"""What is published of the study in `studies/objectives.toml`: its table and figure.

python results/published/objectives/publish.py results/objectives results/published/objectives
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from hashrobust.reports.frame import results_frame

KEPT = [
    "objective",
    "bits",
    "map",
    "map_low",
    "map_high",
    "map_at_k",
    "precision_radius_2",
    "distinct_codes",
    "bit_balance",
]


def table(frame: pd.DataFrame) -> str:
    """Markdown: mAP in percent, a row an objective, a column a code length, the best of all lengths first."""
    scores = 100 * frame.pivot(index="objective", columns="bits", values="map")
    codes = frame[frame["bits"] == frame["bits"].max()].set_index("objective")["distinct_codes"]
    best = scores.max()
    lines = [
        "| objective | "
        + " | ".join(f"{bits} bits" for bits in scores)
        + f" | distinct codes at {scores.columns[-1]} bits |",
        "| :-- |" + " --: |" * (len(scores.columns) + 1),
    ]
    for name, row in scores.loc[scores.mean(axis=1).sort_values(ascending=False).index].iterrows():
        cells = (f"**{value:.1f}**" if value == best[bits] else f"{value:.1f}" for bits, value in row.items())
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {int(codes[name]):,} |")
    return "\n".join(lines) + "\n"


def figure(frame: pd.DataFrame, path: Path) -> None:
    """mAP against code length, a line an objective."""
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    order = frame.groupby("objective")["map"].mean().sort_values(ascending=False).index
    for number, name in enumerate(order):
        rows = frame[frame["objective"] == name].sort_values("bits")
        style = {"marker": "osD^vPX*"[number % 8], "linestyle": "-" if number < 10 else "--"}
        axis.plot(rows["bits"], 100 * rows["map"], label=name, **style)
    axis.set(xlabel="code length (bits)", ylabel="mAP (%)", xticks=sorted(frame["bits"].unique()))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=150)


def main(results: Path, published: Path) -> None:
    """Write all files."""
    frame = results_frame(results)
    frame = frame[frame["attack"] == "none"]
    frame[KEPT].sort_values(["objective", "bits"]).to_csv(published / "objectives.csv", index=False)
    (published / "objectives.md").write_text(table(frame))
    figure(frame, published / "objectives.png")
    shutil.copy("studies/objectives.toml", published / "study.toml")
    print(table(frame))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
