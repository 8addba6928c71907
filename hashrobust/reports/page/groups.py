"""Results in groups: what differs in the seed alone, averaged, with the names that people choose by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hashrobust.reports import labels
from hashrobust.reports.summary import GROUP_BY, records, unmixed
from hashrobust.reports.worst_case import attack_name, is_of_run

Row = Mapping[str, Any]
EPOCH = "epoch"
"""Column of runs taken at an earlier epoch, to match another's clean score."""
_OF_MODEL = ("rule", "feedback_scale", "layers", "defence", EPOCH)
_OF_SETTING = ("dataset", "backbone", "objective", "bits")
KINDS = {"exact": "exact", "rule": "rule", "none": "other", "transfer": "other"}


@dataclass(frozen=True)
class Group:
    """Attacks that differ in the seed of their run alone."""

    members: Sequence[Row]
    setting: str
    """Data, network and training, but for the rule."""
    attack: str
    """Name and parameters, whatever the gradient."""

    @property
    def row(self) -> Row:
        """The first member: it has the settings of all."""
        return self.members[0]

    @property
    def epsilon(self) -> float:
        """In pixel units."""
        return float(self.row["epsilon"])

    @property
    def model(self) -> str:
        """The rule that trained it, with its defence."""
        return model_name(self.row)

    @property
    def kind(self) -> str:
        """`exact`, `rule`, `control` (through another rule's feedback) or `other`."""
        return KINDS.get(str(self.row["gradient"]), "control")

    @property
    def line(self) -> str:
        """The model; for a control also the rule whose feedback was borrowed."""
        return model_name(self.row, str(self.row["gradient"]))

    @property
    def coloured_by(self) -> str:
        """What the colour stands for: the model, or the rule whose feedback was borrowed."""
        return str(self.row["gradient"]).partition(":")[2] or self.model

    @property
    def metric(self) -> str:
        """The column of the score: map, t_map or accuracy."""
        return labels.score_of(self.row)

    @property
    def folders(self) -> list[str]:
        """Of the members."""
        return [str(member["folder"]) for member in self.members]

    def mean(self, metric: str) -> float:
        """Over seeds; NaN if a member lacks it."""
        values = [member.get(metric, math.nan) for member in self.members]
        if any(labels.is_missing(value) for value in values):
            return math.nan
        return math.fsum(values) / len(values)

    def spread(self, metric: str) -> tuple[float, float]:
        """Low and high: one standard deviation over seeds, or the interval over queries of the only one."""
        if len(self.members) == 1:
            return self.mean(f"{metric}_low"), self.mean(f"{metric}_high")
        mean = self.mean(metric)
        deviation = math.sqrt(
            math.fsum((m[metric] - mean) ** 2 for m in self.members) / (len(self.members) - 1)
        )
        return mean - deviation, mean + deviation


def model_name(row: Row, gradient: str = "exact") -> str:
    """The rule that trained a run, with its defence, the epoch if it was taken at an earlier one, and the rule whose
    feedback an attack borrowed.
    """
    shown = labels.rule_of(row)
    epoch = row.get(EPOCH)
    shown += f" at epoch {epoch:.0f}" if epoch is not None and not labels.is_missing(epoch) else ""
    feedback = gradient.partition(":")[2]
    return f"{shown} via {feedback}" if feedback else shown


def covers(seeds: int) -> str:
    """What the spread of a mean over so many seeds covers."""
    return (
        f"one standard deviation over {seeds} seeds" if seeds > 1 else "95% interval over queries (one seed)"
    )


def run_keys(whole: pd.DataFrame) -> list[str]:
    """The settings of runs, but for rule and seed, that must be told to keep runs apart; where nothing varies, data,
    network and objective all the same.
    """
    usual = [c for c in _OF_SETTING if c in whole.columns]
    found = unmixed(_attacked(whole), [c for c in (*GROUP_BY, EPOCH) if c in whole.columns])
    more = [c for c in found if is_of_run(c) and c not in _OF_MODEL and c not in usual]
    varied = [c for c in usual if whole[c].nunique(dropna=False) > 1]
    return [*varied, *more] or usual


def constants(whole: pd.DataFrame) -> str:
    """Data, network and objective as far as all runs share them, in words."""
    shared = [c for c in _OF_SETTING if c in whole.columns and whole[c].nunique(dropna=False) == 1]
    return setting_name(records(whole.head(1))[0], shared)


def groups(frame: pd.DataFrame, of_runs: Sequence[str]) -> list[Group]:
    """The attacks of a frame, in its order."""
    frame = _attacked(frame)
    if frame.empty:
        return []
    keys = unmixed(frame, [c for c in (*GROUP_BY, EPOCH, *of_runs) if c in frame.columns])
    alike: dict[tuple[str, ...], list[Row]] = {}
    for row in records(frame):  # once: small frames of pandas take long
        alike.setdefault(tuple(str(row[key]) for key in keys), []).append(row)
    return [
        Group(rows, setting_name(rows[0], of_runs), attack_name(rows[0], gradient=False))
        for rows in alike.values()
    ]


def setting_name(row: Row, of_runs: Sequence[str]) -> str:
    """Data, network and training of a run in words, but for the rule."""
    words = [_setting(column, row[column]) for column in of_runs if not labels.is_missing(row.get(column))]
    return ", ".join(words) or "the others"


def _setting(column: str, value: Any) -> str:
    shown = labels.setting(column, value)
    if column == "bits":
        return f"{int(value)} bits"
    return shown if column in _OF_SETTING else f"{labels.name(column)} {shown}"


def twins(found: Sequence[Group]) -> dict[int, Group]:
    """For each group by a rule's gradient (its place) the group otherwise equal by the exact one."""
    exact = {_twin_key(group): group for group in found if group.kind == "exact"}
    return {
        place: exact[_twin_key(group)]
        for place, group in enumerate(found)
        if group.kind in ("rule", "control") and _twin_key(group) in exact
    }


def attacks_in_order(found: Sequence[Group]) -> list[str]:
    """Attacks run by the rule's gradient as well first, then those that leave the least by the exact one."""
    pairs = {group.attack for group in found if group.kind == "rule"}
    left: dict[str, list[float]] = {}
    for group in found:
        left.setdefault(group.attack, []).append(
            group.mean(group.metric) if group.kind == "exact" else math.inf
        )
    return sorted(left, key=lambda attack: (attack not in pairs, min(left[attack])))


def whole_first(settings: Iterable[str], found: Sequence[Group]) -> list[str]:
    """Settings of whole trainings before those of their first steps, else in the order given."""
    whole = {group.setting: labels.is_missing(group.row.get("max_steps")) for group in found}
    return sorted(dict.fromkeys(settings), key=lambda setting: not whole[setting])


def epsilon_rank(epsilon: float) -> tuple[float, float]:
    """A key that sorts epsilons by their distance from 8/255, the usual one, larger ones before smaller."""
    return (round(abs(math.log(epsilon * 255 / 8)), 6), -epsilon)


def _twin_key(group: Group) -> tuple[Any, ...]:
    return (group.setting, group.model, group.attack, round(group.epsilon, 9), group.row.get("queries"))


def _attacked(frame: pd.DataFrame) -> pd.DataFrame:
    attacked = frame[frame["attack"] != "none"]
    attacked.attrs = dict(frame.attrs)
    return attacked


def percent(value: Any) -> str:
    """A fraction as printed, `41.5`; a dash where nothing is known."""
    return labels.percent(value, labels.MISSING)


def with_spread(value: float, low: float, high: float, seeds: int) -> str:
    """A mean in percent with what it was measured to vary by."""
    if labels.is_missing(value) or labels.is_missing(low) or labels.is_missing(high):
        return percent(value)
    if seeds > 1:
        return f"{percent(value)} ± {percent((high - low) / 2)}"
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"
