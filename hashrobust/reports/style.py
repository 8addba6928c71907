"""How every figure looks, and how it reaches the disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from hashrobust.errors import InputError
from hashrobust.experiments import store

DPI = 150
RULE_COLOURS = {
    "pretrained": "#777777",
    "bp": "#000000",
    "fa": "#CC79A7",
    "dfa": "#8C6D31",
    "usf": "#E69F00",
    "brsf": "#56B4E9",
    "frsf": "#D55E00",
}
"""Okabe and Ito's palette (2008), told apart by colour-blind readers as well."""

SPARE_COLOURS = ("#009E73", "#0072B2", "#882255", "#999933")
RELEVANT, IRRELEVANT = "#009E73", "#CC3311"
CHANCE: dict[str, Any] = {"color": "0.45", "linestyle": ":", "linewidth": 1.5, "label": "chance"}
"""The line of what knows nothing."""
_SUFFIXES = (".png", ".pdf", ".svg")
_SETTINGS: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "hashrobust",
    "text.parse_math": False,  # names of classes and runs are no formulas
}
_WITHOUT_DATE: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}

styled = mpl.rc_context(_SETTINGS)
"""Decorator of every function that draws."""


def colour_of(rule: str) -> str:
    """The colour of a rule, the same in every figure."""
    if rule in RULE_COLOURS:
        return RULE_COLOURS[rule]
    return SPARE_COLOURS[sum(rule.encode()) % len(SPARE_COLOURS)]


def darker(colour: str) -> str:
    """The colour, less than half as bright."""
    red, green, blue = to_rgb(colour)
    return to_hex((0.45 * red, 0.45 * green, 0.45 * blue))


def grid(count: int, *, width: float, height: float, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each so many inches wide and high."""
    columns = min(columns, count)
    width *= 1.6 if count == 1 else 1  # room for the legend below
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, position + 1) for position in range(count)]
    return figure, axes


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend below the panels for all that they show."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = max(1, int(figure.get_figwidth() // 3.2))
    figure.set_figheight(figure.get_figheight() + 0.21 * math.ceil(len(handles) / columns) + 0.15)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)


def save(figure: Figure, path: Path, also: Sequence[str] = ()) -> list[Path]:
    """Write a figure to `path` and beside it with the suffixes in `also`; the files hold no date.

    Raises:
        InputError: a suffix other than .png, .pdf and .svg.
        StoreError: the place cannot be written.
    """
    paths = [path, *(path.with_suffix(f".{suffix.lstrip('.')}") for suffix in also)]
    for file in paths:
        if file.suffix not in _SUFFIXES:
            raise InputError(f"figure '{file}' has an unknown suffix: use .png, .pdf or .svg")
        with store.sealed_writing(file) as temporary:
            figure.savefig(
                temporary, format=file.suffix[1:], dpi=DPI, metadata=_WITHOUT_DATE.get(file.suffix, {})
            )
    return list(dict.fromkeys(paths))
