"""Figures of the worst case: its mean against epsilon, and query by query."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hashrobust.experiments.measures import MEASURES
from hashrobust.reports import labels
from hashrobust.reports.page.groups import (
    covers,
    epsilon_rank,
    model_name,
    percent,
    setting_name,
    with_spread,
)
from hashrobust.reports.page.series import Figure, Series, choice, in_order
from hashrobust.reports.style import colour_of
from hashrobust.reports.worst_case import WorstCase

ALL_ATTACKS = "worst case over all attacks"
_POINTS = 51
"""Of a curve over queries, so that thousands of queries do not weigh down the page."""

_SCORES = {"hashing": "AP of a query (%)", "classification": "correct (%)"}
Key = tuple[str, str, float]


def _grouped(cases: Sequence[WorstCase], of_runs: Sequence[str]) -> dict[Key, list[WorstCase]]:
    """Worst cases that differ in the seed alone, by setting, model and epsilon. Where runs went through different
    attacks or queries, those of the most seeds are taken, then those of the most attacks.
    """
    alike: dict[Key, dict[tuple[Any, ...], list[WorstCase]]] = {}
    for case in cases:
        key = (
            setting_name(case.settings, of_runs),
            model_name(case.settings),
            case.epsilon,
        )
        joined = (tuple(sorted(case.attacks)), len(case.query_ids))
        alike.setdefault(key, {}).setdefault(joined, []).append(case)
    return {
        key: max(several.values(), key=lambda members: (len(members), len(members[0].attacks)))
        for key, several in alike.items()
    }


def worst_numbers(cases: Sequence[WorstCase], of_runs: Sequence[str]) -> Mapping[Key, str]:
    """The worst case of each setting, model and epsilon in percent, with what it was measured to vary by."""
    return {
        key: with_spread(*_spread(members), len(members)) for key, members in _grouped(cases, of_runs).items()
    }


def _spread(members: Sequence[WorstCase]) -> tuple[float, float, float]:
    """Mean, low and high."""
    mean = math.fsum(case.mean for case in members) / len(members)
    if len(members) == 1:
        return mean, *members[0].interval
    deviation = float(np.std([case.mean for case in members], ddof=1))
    return mean, mean - deviation, mean + deviation


def worst_series(cases: Sequence[WorstCase], of_runs: Sequence[str]) -> list[Series]:
    """For the figure over epsilon: the worst case as if it were one more attack."""
    lines: dict[tuple[str, str], list[tuple[float, list[WorstCase]]]] = {}
    for (setting, name, epsilon), members in _grouped(cases, of_runs).items():
        lines.setdefault((setting, name), []).append((epsilon, members))
    return [_line(setting, name, points) for (setting, name), points in lines.items()]


def _line(setting: str, name: str, points: Sequence[tuple[float, list[WorstCase]]]) -> Series:
    points = sorted(points, key=lambda point: point[0])
    spreads = [_spread(members) for _, members in points]
    clean = math.fsum(float(case.clean.mean()) for case in points[0][1]) / len(points[0][1])
    return Series(
        model=name,
        kind="exact",
        colour=colour_of(name),
        choices={"setting": setting, "attack": ALL_ATTACKS},
        x=[0.0, *(255 * epsilon for epsilon, _ in points)],
        y=[100 * clean, *(100 * mean for mean, _, _ in spreads)],
        text=[
            f"{name}, no attack: {percent(clean)}%",
            *(_said(name, epsilon, members) for epsilon, members in points),
        ],
        low=[math.nan, *(100 * low for _, low, _ in spreads)],
        high=[math.nan, *(100 * high for _, _, high in spreads)],
        note=covers(min(len(members) for _, members in points)),
        score=f"{MEASURES[points[0][1][0].task].words} (%)",
    )


def _said(name: str, epsilon: float, members: Sequence[WorstCase]) -> str:
    counts = sorted({len(case.attacks) for case in members})
    many = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    number = with_spread(*_spread(members), len(members))
    word = "attack" if many == "1" else "attacks"
    return f"{name}, epsilon {labels.epsilon(epsilon)}\nlowest of each query over {many} {word}: {number}%"


def query_figure(cases: Sequence[WorstCase], of_runs: Sequence[str]) -> Figure | None:
    """Query by query, from the lowest score to the highest: worst case solid, unattacked thin."""
    series: list[Series] = []
    for (setting, name, epsilon), members in _grouped(cases, of_runs).items():
        choices = {"setting": setting, "epsilon": labels.epsilon(epsilon)}
        for kind, values in (
            ("clean", np.concatenate([case.clean for case in members])),
            ("exact", np.concatenate([case.worst for case in members])),
        ):
            series.append(_curve(name, kind, values, members, choices))
    if not series:
        return None
    order = [labels.epsilon(epsilon) for epsilon in sorted({c.epsilon for c in cases}, key=epsilon_rank)]
    return Figure(
        identifier="queries",
        title="Worst case, query by query",
        caption="Each query's lowest score over all attacks on the same queries, sorted from the lowest to the "
        "highest; dotted the same queries without an attack, sorted likewise. Queries of several seeds are "
        "pooled. A curve along the floor means that nearly every query is lost.",
        choices=[choice("setting", "Setting", series), choice("epsilon", "Epsilon", series, order)],
        series=in_order(series),
        x_title="share of queries (%)",
        x_range=[0.0, 100.0],
        y_titles={"": "score of a query (%)"},
    )


def _curve(
    name: str, kind: str, values: np.ndarray, members: Sequence[WorstCase], choices: dict[str, str]
) -> Series:
    shares = np.linspace(0, 1, min(_POINTS, len(values)))
    heights = np.quantile(values, shares)
    word = "no attack" if kind == "clean" else "worst case"
    return Series(
        model=name,
        kind=kind,
        colour=colour_of(name),
        choices=choices,
        x=[round(100 * float(share), 1) for share in shares],
        y=[round(100 * float(height), 2) for height in heights],
        text=[
            f"{name}, {word}\n{100 * share:.0f}% of queries score {percent(height)}% or less"
            for share, height in zip(shares, heights, strict=True)
        ],
        score=_SCORES[members[0].task],
    )
