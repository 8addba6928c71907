"""The page's tables as data; `tables.js` sorts, filters and draws them.

No number by a rule's gradient stands in one without the word `rule` and the exact-gradient number next to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from hashrobust.reports import labels
from hashrobust.reports.audit_attacks import PART
from hashrobust.reports.comparison import COLUMNS, NOTES, Comparison, comparison_cells
from hashrobust.reports.page.depth import Audited
from hashrobust.reports.page.epsilon import gap, gap_spread
from hashrobust.reports.page.groups import (
    Group,
    model_name,
    percent,
    setting_name,
    twins,
    with_spread,
)
from hashrobust.reports.page.sources import Sources
from hashrobust.reports.summary import records
from hashrobust.reports.worst_case import WorstCase, attack_name

Row = Mapping[str, Any]
Entries = Sequence[tuple[dict[str, str], list[str]]]
"""For each row what its columns say, and the folders behind it."""

_WORDS = {
    *("task", "setting", "rule", "attack", "score", "epsilon", "seed", "steps x starts"),
    *("part of an audit", "won most often", "verdict", "audit", "checks that failed"),
    *("ours", "published by", "match", "what differs (ours / theirs)"),
}
_AROUND = {"epsilon": "epsilon {}", "seed": "seed {}", "score": "{} in percent", "attack": "attack {}"}
_FILTERED = ("task", "setting", "rule", "attack", "epsilon", "score", "verdict")
SHORTEST_FILTERED = 12
"""Rows from which on a table has filters."""


@dataclass(frozen=True)
class PageTable:
    """A table; `columns` in order with whether they hold numbers, `shared` what all rows have in common, `sources`
    the folders behind each row.
    """

    identifier: str
    title: str
    shared: str
    columns: list[tuple[str, bool]]
    rows: list[list[str]]
    sources: list[list[int]]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `tables.js`, with the columns that are offered as filters."""
        filters = [
            place
            for place, (name, _) in enumerate(self.columns)
            if name in _FILTERED and len({row[place] for row in self.rows}) > 1
        ]
        return {**asdict(self), "filters": filters if len(self.rows) >= SHORTEST_FILTERED else []}


def table(
    identifier: str, title: str, entries: Entries, sources: Sources, notes: Sequence[str] = ()
) -> PageTable | None:
    """From a mapping of column to cell for each row, with its folders. What a column of words says of all rows alike
    is said once, below the title; columns of numbers without any are left out.
    """
    if not entries:
        return None
    said = {name: {cells[name] for cells, _ in entries} for name in entries[0][0]}
    shared = {n: next(iter(said[n])) for n in said if n in _WORDS and n != "rule" and len(said[n]) == 1}
    shown = [name for name in said if name not in shared and said[name] != {labels.MISSING}]
    return PageTable(
        identifier,
        title,
        ", ".join(
            _AROUND.get(n, "{}").format(text)
            for n, text in shared.items()
            if text not in ("", labels.MISSING)
        ),
        [(name, name not in _WORDS) for name in shown],
        [[cells[name] for name in shown] for cells, _ in entries],
        [sources.of(folders) for _, folders in entries],
        list(notes),
    )


def means_table(found: Sequence[Group], sources: Sources) -> PageTable | None:
    """Every setting, attack and epsilon: mean over seeds, exact and rule gradient side by side."""
    twin = twins(found)
    taken = {id(twin[place]) for place in twin if found[place].kind == "rule"}
    entries = [
        (
            _group_cells(group, twin.get(place)),
            [*(twin[place].folders if place in twin else []), *group.folders],
        )
        for place, group in enumerate(found)
        if id(group) not in taken
    ]
    return table("means", "By setting, mean over seeds", entries, sources)


def _group_cells(group: Group, twin: Group | None) -> dict[str, str]:
    by_rule = group.kind in ("rule", "control")
    exact = twin if by_rule else group
    metric = group.metric
    return {
        "task": str(group.row["task"]),
        "setting": group.setting,
        "rule": group.line,
        "attack": group.attack,
        "epsilon": labels.epsilon(group.epsilon),
        "score": labels.name(metric),
        "queries": labels.setting("queries", group.row.get("queries")),
        "seeds": str(len(group.members)),
        "clean": percent(group.mean(f"clean_{metric}")),
        "exact gradient": exact_cell(group, exact),
        "(rule gradient)": f"(rule: {own_spread(group)})" if by_rule else labels.MISSING,
        "gap, rule - exact": _gap_cell(group, twin) if twin is not None else labels.MISSING,
        "theory": percent(group.mean(f"theory_{metric}")),
        "chance": percent(group.mean(f"chance_{metric}")),
    }


def exact_cell(group: Group, exact: Group | None) -> str:
    """The exact-gradient number of a group, or beside it."""
    if exact is None:
        beside = percent(group.mean(f"exact_{group.metric}"))
        return "not run" if beside == labels.MISSING else beside
    return _said(str(exact.row["gradient"]), own_spread(exact))


def _said(gradient: str, number: str) -> str:
    """A number in the column of exact gradients, with a word where none was followed, or another model's."""
    return {"none": f"no gradient: {number}", "transfer": f"transfer: {number}"}.get(gradient, number)


def own_spread(group: Group) -> str:
    """The score of a group in percent with what it varies by."""
    return with_spread(group.mean(group.metric), *group.spread(group.metric), len(group.members))


def _gap_cell(group: Group, twin: Group) -> str:
    return with_spread(gap(group, twin), *gap_spread(group), len(group.members))


def results_table(frame: pd.DataFrame, of_runs: Sequence[str], sources: Sources) -> PageTable | None:
    """Every finished attack, those of audits too, a rule gradient's beside its exact twin."""
    rows = records(frame)
    exact = {_twin_key(row): row for row in rows if row["gradient"] == "exact"}
    paired = {_twin_key(row) for row in rows if row["gradient"] == "rule"}
    entries = []
    for row in rows:
        if row["gradient"] == "exact" and _twin_key(row) in paired:
            continue
        twin = exact.get(_twin_key(row)) if labels.is_rule_gradient(row["gradient"]) else None
        folders = [str(one["folder"]) for one in (twin, row) if one is not None]
        entries.append((_result_cells(row, twin, of_runs), folders))
    has_audits = any(cells["part of an audit"] != labels.MISSING for cells, _ in entries)
    notes = ["Attacks of audits are among these: see the column part of an audit."] if has_audits else []
    return table("results", "Every result", entries, sources, notes)


def _twin_key(row: Row) -> tuple[str, ...]:
    names = [n for n in row if n in ("run", "attack", "preset", "goal", "epsilon", "queries", "attack_seed")]
    return tuple(
        str(row[n])
        for n in [*names, *(n for n in row if n.startswith("params.")), "attack_query_seed"]
        if n in row
    )


def _result_cells(row: Row, twin: Row | None, of_runs: Sequence[str]) -> dict[str, str]:
    metric, gradient = labels.score_of(row), str(row["gradient"])
    by_rule = labels.is_rule_gradient(gradient)
    unattacked = row["attack"] == "none"
    beside = (
        _interval(row if twin is None else twin, metric) if not by_rule or twin is not None else "not run"
    )
    if by_rule and twin is None and not labels.is_missing(row.get(f"exact_{metric}")):
        beside = percent(row[f"exact_{metric}"])
    return {
        "task": str(row["task"]),
        "setting": setting_name(row, of_runs),
        "rule": model_name(row, gradient),
        "seed": labels.setting("seed", row.get("seed")),
        "attack": "no attack" if unattacked else attack_name(row, gradient=False),
        "epsilon": labels.epsilon(row["epsilon"]),
        "score": labels.name(metric),
        "clean": percent(row.get(f"clean_{metric}")),
        "exact gradient": labels.MISSING if unattacked else _said(gradient, beside),
        "(rule gradient)": f"(rule: {_interval(row, metric)})" if by_rule else labels.MISSING,
        "gap, rule - exact": _interval(row, "masking_gap") if by_rule else labels.MISSING,
        "theory": percent(row.get(f"theory_{metric}")),
        "chance": percent(row.get(f"chance_{metric}")),
        "queries": labels.setting("queries", row.get("queries")),
        "part of an audit": labels.setting(PART, row.get(PART)),
    }


def _interval(row: Row, metric: str) -> str:
    missing = float("nan")
    value, low, high = (row.get(name, missing) for name in (metric, f"{metric}_low", f"{metric}_high"))
    return with_spread(value, low, high, 1)


def worst_table(cases: Sequence[WorstCase], of_runs: Sequence[str], sources: Sources) -> PageTable | None:
    """The worst case of every run and epsilon, with the attacks that won most queries."""
    entries = []
    for case in sorted(cases, key=lambda case: case.epsilon):
        winners = [f"{name} ({100 * share:.0f}%)" for name, share in list(case.won.items())[:3] if share > 0]
        cells = {
            "task": case.task,
            "setting": setting_name(case.settings, of_runs),
            "rule": model_name(case.settings),
            "seed": labels.setting("seed", case.settings.get("seed")),
            "epsilon": labels.epsilon(case.epsilon),
            "clean": percent(float(case.clean.mean())),
            "worst case": with_spread(case.mean, *case.interval, 1),
            "attacks": str(len(case.attacks)),
            "queries": str(len(case.query_ids)),
            "won most often": "; ".join(winners),
        }
        entries.append((cells, list(case.folders)))
    notes = [
        "Mean over queries of the lowest score over all attacks on the same queries, whatever the attacker knew (exact "
        "gradient, rule gradient, transfer, no gradient). Won most often: the attacks that reached the lowest score of "
        "most queries. Details lists every attack that was joined."
    ]
    return table("worst", "Worst case over all attacks", entries, sources, notes)


def audits_table(audits: Sequence[Audited], sources: Sources) -> PageTable | None:
    """The audits side by side, with their verdicts and the checks that failed."""
    entries = []
    for audit in sorted(audits, key=lambda audit: labels.rule_rank(audit.model)):
        numbers, found = audit.found["headline"], audit.found
        rule = numbers.get("rule_map", numbers.get("rule_accuracy"))
        failed = [check["name"] for check in found["checks"] if check["status"] == "FAIL"]
        cells = {
            "task": str(audit.settings["task"]),
            "setting": audit.setting,
            "rule": audit.model,
            "seed": labels.setting("seed", audit.settings.get("seed")),
            "steps x starts": f"{audit.config.get('steps', '')} x {audit.config.get('restarts', '')}",
            "verdict": found["verdict"],
            "clean": percent(_headline(numbers, "clean")),
            "worst case": _audit_interval(numbers, "worst"),
            "exact gradient": percent(_headline(numbers, "exact")),
            "(rule gradient)": labels.MISSING if labels.is_missing(rule) else f"(rule: {percent(rule)})",
            "theory": percent(_headline(numbers, "theory")),
            "chance": percent(_headline(numbers, "chance")),
            "checks that failed": "; ".join(failed) or "none",
        }
        entries.append((cells, [f"{audit.run}/audits/{audit.name}"]))
    notes = ["PASS: the worst-case number can be quoted. It does not say that the number is high."]
    return table("audits", "Audits", entries, sources, notes)


def published_table(found: Sequence[Comparison], sources: Sources) -> PageTable | None:
    """Published numbers beside ours, with what differs in their protocols."""
    entries = [
        (dict(zip(COLUMNS, comparison_cells(pair), strict=True)), [str(pair.ours.row["folder"])])
        for pair in found
    ]
    return table("published", "Published numbers beside ours", entries, sources, NOTES)


def _headline(numbers: Row, kind: str, end: str = "") -> Any:
    return numbers.get(f"{kind}_map{end}", numbers.get(f"{kind}_accuracy{end}"))


def _audit_interval(numbers: Row, kind: str) -> str:
    value, low, high = (_headline(numbers, kind, end) for end in ("", "_low", "_high"))
    return with_spread(value, low, high, 1)
