"""Runs that were trained for a number of steps only: a curve over steps, kept out of tables of whole trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hashrobust.errors import InputError
from hashrobust.reports import labels
from hashrobust.reports.style import CHANCE, colour_of, grid, legend, save, styled
from hashrobust.reports.summary import records, summarise

MAX_STEPS = "max_steps"
WHOLE = "all"
_SETTING = (
    "dataset",
    "backbone",
    "bits",
    "objective",
    "attack",
    "preset",
    "goal",
    "epsilon",
    "feedback_scale",
    "layers",
)


def whole_trainings(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The frame without runs of a number of steps, where there are whole trainings, and a sentence on those."""
    if MAX_STEPS not in frame.columns or frame[MAX_STEPS].isna().all() or frame[MAX_STEPS].notna().all():
        return frame, []
    kept = frame[frame[MAX_STEPS].isna()].reset_index(drop=True)
    kept.attrs = dict(frame.attrs)
    runs = frame.loc[frame[MAX_STEPS].notna(), "run"].nunique()
    return kept, [
        f"Runs of the first steps of a training: {runs}, in the figure `steps` and the results files alone."
    ]


@styled
def steps_curves(frame: pd.DataFrame, path: Path, *, also: Sequence[str] = ()) -> list[Path]:
    """Score by the exact gradient (solid) and by the rule's (dashed) against fine-tuning steps, a panel an
    attack, setting and epsilon; bands are one standard deviation over seeds.

    Raises:
        InputError: no runs differ in their steps.
    """
    panels = list(_panels(frame))
    if not panels:
        raise InputError(
            "no runs that are otherwise alike differ in max_steps: fine-tune with --max-steps first"
        )
    figure, axes = grid(len(panels), width=4.8, height=3.8)
    for axis, panel in zip(axes, panels, strict=True):
        _draw(axis, panel)
    legend(figure, axes)
    return save(figure, path, also)


def has_curves(frame: pd.DataFrame) -> bool:
    """Whether there is something to draw."""
    return bool(list(_panels(frame)))


def _panels(frame: pd.DataFrame) -> list[pd.DataFrame]:
    if MAX_STEPS not in frame.columns:
        return []
    trained = frame["rule"] != labels.PRETRAINED
    attacked = frame[trained & (frame["attack"] != "none") & frame["gradient"].isin(["exact", "rule"])]
    found = []
    own = [column for column in attacked.columns if str(column).startswith("params.")]
    for _, panel in attacked.groupby([*_SETTING, *own], dropna=False, sort=False):
        if panel[MAX_STEPS].nunique(dropna=False) > 1:
            panel.attrs = dict(frame.attrs)
            found.append(panel)
    return found


def _draw(axis: Axes, panel: pd.DataFrame) -> None:
    first = records(panel)[0]
    score = labels.score_of(first)
    ticks = [*sorted(panel[MAX_STEPS].dropna().unique()), *([None] if panel[MAX_STEPS].isna().any() else [])]
    places = {_tick(value): place for place, value in enumerate(ticks)}
    summary = summarise(panel, [*_SETTING, "rule", MAX_STEPS, "gradient"], [score, f"chance_{score}"])
    for (rule, gradient), line in summary.groupby(["rule", "gradient"], sort=False):
        rows = sorted(records(line), key=lambda row: places[_tick(row[MAX_STEPS])])
        x = [places[_tick(row[MAX_STEPS])] for row in rows]
        y, spread = (np.array([100 * float(row[name]) for row in rows]) for name in (score, f"{score}_std"))
        dashed = gradient == "rule"
        axis.plot(
            x,
            y,
            color=colour_of(str(rule)),
            linestyle="--" if dashed else "-",
            marker="s" if dashed else "o",
            markerfacecolor="white" if dashed else None,
            markersize=4,
            label=f"{rule}, {gradient} gradient",
        )
        axis.fill_between(x, y - spread, y + spread, color=colour_of(str(rule)), alpha=0.12, linewidth=0)
    axis.axhline(100 * float(summary[f"chance_{score}"].mean()), **CHANCE)
    axis.set_xticks(range(len(ticks)), list(places))
    axis.set_xlabel("fine-tuning steps")
    axis.set_ylabel(labels.heading(score))
    axis.set_ylim(0, 102)
    how = labels.rule("", str(first["feedback_scale"]), layers=str(first["layers"]))
    axis.set_title(f"{first['attack']}, {labels.epsilon(first['epsilon'])}{how}\n{labels.what_of(first)}")


def _tick(value: Any) -> str:
    return WHOLE if labels.is_missing(value) else f"{int(value)}"
