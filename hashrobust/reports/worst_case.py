"""The worst case: each query's lowest score over all attacks that were run on it, whatever the attacker knew.

Source: the per-example worst case over an ensemble of attacks of AutoAttack (Croce and Hein, arXiv 2003.01690).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hashrobust.experiments.measures import MEASURES
from hashrobust.metrics import bootstrap_interval
from hashrobust.reports import labels
from hashrobust.reports.formats import Table
from hashrobust.reports.queries import Queries
from hashrobust.reports.summary import records, summarise

NO_ATTACK = "no attack"
_OF_ATTACK = {
    *(
        "attack",
        "preset",
        "goal",
        "epsilon",
        "gradient",
        "queries",
        "surrogate",
        "warm_start",
        "folder",
        "steps",
    ),
}
_GROUP_BY = (
    *("task", "dataset", "backbone", "bits", "objective", "epsilon", "rule"),
    *("feedback_scale", "layers", "defence"),
    *("epoch", "joined", "attacks", "queries"),
)
_TOLD = ("rule", "epsilon")
_UNTOLD = {"task", "joined", "attacks", "queries", "feedback_scale", "layers", "defence", "gradient"}
_NUMBERS = ("clean", "worst", "worst_low", "worst_high")


@dataclass(frozen=True)
class WorstCase:
    """One run at one epsilon on one set of queries, under all attacks that were run on exactly these."""

    run: str
    epsilon: float
    task: str
    settings: Mapping[str, Any]
    """Those of the run."""
    attacks: tuple[str, ...]
    """The attacks that were joined."""
    folders: tuple[str, ...]
    """Theirs, `<run>/attacks/<attack>`."""
    query_ids: NDArray[np.int64]
    clean: NDArray[np.float64]
    """(Q,) score of each query without an attack."""
    scores: NDArray[np.float64]
    """(attacks, Q) score of each query under each attack."""

    @cached_property
    def worst(self) -> NDArray[np.float64]:
        """(Q,) lowest score of each query; the attacker may leave the image as it is."""
        lowest: NDArray[np.float64] = np.vstack([self.clean, self.scores]).min(axis=0)
        return lowest

    @property
    def mean(self) -> float:
        """Mean of the lowest scores over queries."""
        return float(self.worst.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95% bootstrap interval of the mean, over queries."""
        return bootstrap_interval(self.worst)

    @cached_property
    def won(self) -> dict[str, float]:
        """The share of queries whose lowest score each attack reached, most first; equal ones share a query."""
        reached = np.vstack([self.clean, self.scores]) <= self.worst
        shares = (reached / reached.sum(axis=0)).mean(axis=1)
        named = zip((NO_ATTACK, *self.attacks), shares.tolist(), strict=True)
        return dict(sorted(named, key=lambda item: -item[1]))

    @property
    def queries(self) -> pd.DataFrame:
        """One row a query: query_id, clean, worst, then a column an attack."""
        whole = {"query_id": self.query_ids, "clean": self.clean, "worst": self.worst}
        return pd.DataFrame({**whole, **dict(zip(self.attacks, self.scores, strict=True))})


def worst_cases(frame: pd.DataFrame, results: Path) -> list[WorstCase]:
    """The worst cases of all runs of a results frame, by run, epsilon and set of queries.

    Every finished attack counts, those of audits and those by a rule's gradient too. Attacks on other queries are
    never joined: they make a worst case of their own.

    Raises:
        StoreError: a table of queries is damaged.
    """
    queries = Queries(results)
    joined: dict[tuple[Any, ...], list[tuple[dict[str, Any], pd.DataFrame]]] = {}
    for row in records(frame):
        table = queries.of(row)
        if table is not None:
            key = (row["run"], round(row["epsilon"], 9), tuple(table["query_id"]))
            joined.setdefault(key, []).append((row, table))
    settings = [c for c in frame.attrs.get("settings", frame.columns) if is_of_run(str(c))]
    return [_join(members, settings) for members in joined.values()]


def is_of_run(column: str) -> bool:
    """Whether a setting is one of the run and not of the attack."""
    return column not in _OF_ATTACK and not column.startswith(("attack_", "params."))


def _join(members: Sequence[tuple[dict[str, Any], pd.DataFrame]], settings: Sequence[str]) -> WorstCase:
    first, table = members[0]
    return WorstCase(
        run=first["run"],
        epsilon=first["epsilon"],
        task=str(first["task"]),
        settings={name: first[name] for name in settings if name in first},
        attacks=_distinct([row for row, _ in members]),
        folders=tuple(row["folder"] for row, _ in members),
        query_ids=table["query_id"].to_numpy(),
        clean=table["clean"].to_numpy(dtype=float),
        scores=np.stack([queries["score"].to_numpy(dtype=float) for _, queries in members]),
    )


def _distinct(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The attacks' names; where two have the same (other threads or batches), their folders tell them apart."""
    names = [attack_name(row) for row in rows]
    return tuple(
        f"{name} [{Path(row['folder']).name}]" if names.count(name) > 1 else name
        for name, row in zip(names, rows, strict=True)
    )


def attack_name(row: Mapping[str, Any], *, gradient: bool = True) -> str:
    """An attack with whose gradient it followed and its own parameters; a gradient that is not the model's own,
    exact or by rule, is told in any case.
    """
    followed = str(row["gradient"])
    words = {"none": "no gradient", "transfer": "transfer"}.get(followed, f"{followed} gradient")
    told = gradient or followed in ("none", "transfer")
    preset = "" if row["preset"] in ("default", "none") else f" ({row['preset']})"
    goal = [] if row["goal"] in ("non-targeted", "none") else [str(row["goal"])]
    own = [
        f"{labels.name(name)} {_parameter(name, row[name])}"
        for name in sorted(row)
        if name.startswith("params.") and not labels.is_missing(row[name])
    ]
    start = [] if labels.is_missing(row.get("warm_start")) else ["warm start"]
    seed = row.get("attack_seed", 0)
    drawn = [] if labels.is_missing(seed) or seed == 0 else [f"attack seed {seed:.0f}"]
    return ", ".join([f"{row['attack']}{preset}", *goal, *([words] if told else []), *start, *own, *drawn])


def _parameter(name: str, value: Any) -> str:
    in_pixels = name.endswith("step_size") and isinstance(value, int | float)
    return labels.epsilon(value) if in_pixels else labels.setting(name, value)


def worst_case_frame(cases: Sequence[WorstCase]) -> pd.DataFrame:
    """One row a worst case: settings of the run, epsilon, queries, scores as fractions, the attacks joined and
    the one that won most often. `attrs["settings"]` names the columns of settings.
    """
    rows = [
        {
            **{**case.settings, "run": case.run, "epsilon": case.epsilon},
            # Whose gradient does not matter here; the summary over seeds wants the column.
            "gradient": "any",
            "queries": len(case.query_ids),
            "attacks": len(case.attacks),
            "joined": "; ".join(sorted(case.attacks)),
            **dict(zip(_NUMBERS, (case.clean.mean(), case.mean, *case.interval), strict=True)),
            "won_most": next(iter(case.won)),
            "won_share": next(iter(case.won.values())),
        }
        for case in cases
    ]
    frame = pd.DataFrame(rows)
    found = {name for case in cases for name in case.settings}
    frame.attrs["settings"] = sorted(found | {"epsilon", "gradient", "queries", "attacks", "joined"})
    return frame


def worst_case_tables(cases: Sequence[WorstCase]) -> list[Table]:
    """A table for each task, in percent: clean and worst case, how many attacks were joined, which won most often.

    Left out is what only one attack was run on, since its worst case is that attack's score, unless others stand
    beside it that had several at the same epsilon and on the same queries: a run without a rule's gradient has fewer.
    """
    several = {_setting_of(case) for case in cases if len(case.attacks) > 1}
    frame = worst_case_frame([case for case in cases if _setting_of(case) in several])
    return [
        _table(frame[frame["task"] == task].copy(), frame.attrs["settings"], task)
        for task in MEASURES
        if len(frame) and (frame["task"] == task).any()
    ]


def _setting_of(case: WorstCase) -> tuple[Any, ...]:
    return case.task, round(case.epsilon, 9), tuple(case.query_ids)


def _table(frame: pd.DataFrame, settings: Sequence[str], task: str) -> Table:
    frame.attrs["settings"] = list(settings)
    summary = summarise(frame, [c for c in _GROUP_BY if c in frame.columns], [*_NUMBERS, "won_share"])
    columns = [str(column) for column in summary.columns]
    keys = columns[: columns.index("seeds")]
    shown = [k for k in keys if k not in _UNTOLD and (k in _TOLD or summary[k].nunique(dropna=False) > 1)]
    members: dict[str, list[dict[str, Any]]] = {}
    for row in records(frame):
        members.setdefault(_key(row, keys), []).append(row)
    heads = ("seeds", "clean", "worst case", "attacks", "queries", "won most often")
    return Table(
        title=f"Worst case over all attacks: {MEASURES[task].words} in percent",
        columns=(*(labels.name(k) for k in shown), *heads),
        rows=tuple(_cells(row, shown, members[_key(row, keys)]) for row in records(summary)),
        words=len(shown),
        notes=(
            "Mean over queries of the lowest score over all attacks on the same queries, those by a rule's gradient "
            "included. Square brackets: 95% interval over queries, for one seed; ±: standard deviation over seeds.",
        ),
    )


def _key(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    return "\n".join(str(row[key]) for key in keys)


def _cells(
    row: Mapping[str, Any], shown: Sequence[str], members: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    words = [labels.rule_of(row) if k == "rule" else labels.setting(k, row[k]) for k in shown]
    several = row["seeds"] > 1
    worst = (
        labels.number("map", row["worst"], row["worst_std"])
        if several
        else labels.interval("map", row["worst"], row["worst_low"], row["worst_high"])
    )
    clean = labels.number("map", row["clean"], row["clean_std"])
    counts = [str(row[k]) for k in ("attacks", "queries")]
    winners = ", ".join(dict.fromkeys(member["won_most"] for member in members))
    seeds = ", ".join(str(member["seed"]) for member in members if "seed" in member)
    return (*words, seeds, clean, worst, *counts, f"{winners} ({100 * row['won_share']:.0f}%)")
