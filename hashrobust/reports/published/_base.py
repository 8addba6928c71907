"""A published number, and the tables that they are read from."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

Fact = str | int | float
"""One fact of a protocol: words, or a number."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a number answers: two numbers that differ in one of these are never put side by side.

    `score` is `map`, `t_map` or `accuracy`; `attack` is `none` without one; `defence` is the kind of adversarial
    training, `none` without.
    """

    task: str
    dataset: str
    score: str
    rule: str = "bp"
    defence: str = "none"
    attack: str = "none"
    goal: str = "none"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A number of a paper: a fraction, what it answers, and every fact of its protocol that the source tells.

    A fact that the source does not tell is left out of `protocol`, and so can never be taken for equal. `spread` is a
    standard deviation over seeds, None where none is given.
    """

    source: str
    asked: Asked
    value: float
    spread: float | None = None
    protocol: Mapping[str, Fact]


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of a table of this folder, as words."""
    return list(csv.DictReader(line for line in _lines(name) if not line.startswith("#")))


def read_header(name: str) -> str:
    """What a table says of itself: its source, and what its numbers are."""
    return " ".join(line.removeprefix("#").strip() for line in _lines(name) if line.startswith("#"))


def _lines(name: str) -> list[str]:
    return (files("hashrobust.reports.published") / name).read_text(encoding="utf-8").splitlines()


def fraction(percent: str) -> float:
    """Percent, as printed, as a fraction without the rounding of a division."""
    return round(float(percent) / 100, 8)
