"""Figures of scores: against epsilon, and the masking gap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hashrobust.errors import InputError
from hashrobust.reports import labels
from hashrobust.reports.style import CHANCE, colour_of, darker, grid, legend, save, styled
from hashrobust.reports.summary import records, summarise, with_exact_twins

Row = dict[str, Any]
_PANEL = ("dataset", "backbone", "bits", "objective", "attack", "preset", "goal")
_LINE = ("rule", "feedback_scale", "layers", "defence", "gradient")
_MARKERS = "vPX*<>pd"
"""Of lines that share rule and gradient with another one and differ in a further setting."""
_THEORY: Row = {"color": "0.45", "linestyle": "-.", "linewidth": 1.2, "label": "theory (mean over runs)"}


@styled
def map_against_epsilon(frame: pd.DataFrame, path: Path, *, also: Sequence[str] = ()) -> list[Path]:
    """mAP (t-mAP of targeted attacks) against epsilon, a panel an attack and objective, a colour a rule.

    Where any attack was run at several epsilons, those at a single one are left to the tables (`swept`).
    Exact gradient solid, rule gradient dashed, another rule's feedback dotted in that rule's colour, another model's
    gradient dashed and dotted, a defended model with diamonds, attacks of further settings with markers of their own;
    bands are one standard deviation over seeds, or the 95% interval over queries for one seed.

    Raises:
        InputError: the frame holds no attack.
    """
    panels = _panels(with_exact_twins(swept(_attacked(frame))))
    figure, axes = grid(len(panels), width=4.6, height=3.6)
    for axis, panel in zip(axes, panels, strict=True):
        _draw_epsilons(axis, panel)
    legend(figure, axes)
    return save(figure, path, also)


def _draw_epsilons(axis: Axes, panel: pd.DataFrame) -> None:
    first = panel.iloc[0]
    metric = labels.score_of(first)
    clean = f"clean_{metric}"
    wanted = [metric, f"{metric}_low", f"{metric}_high", clean, f"theory_{metric}", f"chance_{metric}"]
    summary = summarise(panel, [*_PANEL, *_LINE, "epsilon"], [m for m in wanted if m in panel.columns])
    summary = summary.reindex(columns=list(dict.fromkeys([*summary.columns, *wanted])))
    keys = [
        c for c in summary.columns[: list(summary.columns).index("seeds")] if c not in (*_PANEL, "epsilon")
    ]
    spreads = set()
    extra = [k for k in keys if k not in _LINE]
    markers = iter(_MARKERS)
    for _, line in summary.groupby(keys, dropna=False, sort=False):
        stroke = _stroke(records(line)[0])
        if any(not labels.is_missing(line[k].iloc[0]) for k in extra):
            stroke["marker"] = next(markers, stroke["marker"])
        spreads.add(_draw_line(axis, line.sort_values("epsilon"), metric, extra, stroke))
    theory = summary.groupby("epsilon")[f"theory_{metric}"].mean().dropna()
    if len(theory):
        axis.plot(255 * theory.index.to_numpy(), 100 * theory.to_numpy(), **_THEORY)
    chance = summary[f"chance_{metric}"].mean()
    if not math.isnan(chance):
        axis.axhline(100 * chance, **CHANCE)
    axis.set_title(_panel_title(first))
    axis.set_xlabel("epsilon (255ths; 0: no attack)")
    axis.set_ylabel(labels.heading(metric))
    axis.set_ylim(0, 102)
    axis.set_xlim(left=0)
    epsilons = sorted({0.0, *(255 * summary["epsilon"])})
    axis.set_xticks(epsilons, [f"{e:.3g}" for e in epsilons])
    note = "band: " + ", ".join(sorted(spreads))
    by_rule = panel["gradient"].map(labels.is_rule_gradient)
    alone = sorted(set(panel.loc[by_rule & panel[f"exact_{metric.removeprefix('t_')}"].isna(), "rule"]))
    if alone:
        note += f"\nexact gradient not run: {', '.join(alone)}"
    axis.text(0.98, 0.98, note, transform=axis.transAxes, ha="right", va="top", fontsize=7.5, color="0.35")


def _draw_line(axis: Axes, line: pd.DataFrame, metric: str, extra: Sequence[str], stroke: Row) -> str:
    """Draw one rule and gradient from the clean score on; returns what its band covers."""
    first = records(line)[0]
    over_seeds = bool((line["seeds"] > 1).all())
    score = line[metric].to_numpy(dtype=float)
    if over_seeds:
        low, high = (score + sign * line[f"{metric}_std"].to_numpy(dtype=float) for sign in (-1, 1))
    else:
        low, high = (line[f"{metric}_{side}"].to_numpy(dtype=float) for side in ("low", "high"))
    clean = first[f"clean_{metric}"]
    epsilons = 255 * np.array([0.0, *line["epsilon"]])
    colour = _colour(first)
    axis.plot(
        epsilons,
        100 * np.array([clean, *score]),
        color=colour,
        label=_line_name(first, extra),
        **stroke,
    )
    axis.fill_between(epsilons[1:], 100 * low, 100 * high, color=colour, alpha=0.15, linewidth=0)
    return "standard deviation over seeds" if over_seeds else "95% interval over queries"


def _stroke(row: Row) -> dict[str, Any]:
    gradient = str(row["gradient"])
    stroke: dict[str, Any] = {"linestyle": "-", "marker": "o", "markersize": 4}
    if gradient == "transfer":
        stroke["linestyle"] = (0, (6, 1, 1, 1, 1, 1))
    if labels.is_rule_gradient(gradient):
        dashes, marker = ("--", "s") if gradient == "rule" else (":", "^")
        stroke |= {"linestyle": dashes, "marker": marker, "markerfacecolor": "white"}
    return stroke if labels.is_undefended(row) else stroke | {"marker": "D"}


def _colour(row: Row) -> str:
    """That of the rule, or of the rule whose feedback the attacker borrowed; darker with feedback of matched scale."""
    borrowed = str(row["gradient"]).partition(":")[2]
    colour = colour_of(borrowed or str(row["rule"]))
    return darker(colour) if row.get("feedback_scale") == "matched" and not borrowed else colour


def _line_name(row: Row, extra: Sequence[str]) -> str:
    gradient = "rule" if labels.is_rule_gradient(str(row["gradient"])) else str(row["gradient"])
    shown = labels.rule_of(row, str(row["gradient"]))
    told = [k for k in extra if not labels.is_missing(row[k])]
    others = "".join(f", {labels.name(k)} {labels.setting(k, row[k])}" for k in told)
    words = {"none": "no gradient", "transfer": "transfer"}.get(gradient, f"{gradient} gradient")
    return f"{shown}, {words}{others}"


@styled
def masking_gap_bars(frame: pd.DataFrame, path: Path, *, also: Sequence[str] = ()) -> list[Path]:
    """Masking gap, mAP(rule gradient) - mAP(exact gradient), a group of bars an epsilon; whiskers are
    one standard deviation over seeds, or the paired 95% interval over queries for one seed.

    Raises:
        InputError: no attack was run with a rule gradient and with the exact one.
    """
    attacked = _attacked(frame)
    by_rule = attacked[attacked["gradient"].map(labels.is_rule_gradient) & attacked["masking_gap"].notna()]
    if by_rule.empty:
        raise InputError(
            "no attack was run both ways, so there is no masking gap to draw: run the same "
            "`hashrobust attack` with --gradient exact and with --gradient rule"
        )
    by_rule.attrs = dict(frame.attrs)
    panels = _panels(by_rule)
    figure, axes = grid(len(panels), width=5.2, height=3.6)
    for axis, panel in zip(axes, panels, strict=True):
        _draw_gaps(axis, panel)
    legend(figure, axes)
    return save(figure, path, also)


def _draw_gaps(axis: Axes, panel: pd.DataFrame) -> None:
    metrics = ["masking_gap", "masking_gap_low", "masking_gap_high"]
    summary = summarise(panel, [*_PANEL, *_LINE, "epsilon"], metrics)
    keys = [
        c for c in summary.columns[: list(summary.columns).index("seeds")] if c not in (*_PANEL, "epsilon")
    ]
    epsilons = sorted(summary["epsilon"].unique())
    groups = list(summary.groupby(keys, dropna=False, sort=False))
    width = 0.8 / len(groups)
    for position, (_, group) in enumerate(groups):
        first = records(group)[0]
        places = [epsilons.index(e) + (position - (len(groups) - 1) / 2) * width for e in group["epsilon"]]
        gaps = 100 * group["masking_gap"].to_numpy(dtype=float)
        colour = _colour(first)
        control = str(first["gradient"]) != "rule"
        plain = None if labels.is_undefended(first) else "..."
        axis.bar(
            places,
            gaps,
            0.9 * width,
            facecolor="white" if control else colour,
            edgecolor=colour,
            hatch="///" if control else plain,
            label=_line_name(first, [k for k in keys if k not in _LINE]),
        )
        axis.errorbar(places, gaps, 100 * _whiskers(group), fmt="none", ecolor="0.3", capsize=3, linewidth=1)
    axis.axhline(0, color="0.2", linewidth=1)
    axis.set_xticks(range(len(epsilons)), [labels.epsilon(e) for e in epsilons])
    axis.set_xlabel("epsilon")
    score = labels.name(labels.score_of(panel.iloc[0]))
    axis.set_ylabel(f"masking gap (points of {score}, %)\nrule - exact gradient")
    covers = {
        "standard deviation over seeds" if n > 1 else "paired 95% over queries" for n in summary["seeds"]
    }
    axis.set_title(f"{_panel_title(summary.iloc[0])}\nwhiskers: {', '.join(sorted(covers))}")


def _whiskers(group: pd.DataFrame) -> Any:
    """Lengths below and above the bars (2, bars); 0 where nothing is known."""
    gap = group["masking_gap"].to_numpy(dtype=float)
    several = (group["seeds"] > 1).to_numpy()
    std = group["masking_gap_std"].to_numpy(dtype=float)
    low = np.where(several, std, gap - group["masking_gap_low"].to_numpy(dtype=float))
    high = np.where(several, std, group["masking_gap_high"].to_numpy(dtype=float) - gap)
    return np.clip(np.nan_to_num(np.stack([low, high])), 0, None)


def _attacked(frame: pd.DataFrame) -> pd.DataFrame:
    attacked = frame[frame["attack"] != "none"]
    if attacked.empty:
        raise InputError("the results hold no finished attack to draw: run `hashrobust attack` first")
    attacked.attrs = dict(frame.attrs)
    return attacked


def swept(frame: pd.DataFrame) -> pd.DataFrame:
    """The attacks of a frame that were run at several epsilons; all of them if none was."""
    several = frame.groupby(list(_PANEL), dropna=False)["epsilon"].transform("nunique") > 1
    if not several.any():
        return frame
    kept = frame[several]
    kept.attrs = dict(frame.attrs)
    return kept


def _panels(frame: pd.DataFrame) -> list[pd.DataFrame]:
    panels = [panel for _, panel in frame.groupby(list(_PANEL), dropna=False, sort=False)]
    for panel in panels:
        panel.attrs = dict(frame.attrs)
    return panels


def _panel_title(row: Any) -> str:
    attack = row["attack"] if row["preset"] == "default" else f"{row['attack']} ({row['preset']})"
    return f"{attack}, {row['goal']}\n{labels.what_of(row)}"
