"""The tables of mAP (targeted: t-mAP) against gradient evaluations, and of the step sizes of a preset that fails.

python table.py RESULTS
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from hashrobust.reports.frame import results_frame

EPSILONS = (8 / 255, 32 / 255)


def label(row: pd.Series) -> str:
    """The attack, its goal where it has both, and its settings."""
    targeted = " targeted" if row["attack"] in ("center", "sdha") and row["goal"] == "targeted" else ""
    setting = f"preset `{row['preset']}`" if row["preset"] != "default" else "default"
    return f"`{row['attack']}`{targeted} | {setting}"


def percent(rows: pd.DataFrame, column: str) -> str:
    """The one value of a column, in percent."""
    values = rows[column].dropna() if column in rows else rows.iloc[:, 0].iloc[:0]
    return f"{100 * values.iloc[0]:.1f}" if len(values) else ""


def main(results: Path) -> None:
    """Print the tables in Markdown: the settings as they are, and the step sizes of a grid."""
    frame = results_frame(results)
    frame = frame[frame["attack"] != "none"]
    grid = frame.get("params.step_size", pd.Series(index=frame.index, dtype=float)).notna()
    print_settings(frame[~grid].copy())
    print_grid(frame[grid])


def print_settings(frame: pd.DataFrame) -> None:
    """One row an attack and setting."""
    frame["label"] = [label(row) for _, row in frame.iterrows()]
    frame["cost"] = [
        f"{row['budget']:.0f} queries" if row["budget"] > 0 else f"{row['steps'] * row['descents']:.0f}"
        for _, row in frame.assign(
            descents=frame["gradient_evaluations"] / frame["steps"], budget=frame.get("budget")
        )
        .round({"descents": 0})
        .iterrows()
    ]
    frame["order"] = frame["steps"].fillna(frame["budget"])
    print("| attack | settings | gradients | 8/255 | 32/255 | theory |\n|---|---|--:|--:|--:|--:|")
    rows = frame.sort_values(["attack", "goal", "order", "label"])
    for (name, cost), group in rows.groupby(["label", "cost"], sort=False):
        metric = "t_map" if (group["goal"] == "targeted").all() else "map"
        cells = [percent(group[(group["epsilon"] - e).abs() < 1e-9], metric) for e in EPSILONS]
        print(f"| {name} | {cost} | {' | '.join(cells)} | {percent(group, f'theory_{metric}')} |")


def print_grid(frame: pd.DataFrame) -> None:
    """One row a step size, in 255ths."""
    print("\n| attack | step size x 255 | epsilon x 255 | mAP |\n|---|--:|--:|--:|")
    for _, row in frame.sort_values("params.step_size").iterrows():
        step, epsilon = (255 * row[name] for name in ("params.step_size", "epsilon"))
        print(f"| {label(row)} | {step:.3g} | {epsilon:.3g} | {100 * row['map']:.1f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
