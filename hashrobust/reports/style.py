"""How every figure looks, and how it reaches the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
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
}
_WITHOUT_DATE: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}

styled = mpl.rc_context(_SETTINGS)
"""Decorator of every function that draws."""


def colour_of(rule: str) -> str:
    """The colour of a rule, the same in every figure."""
    if rule in RULE_COLOURS:
        return RULE_COLOURS[rule]
    return SPARE_COLOURS[sum(rule.encode()) % len(SPARE_COLOURS)]


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
        with store.writing(file) as temporary:
            figure.savefig(
                temporary, format=file.suffix[1:], dpi=DPI, metadata=_WITHOUT_DATE.get(file.suffix, {})
            )
    return list(dict.fromkeys(paths))
