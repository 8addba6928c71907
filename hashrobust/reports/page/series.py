"""A figure as data: lines or bars, what they are chosen by, and what is said of each point. `figures.js` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hashrobust.reports import labels


@dataclass(frozen=True)
class Series:
    """One line, or one group of bars.

    `kind` is `exact`, `rule`, `control`, `other`, `clean` or `gap`; `choices` says under which choices it is
    shown, `note` what its band covers.
    """

    model: str
    kind: str
    colour: str
    choices: dict[str, str]
    x: list[Any]
    y: list[float]
    text: list[str]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    note: str = ""
    score: str = ""
    """What y measures, where series of one figure measure different things."""


@dataclass(frozen=True)
class Reference:
    """A grey line to compare with, such as chance."""

    name: str
    choices: dict[str, str]
    x: list[Any]
    y: list[float]


@dataclass(frozen=True)
class Choice:
    """Something to choose a figure's series by; `options` in the order in which they are offered."""

    key: str
    label: str
    options: list[str]


@dataclass(frozen=True)
class Figure:
    """A figure and the words around it. `y_titles` may depend on the choice `measure`."""

    identifier: str
    title: str
    caption: str
    choices: list[Choice]
    series: list[Series]
    x_title: str
    y_titles: dict[str, str]
    bars: bool = False
    references: list[Reference] = field(default_factory=list)
    x_ticks: list[tuple[Any, str]] = field(default_factory=list)
    x_range: list[float] | None = None
    from_zero: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain values for `figures.js`."""
        return asdict(self)


def choice(key: str, label: str, series: Sequence[Series], order: Sequence[str] = ()) -> Choice:
    """The options that occur: those of `order` first, the others as they come."""
    present = dict.fromkeys(one.choices[key] for one in series)
    return Choice(key, label, [*(o for o in order if o in present), *(o for o in present if o not in order)])


def in_order(series: Sequence[Series]) -> list[Series]:
    """Rules in the order of every table, exact before rule gradient."""
    kinds = ("clean", "exact", "gap", "other", "rule", "control")
    return sorted(series, key=lambda s: (labels.rule_rank(s.model), kinds.index(s.kind)))
