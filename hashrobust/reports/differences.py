"""Each rule beside backpropagation, in pairs: the same seed, the same attack, the same queries.

Only by gradients that tell of robustness: exact, of a surrogate, or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hashrobust.experiments.measures import MEASURES
from hashrobust.metrics import paired_bootstrap_interval
from hashrobust.options import BACKPROPAGATION
from hashrobust.reports import labels
from hashrobust.reports.formats import Table
from hashrobust.reports.queries import Queries
from hashrobust.reports.summary import records, summarise

_OF_RULE = {"run", "rule", "feedback_scale", "layers", "folder"}
"""In what the two of a pair may differ, besides how they were computed."""
_EXECUTION = {"threads", "attack_threads", "attack_batch_size"}
_NUMBERS = ("clean_difference", "difference")
_GROUP_BY = (
    *("task", "dataset", "backbone", "bits", "objective", "attack", "preset", "goal", "epsilon"),
    *("rule", "feedback_scale", "layers", "defence", "gradient"),
)
_TOLD = ("attack", "epsilon", "rule")
_UNTOLD = {"task", "preset", "goal"}


def differences_frame(frame: pd.DataFrame, results: Path) -> pd.DataFrame:
    """One row an attack on a model trained by a rule whose twin, trained by `bp` and otherwise equal, was attacked
    alike: the settings, `clean_difference` and `difference` (rule minus bp, of the mean scores as fractions) with their
    95% intervals `_low` and `_high` over queries, paired, and `above`, `below`: 1 where the interval of `difference`
    leaves zero out. `attrs["settings"]` names the columns of settings.
    """
    settings = [str(name) for name in frame.attrs["settings"]]
    told = frame[(frame["attack"] != "none") & ~frame["gradient"].map(labels.is_rule_gradient).astype(bool)]
    queries = Queries(results)
    rows = records(told)
    of_bp = {_key(row, settings): row for row in reversed(rows) if row["rule"] == BACKPROPAGATION}
    found = []
    for row in rows:
        twin = of_bp.get(_key(row, settings))
        if row["rule"] in (BACKPROPAGATION, labels.PRETRAINED) or twin is None:
            continue
        own, other = queries.of(row), queries.of(twin)
        if own is None or other is None or not np.array_equal(own["query_id"], other["query_id"]):
            continue
        shown = {name: row[name] for name in settings if name in row}
        found.append({**shown, "folder": row["folder"], "bp_folder": twin["folder"], **_numbers(own, other)})
    table = pd.DataFrame(found)
    table.attrs["settings"] = settings
    return table


def _key(row: Mapping[str, Any], settings: Sequence[str]) -> str:
    """All that the two of a pair share."""
    kept = [name for name in settings if name not in _OF_RULE | _EXECUTION]
    return "\n".join(f"{name}={'' if labels.is_missing(row.get(name)) else row[name]}" for name in kept)


def _numbers(own: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, column in zip(_NUMBERS, ("clean", "score"), strict=True):
        low, high = paired_bootstrap_interval(own[column], other[column])
        mean = float((own[column] - other[column]).mean())
        numbers |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return numbers | {
        "above": float(numbers["difference_low"] > 0),
        "below": float(numbers["difference_high"] < 0),
    }


def differences_tables(frame: pd.DataFrame) -> list[Table]:
    """A table for each task of a frame of differences, in points of percent: means over seeds, and in how many seeds
    the interval lies above or below zero.
    """
    return [
        _table(frame[frame["task"] == task].copy(), frame.attrs["settings"], task)
        for task in MEASURES
        if len(frame) and (frame["task"] == task).any()
    ]


def _table(frame: pd.DataFrame, settings: Sequence[str], task: str) -> Table:
    frame.attrs["settings"] = list(settings)
    intervals = [f"difference_{end}" for end in ("low", "high")]
    group_by = [name for name in _GROUP_BY if name in frame.columns]
    summary = summarise(frame, group_by, [*_NUMBERS, *intervals, "above", "below"])
    columns = [str(column) for column in summary.columns]
    keys = columns[: columns.index("seeds")]
    shown = [k for k in keys if k in _TOLD or (k not in _UNTOLD and summary[k].nunique(dropna=False) > 1)]
    heads = ("seeds", "clean, rule - bp", "attacked, rule - bp", "above bp", "below bp")
    return Table(
        title=f"{MEASURES[task].words} of each rule minus that of bp, in points",
        columns=(*(labels.name(k) for k in shown), *heads),
        rows=tuple(_cells(row, shown) for row in records(summary)),
        words=len(shown),
        notes=(
            "Pairs of the same seed under the same attack on the same queries, never by a rule's gradient. Square "
            "brackets: 95% interval over queries, for one seed; ±: standard deviation over seeds. Above, below: the "
            "number of seeds whose interval leaves zero out; of 40 comparisons one on each side does by chance.",
        ),
    )


def _cells(row: Mapping[str, Any], shown: Sequence[str]) -> tuple[str, ...]:
    words = [labels.rule_of(row) if k == "rule" else labels.setting(k, row[k]) for k in shown]
    several = row["seeds"] > 1
    attacked = (
        labels.number("map", row["difference"], row["difference_std"])
        if several
        else labels.interval("map", row["difference"], row["difference_low"], row["difference_high"])
    )
    clean = labels.number("map", row["clean_difference"], row["clean_difference_std"] if several else None)
    counts = [str(round(row[name] * row["seeds"])) for name in ("above", "below")]
    return (*words, str(row["seeds"]), clean, attacked, *counts)
