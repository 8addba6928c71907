"""Figures over epsilon: the score, and the masking gap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hashrobust.reports import labels
from hashrobust.reports.page.groups import (
    Group,
    attacks_in_order,
    covers,
    percent,
    twins,
    whole_first,
    with_spread,
)
from hashrobust.reports.page.series import Figure, Reference, Series, choice, in_order
from hashrobust.reports.style import colour_of

LARGEST_SHOWN = 34.0
"""Epsilon (255ths) at which the figure ends at first: beyond it audits only check that the attack works at all."""


def score_figure(found: Sequence[Group], worst: Sequence[Series]) -> Figure | None:
    """Score against epsilon, a line for each rule and gradient, from the unattacked score on."""
    twin = twins(found)
    lines: dict[tuple[str, ...], list[tuple[Group, Group | None]]] = {}
    for place, group in enumerate(found):
        if group.kind == "other" and group.row["gradient"] == "transfer":
            continue
        key = (group.setting, group.attack, group.line, group.kind)
        lines.setdefault(key, []).append((group, twin.get(place)))
    series = in_order([*(_line(members) for members in lines.values()), *worst])
    if not series:
        return None
    epsilons = sorted({x for one in series for x in one.x})
    largest = max([x for x in epsilons if x <= LARGEST_SHOWN], default=epsilons[-1])
    return Figure(
        identifier="score",
        title="Score against epsilon",
        caption="Solid: the attacker follows the exact gradient. Dashed: the attacker follows the rule gradient, the "
        "learning rule's own feedback, a diagnostic and no measure of robustness. Dotted: the zero-step control, "
        "weights attacked through the feedback of a rule that never trained them. Epsilon 0 is no attack.",
        choices=[
            choice(
                "setting", "Setting", series, whole_first((one.choices["setting"] for one in series), found)
            ),
            choice("attack", "Attack", series, attacks_in_order(found)),
        ],
        series=series,
        x_title="epsilon (255ths)",
        y_titles={"": "score (%)"},
        references=_references(found),
        x_ticks=[(x, f"{x:.4g}") for x in epsilons],
        x_range=[-0.02 * largest, 1.02 * largest],
    )


def _line(members: Sequence[tuple[Group, Group | None]]) -> Series:
    members = sorted(members, key=lambda pair: pair[0].epsilon)
    first = members[0][0]
    metric, seeds = first.metric, min(len(group.members) for group, _ in members)
    clean = first.mean(f"clean_{metric}")
    spreads = [(math.nan, math.nan), *(group.spread(metric) for group, _ in members)]
    return Series(
        model=first.model,
        kind=first.kind,
        colour=colour_of(first.coloured_by),
        choices={"setting": first.setting, "attack": first.attack},
        x=[0.0, *(255 * group.epsilon for group, _ in members)],
        y=[100 * clean, *(100 * group.mean(metric) for group, _ in members)],
        text=[
            f"{first.model}, no attack: {percent(clean)}%",
            *(_said(group, twin) for group, twin in members),
        ],
        low=[100 * low for low, _ in spreads],
        high=[100 * high for _, high in spreads],
        note=covers(seeds),
        score=f"{labels.name(metric)} (%)",
    )


def _said(group: Group, twin: Group | None) -> str:
    """What stands at a point; a number by a rule's gradient never without the exact one."""
    metric, seeds = group.metric, len(group.members)
    number = with_spread(group.mean(metric), *group.spread(metric), seeds)
    where = f"epsilon {labels.epsilon(group.epsilon)}"
    if group.kind in ("exact", "other"):
        words = "exact gradient" if group.kind == "exact" else "no gradient"
        return f"{group.line}, {where}\n{words}: {number}%"
    return f"{group.line}, {where}\nrule gradient: {number}%\nexact gradient: {exact_beside(group, twin)}"


def exact_beside(group: Group, twin: Group | None) -> str:
    """The exact-gradient number that belongs beside a rule's, or that there is none."""
    value = group.mean(f"exact_{group.metric}") if twin is None else twin.mean(twin.metric)
    return "not run" if labels.is_missing(value) else f"{percent(value)}%"


def _references(found: Sequence[Group]) -> list[Reference]:
    """Chance, and the score if every query had exactly the code that the attack steers to."""
    panels: dict[tuple[str, str], list[Group]] = {}
    for group in found:
        panels.setdefault((group.setting, group.attack), []).append(group)
    lines = []
    for (setting, attack), members in panels.items():
        choices = {"setting": setting, "attack": attack}
        for kind in ("chance", "theory"):
            values = [group.mean(f"{kind}_{group.metric}") for group in members]
            known = [value for value in values if not math.isnan(value)]
            if known:
                level = 100 * math.fsum(known) / len(known)
                lines.append(Reference(kind, choices, [0.0, 255.0], [level, level]))
    return lines


def gap_figure(found: Sequence[Group]) -> Figure | None:
    """Masking gap, score by the rule's gradient minus score by the exact one, a bar for each rule."""
    twin = twins(found)
    bars: dict[tuple[str, ...], list[tuple[Group, Group]]] = {}
    for place, other in twin.items():
        group = found[place]
        if not (group.kind == "rule" and group.row["rule"] == "bp"):
            bars.setdefault((group.setting, group.attack, group.line), []).append((group, other))
    series = in_order([_bars(members) for members in bars.values()])
    if not series:
        return None
    return Figure(
        identifier="gap",
        title="Masking gap by rule",
        caption="Score by the rule gradient minus score by the exact gradient, in points: the part of an apparent "
        "robustness that is hidden gradient. Hatched bars (via ...): weights attacked through the feedback of a "
        "rule that never trained them.",
        choices=[
            choice(
                "setting", "Setting", series, whole_first((one.choices["setting"] for one in series), found)
            ),
            choice("attack", "Attack", series, attacks_in_order(found)),
        ],
        series=series,
        x_title="epsilon",
        y_titles={"": "masking gap (points)"},
        bars=True,
    )


def _bars(members: Sequence[tuple[Group, Group]]) -> Series:
    members = sorted(members, key=lambda pair: pair[0].epsilon)
    first = members[0][0]
    spreads = [gap_spread(group) for group, _ in members]
    return Series(
        model=first.line,
        kind="control" if first.kind == "control" else "gap",
        colour=colour_of(first.coloured_by),
        choices={"setting": first.setting, "attack": first.attack},
        x=[labels.epsilon(group.epsilon) for group, _ in members],
        y=[100 * gap(group, twin) for group, twin in members],
        text=[
            f"{_said(group, twin)}\nmasking gap: {100 * gap(group, twin):.1f} points"
            for group, twin in members
        ],
        low=[100 * low for low, _ in spreads],
        high=[100 * high for _, high in spreads],
        note=covers(min(len(group.members) for group, _ in members)),
    )


def gap(group: Group, twin: Group) -> float:
    """Masking gap of a group by a rule's gradient, as a fraction."""
    stored = group.mean("masking_gap")
    return group.mean(group.metric) - twin.mean(twin.metric) if math.isnan(stored) else stored


def gap_spread(group: Group) -> tuple[float, float]:
    """What the gap was measured to vary by: over seeds, or paired over queries."""
    if math.isnan(group.mean("masking_gap")):
        return math.nan, math.nan
    return group.spread("masking_gap")


def nearest_epsilon(found: Sequence[Group], wanted: float = 8 / 255) -> float:
    """The epsilon at which a sentence quotes numbers: 8/255 if it was attacked, else the largest."""
    epsilons: list[Any] = sorted({group.epsilon for group in found})
    close = [epsilon for epsilon in epsilons if math.isclose(epsilon, wanted, abs_tol=1e-6)]
    return float(close[0] if close else epsilons[-1])
