"""Figure of fine-tuning: masking gap and exact-gradient score against the number of fine-tuning steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from hashrobust.reports import labels
from hashrobust.reports.page.epsilon import exact_beside, gap, gap_spread
from hashrobust.reports.page.groups import (
    Group,
    attacks_in_order,
    covers,
    epsilon_rank,
    groups,
    percent,
    setting_name,
    twins,
)
from hashrobust.reports.page.series import Figure, Series, choice, in_order
from hashrobust.reports.style import colour_of

MAX_STEPS = "max_steps"
WHOLE = "all"
SCORE, GAP = "score", "masking gap"


def steps_figure(frame: pd.DataFrame, of_runs: Sequence[str]) -> Figure | None:
    """None unless runs that are otherwise alike differ in their fine-tuning steps."""
    if MAX_STEPS not in frame.columns or frame[MAX_STEPS].nunique(dropna=False) < 2:
        return None
    found = [group for group in groups(frame, [*of_runs, MAX_STEPS]) if group.kind != "other"]
    twin = twins(found)
    ticks = _ticks(found)
    lines: dict[tuple[str, ...], list[tuple[Group, Group | None]]] = {}
    for place, group in enumerate(found):
        for measure in (SCORE, GAP) if place in twin else (SCORE,):
            setting = setting_name(group.row, [c for c in of_runs if c != MAX_STEPS])
            key = (setting, group.attack, labels.epsilon(group.epsilon), measure, group.line, group.kind)
            lines.setdefault(key, []).append((group, twin.get(place)))
    series = [_line(key, members, ticks) for key, members in lines.items() if len(members) > 1]
    if not series:
        return None
    return Figure(
        identifier="steps",
        title="Against fine-tuning steps",
        caption="Score and masking gap after so many steps of fine-tuning by the rule; 0 is the pre-trained network "
        "before any. A gap that is there at 0 steps owes nothing to training by the rule. Solid: exact gradient. "
        "Dashed: rule gradient, a diagnostic.",
        choices=[
            choice("setting", "Setting", series),
            choice("attack", "Attack", series, attacks_in_order(found)),
            choice("epsilon", "Epsilon", series, _epsilons(found)),
            choice("measure", "Measure", series),
        ],
        series=in_order(series),
        x_title="fine-tuning steps",
        y_titles={SCORE: "score (%)", GAP: "masking gap (points)"},
        x_ticks=[(place, name) for name, place in ticks.items()],
    )


def _epsilons(found: Sequence[Group]) -> list[str]:
    return [labels.epsilon(epsilon) for epsilon in sorted({g.epsilon for g in found}, key=epsilon_rank)]


def _ticks(found: Sequence[Group]) -> dict[str, int]:
    """The numbers of steps, evenly spaced, the whole training last."""
    numbers = sorted({int(g.row[MAX_STEPS]) for g in found if not labels.is_missing(g.row[MAX_STEPS])})
    names = [f"{number:,}".replace(",", " ") for number in numbers]
    if any(labels.is_missing(group.row[MAX_STEPS]) for group in found):
        names.append(WHOLE)
    return {name: place for place, name in enumerate(names)}


def _name(value: Any) -> str:
    return WHOLE if labels.is_missing(value) else f"{int(value):,}".replace(",", " ")


def _line(
    key: tuple[str, ...], members: Sequence[tuple[Group, Group | None]], ticks: dict[str, int]
) -> Series:
    setting, attack, epsilon, measure, line, kind = key
    members = sorted(members, key=lambda pair: ticks[_name(pair[0].row[MAX_STEPS])])
    first = members[0][0]
    is_gap = measure == GAP
    values, spreads, text = [], [], []
    for group, twin in members:
        score = group.mean(group.metric)
        value = gap(group, twin) if is_gap and twin is not None else score
        values.append(100 * value)
        spreads.append(gap_spread(group) if is_gap else group.spread(group.metric))
        said = f"{line}, {_name(group.row[MAX_STEPS])} steps\n"
        if kind == "exact":
            said += f"exact gradient: {percent(score)}%"
        else:
            said += f"rule gradient: {percent(score)}%\nexact gradient: {exact_beside(group, twin)}"
        text.append(said + (f"\nmasking gap: {percent(value)} points" if is_gap else ""))
    return Series(
        model=first.model,
        kind=("control" if kind == "control" else "gap") if is_gap else kind,
        colour=colour_of(first.coloured_by),
        choices={"setting": setting, "attack": attack, "epsilon": epsilon, "measure": measure},
        x=[ticks[_name(group.row[MAX_STEPS])] for group, _ in members],
        y=values,
        low=[100 * low for low, _ in spreads],
        high=[100 * high for _, high in spreads],
        text=text,
        note=covers(min(len(group.members) for group, _ in members)),
        score="" if is_gap else f"{labels.name(first.metric)} (%)",
    )
