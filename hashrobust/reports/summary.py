"""Means over seeds, and the pairing of a rule-gradient result with its exact-gradient twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hashrobust.errors import InputError
from hashrobust.reports import labels
from hashrobust.reports.filters import check_column

GROUP_BY = (
    *("dataset", "backbone", "bits", "attack", "preset", "goal"),
    *("objective", "epsilon", "rule", "feedback_scale", "layers", "defence", "gradient"),
)
"""What a group shares unless told otherwise."""

_COMPANIONS = ("weights_digest", "attack_seed", "attack_query_seed", "attack_batch_size", "attack_threads")
"""Settings that may differ between the seeds of one group, though not within one seed."""


def summarise(frame: pd.DataFrame, group_by: Sequence[str] | None, metrics: Sequence[str]) -> pd.DataFrame:
    """Mean and standard deviation over seeds: group columns, `seeds`, `spread`, then each metric
    and `<metric>_std` (n - 1 in the divisor; NaN for one seed).

    `seeds` is the number of seeds, `spread` says what the deviation covers. Apart from the seed,
    a group never mixes settings: those that differ within a group (always epsilon, attack and
    gradient) are added to `group_by`.

    Raises:
        InputError: an unknown column, or a metric that is not a number.
    """
    for column in group_by or ():
        check_column(frame, column, use="--group-by")
    for metric in metrics:
        check_column(frame, metric, use="--metric")
        if frame[metric].notna().any() and not pd.api.types.is_numeric_dtype(frame[metric]):
            raise InputError(f"--metric '{metric}' holds words, not numbers: choose a metric such as map")
    keys = unmixed(frame, [c for c in group_by or GROUP_BY if c in frame.columns])
    rows = []
    for _, group in frame.groupby(keys, dropna=False, sort=False):
        spread = "seeds" if len(group) > 1 else "none (one seed)"
        row = {**{k: group[k].iloc[0] for k in keys}, "seeds": len(group), "spread": spread}
        for metric in metrics:
            values = group[metric].astype(float)
            # A metric that some seeds lack has no mean over the seeds that the row names.
            mean, std = values.mean(skipna=False), values.std(ddof=1, skipna=False)
            row |= {metric: mean, f"{metric}_std": std}
        rows.append(row)
    rows.sort(key=lambda row: [labels.sort_key(k, row[k]) for k in keys])
    return pd.DataFrame(rows)


def unmixed(frame: pd.DataFrame, group_by: Sequence[str]) -> list[str]:
    """`group_by` and the settings that would otherwise be mixed within a group."""
    settings = [c for c in frame.attrs.get("settings", frame.columns) if c in frame.columns]
    passed_over = {*GROUP_BY, *_COMPANIONS, "run", "folder", "seed"}
    others = [c for c in settings if c not in passed_over]
    # The gradient comes last: what differs between gradients must not hide behind them, or rows
    # would be taken for twins that are not.
    keys = [c for c in dict.fromkeys(group_by) if c != "gradient"]
    for column in [*(c for c in GROUP_BY if c in settings), *others]:
        if column not in (*keys, "gradient") and _varies(frame, keys, column):
            keys.append(column)
    for column in _COMPANIONS:
        if column not in keys and column in settings and _varies(frame, [*keys, "seed", "gradient"], column):
            keys.append(column)
    if "gradient" in settings and ("gradient" in group_by or _varies(frame, keys, "gradient")):
        keys.append("gradient")
    return keys


def _varies(frame: pd.DataFrame, keys: Sequence[str], column: str) -> bool:
    by = list(dict.fromkeys(keys))
    if not by or frame[column].nunique(dropna=False) < 2:  # without grouping, which takes long
        return frame[column].nunique(dropna=False) > 1
    return bool((frame.groupby(by, dropna=False)[column].nunique(dropna=False) > 1).any())


def with_exact_twins(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the exact-gradient scores that its rule-gradient rows brought along as rows of
    their own, where a filter has left those out (without intervals).
    """
    key = ["run", "attack", "preset", "epsilon", "queries"]
    there = {tuple(row[k] for k in key) for row in records(frame) if row["gradient"] == "exact"}
    alone = [
        labels.is_rule_gradient(row["gradient"]) and tuple(row[k] for k in key) not in there
        for row in records(frame)
    ]
    brought = [name for name in ("exact_map", "exact_accuracy") if name in frame.columns]
    twins = frame[pd.Series(alone, index=frame.index) & frame[brought].notna().any(axis=1)].copy()
    if twins.empty:
        return frame
    for metric in (column for column in ("map", "t_map", "accuracy") if column in frame.columns):
        twins[[f"{metric}_low", f"{metric}_high"]] = float("nan")
        twins[metric] = twins[f"exact_{metric}"]
    twins["gradient"] = "exact"
    both = pd.concat([frame, twins.drop_duplicates(key)], ignore_index=True)
    both.attrs = dict(frame.attrs)
    return both


def by_task(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The frame's rows of each task, which are measured differently."""
    if "task" not in frame.columns:
        return [frame]
    parts = [part for _, part in frame.groupby("task", sort=False)]
    for part in parts:
        part.attrs = dict(frame.attrs)
    return parts


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries."""
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


@dataclass(frozen=True)
class Pair:
    """Rows that differ in the gradient alone: a rule gradient's number never stands by itself."""

    exact: Mapping[str, Any] | None
    rule: Mapping[str, Any] | None

    @property
    def row(self) -> Mapping[str, Any]:
        """The row that names the pair: the rule-gradient one, where there is one."""
        row = self.rule if self.rule is not None else self.exact
        assert row is not None
        return row

    @property
    def gradient(self) -> str:
        """`none`, `exact`, `rule` or `rule:NAME`."""
        return str(self.row.get("gradient", "exact"))


def pairs(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[Pair]:
    """Each rule-gradient row with its exact twin (equal in `keys`), and exact rows without one.

    A control (`rule:NAME`) stands as a row of its own below its exact twin's.
    """

    def key(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row.get(k)) for k in keys if k != "gradient")

    own = {key(row): row for row in rows if row.get("gradient", "exact") == "rule"}
    exact = {key(row): row for row in rows if row.get("gradient", "exact") == "exact"}
    found = []
    for row in rows:
        gradient = str(row.get("gradient", "exact"))
        if labels.is_rule_gradient(gradient):
            found.append(Pair(exact.get(key(row)), row))
        elif key(row) not in own:
            found.append(Pair(row, None))
    return found
