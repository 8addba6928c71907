"""The tables of mAP (targeted: t-mAP) against gradient evaluations, and of other settings where a preset fails.

python table.py RESULTS
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from hashrobust.reports.frame import results_frame

EPSILONS = (8 / 255, 32 / 255)
TRIED = ("step_size", "learning_rate", "bounded")
"""Parameters that were varied where a preset does not come near theory."""


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
    """Print the tables in Markdown: the settings as they are, and what else was tried."""
    frame = results_frame(results)
    frame = frame[frame["attack"] != "none"]
    grid = frame[[f"params.{name}" for name in TRIED if f"params.{name}" in frame]].notna().any(axis=1)
    print_settings(frame[~grid].copy())
    print_grid(frame[grid])


def print_settings(frame: pd.DataFrame) -> None:
    """One row an attack and setting."""
    frame["label"] = [label(row) for _, row in frame.iterrows()]
    # Evaluations are means over images; those that finish early take fewer than were granted.
    granted = frame["steps"] * (frame["gradient_evaluations"] / frame["steps"]).round()
    frame["cost"] = [
        f"{budget:.0f} queries" if budget > 0 else f"{gradients:.0f}"
        for budget, gradients in zip(frame["budget"], granted.fillna(0), strict=True)
    ]
    frame["order"] = frame["steps"].fillna(frame["budget"])
    print("| attack | settings | gradients | 8/255 | 32/255 | theory |\n|---|---|--:|--:|--:|--:|")
    rows = frame.sort_values(["attack", "goal", "order", "label"])
    for (name, cost), group in rows.groupby(["label", "cost"], sort=False):
        metric = "t_map" if (group["goal"] == "targeted").all() else "map"
        cells = [percent(group[(group["epsilon"] - e).abs() < 1e-9], metric) for e in EPSILONS]
        print(f"| {name} | {cost} | {' | '.join(cells)} | {percent(group, f'theory_{metric}')} |")


def print_grid(frame: pd.DataFrame) -> None:
    """One row a value that was tried."""
    print("\n| attack | tried | value | epsilon x 255 | mAP or t-mAP |\n|---|---|--:|--:|--:|")
    for _, row in frame.sort_values("attack").iterrows():
        name = next(name for name in TRIED if not pd.isna(row.get(f"params.{name}")))
        score = row["t_map"] if row["goal"] == "targeted" else row["map"]
        print(
            f"| {label(row)} | {name} | {row[f'params.{name}']} | {255 * row['epsilon']:.3g} | {100 * score:.1f} |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
