"""The tables that people read. No rule-gradient number stands in one without the word `rule`
beside it and the exact-gradient number next to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hashrobust.errors import InputError
from hashrobust.reports import labels
from hashrobust.reports.formats import Table
from hashrobust.reports.summary import GROUP_BY, Pair, pairs, records, summarise

NOT_RUN = "not run"
NOT_SHOWN = "not shown"
_BLOCK = ("dataset", "backbone", "bits", "attack", "preset", "goal")
_ROW = ("objective", "epsilon", "rule", "feedback_scale", "gradient")
_ATTACK_KEYS = (
    "run",
    "rule",
    "feedback_scale",
    "attack",
    "preset",
    "goal",
    "epsilon",
    "attack_seed",
    "queries",
)

_GRADIENT_NOTE = (
    "Numbers in brackets marked rule were reached by following the learning rule's feedback, not the "
    "derivative: a diagnostic, never a measure of robustness."
)
_SEED_NOTE = "Mean ± standard deviation over seeds; no ± where there is one seed."
_SCALE_NOTE = (
    "Chance: a ranking that knows nothing; theory: queries whose codes were exactly the attack's guide."
)


def summary_table(frame: pd.DataFrame, group_by: Sequence[str] | None, metrics: Sequence[str]) -> Table:
    """A results frame's groups and metrics (see `summarise`), exact and rule gradient side by side.

    Raises:
        InputError: an unknown column, or a metric that is not a number.
    """
    metrics = list(dict.fromkeys(metrics))
    summary, keys = _summary(frame, group_by, metrics)
    # The gradient and the feedback's scale are told in the cells and with the rule.
    told = {"gradient", *(["feedback_scale"] if "rule" in keys else [])}
    constant = {k for k in keys if group_by is None and k != "rule" and summary[k].nunique(dropna=False) == 1}
    shown = [k for k in keys if k not in told | constant]
    shared = ", ".join(
        f"{labels.name(k)} {labels.setting(k, summary[k].iloc[0])}" for k in keys if k in constant - told
    )
    columns = [labels.name(k) for k in shown] + ["seeds"]
    rows = []
    for pair in pairs(records(summary), keys):
        cells = [_setting(pair, k) for k in shown] + [_seeds(pair)]
        for metric in metrics:
            cells += _metric_cells(pair, metric)
        rows.append(tuple(cells))
    for metric in metrics:
        columns += _metric_heads(metric)
    notes = (_SEED_NOTE, _GRADIENT_NOTE) if _has_rule(summary) else (_SEED_NOTE,)
    return Table(
        f"Results ({shared})" if shared else "Results", tuple(columns), tuple(rows), len(shown), notes
    )


def paper_table(frame: pd.DataFrame) -> list[Table]:
    """Rule x objective x epsilon, one table an attack: clean, attacked by the exact gradient, (by the
    rule's), theory and chance; t-mAP for targeted attacks.

    Raises:
        InputError: the frame holds no attack.
    """
    attacked = frame[frame["attack"] != "none"]
    if attacked.empty:
        raise InputError(
            "the results hold no finished attack: run `hashrobust attack` first, or loosen --filter"
        )
    blocks = [c for c in _BLOCK if c in frame.columns]
    tables = []
    for _, block in attacked.groupby(blocks, dropna=False, sort=False):
        block.attrs = dict(frame.attrs)
        tables.append(_paper_block(block, blocks))
    return tables


def _paper_block(block: pd.DataFrame, blocks: Sequence[str]) -> Table:
    first = block.iloc[0]
    metric = "t_map" if first["goal"] == "targeted" and block["t_map"].notna().any() else "map"
    metrics = [f"clean_{metric}", metric, f"theory_{metric}", f"chance_{metric}"]
    attrs = dict(block.attrs)
    block = block.reindex(columns=list(dict.fromkeys([*block.columns, *metrics])))
    block.attrs = attrs
    summary, keys = _summary(block, [*blocks, *(c for c in _ROW if c in block.columns)], metrics)
    extra = [k for k in keys if k not in (*_BLOCK, *_ROW)]
    shown = ["objective", "epsilon", "rule", *extra]
    rows = []
    for pair in pairs(records(summary), keys):
        cells = [_setting(pair, k) for k in shown]
        for name in metrics:
            cells += _metric_cells(pair, name)
        rows.append((*cells, _seeds(pair)))
    heads = [head for name in metrics for head in _metric_heads(name)]
    title = (
        f"{first['attack']} (preset {first['preset']}), {first['goal']}: "
        f"{first['dataset']}, {first['backbone']}, {first['bits']} bits"
    )
    columns = (*(labels.name(k) for k in shown), *heads, "seeds")
    notes = (_SEED_NOTE, _GRADIENT_NOTE, _SCALE_NOTE)
    return Table(title, columns, tuple(rows), len(shown), notes)


def attack_table(rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> Table:
    """Finished attacks, a row each: clean, attacked, theory and chance side by side, intervals over
    queries. Rows are those of `results_frame`, or mappings with the same keys.
    """
    all_rows = records(rows) if isinstance(rows, pd.DataFrame) else rows
    attacked = [row for row in all_rows if row.get("attack") != "none"]
    if not attacked:
        raise InputError("there is no finished attack to show: run `hashrobust attack` first")
    keys = [k for k in attacked[0] if k in _ATTACK_KEYS or k.startswith("params.")]
    several = len({str(row.get("run")) for row in attacked}) > 1
    shown = [k for k in ("run", "rule", "attack", "epsilon") if k in keys and (k != "run" or several)]
    body = []
    for pair in pairs(attacked, keys):
        metric = "t_map" if not labels.is_missing(pair.row.get("t_map")) else "map"
        cells = [_setting(pair, k) for k in shown]
        cells.append(labels.name(metric))
        cells.append(_with_interval(pair.row, f"clean_{metric}"))
        cells += _attacked(pair, metric)
        cells += [labels.number(metric, pair.row.get(f"{kind}_{metric}")) for kind in ("theory", "chance")]
        body.append(tuple(cells))
    heads = ("score (%)", "clean", "attacked, exact gradient", "attacked, rule gradient", "theory", "chance")
    notes = ["Square brackets: 95% interval over queries (not over seeds)."]
    if any(labels.is_rule_gradient(str(row.get("gradient", "exact"))) for row in attacked):
        notes.append(_GRADIENT_NOTE)
    columns = (*(labels.name(k) for k in shown), *heads)
    return Table("Attack", columns, tuple(body), len(shown) + 1, tuple(notes))


def _attacked(pair: Pair, metric: str) -> list[str]:
    exact = _with_interval(pair.exact, metric) if pair.exact is not None else _exact_beside(pair, metric)
    rule = f"(rule: {_with_interval(pair.rule, metric)})" if pair.rule is not None else labels.MISSING
    return [exact, rule]


def _with_interval(row: Mapping[str, Any], metric: str) -> str:
    return labels.interval(metric, row.get(metric), row.get(f"{metric}_low"), row.get(f"{metric}_high"))


def _summary(
    frame: pd.DataFrame, group_by: Sequence[str] | None, metrics: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The summary, with the exact twins of its metrics, and its group columns."""
    group_by = list(group_by or [c for c in GROUP_BY if c in frame.columns])
    if "rule" in frame.columns and "gradient" not in group_by:
        group_by.append("gradient")
    twins = [f"exact_{m}" for m in metrics if f"exact_{m}" in frame.columns]
    summary = summarise(frame, group_by, list(dict.fromkeys([*metrics, *twins])))
    columns = [str(column) for column in summary.columns]
    return summary, columns[: columns.index("seeds")]


def _setting(pair: Pair, key: str) -> str:
    if key == "rule":
        row = pair.row
        return labels.rule(str(row["rule"]), str(row.get("feedback_scale", "xavier")), pair.gradient)
    return labels.setting(key, pair.row.get(key))


def _seeds(pair: Pair) -> str:
    counts = [row["seeds"] for row in (pair.exact, pair.rule) if row is not None]
    return str(counts[0]) if len(set(counts)) == 1 else f"exact {counts[0]}, rule {counts[1]}"


def _metric_heads(metric: str) -> list[str]:
    if not labels.depends_on_gradient(metric):
        return [labels.heading(metric)]
    return [labels.heading(metric, gradient=gradient) for gradient in ("exact", "rule")]


def _metric_cells(pair: Pair, metric: str) -> list[str]:
    if not labels.depends_on_gradient(metric):
        gap_without_rule = metric == "masking_gap" and pair.rule is None
        return [labels.MISSING if gap_without_rule else _mean(pair.row, metric)]
    if pair.exact is None:
        exact = _exact_beside(pair, metric)
    else:
        exact = _mean(pair.exact, metric)
        if pair.gradient == "none" and exact != labels.MISSING:
            exact += " (no attack)"
    rule = f"(rule: {_mean(pair.rule, metric)})" if pair.rule is not None else labels.MISSING
    return [exact, rule]


def _exact_beside(pair: Pair, metric: str) -> str:
    """The exact-gradient number that a rule-gradient row brought along, as its twin is not in sight."""
    if f"exact_{metric}" not in pair.row:
        return NOT_SHOWN
    text = _mean(pair.row, f"exact_{metric}")
    return NOT_RUN if text == labels.MISSING else text


def _mean(row: Mapping[str, Any], metric: str) -> str:
    kind = metric.removeprefix("exact_")
    return labels.number(kind, row.get(metric), row.get(f"{metric}_std"))


def _has_rule(summary: pd.DataFrame) -> bool:
    return "gradient" in summary.columns and bool(summary["gradient"].map(labels.is_rule_gradient).any())
