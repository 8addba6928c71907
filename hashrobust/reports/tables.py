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
_ROW = ("objective", "epsilon", "rule", "feedback_scale", "layers", "defence", "gradient")
_WITH_RULE = ("feedback_scale", "layers", "defence")
_ATTACK_KEYS = (
    "run",
    "rule",
    "feedback_scale",
    "layers",
    "defence",
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
_CONTROL_NOTE = (
    "via NAME: attacked through the feedback of rule NAME, whatever trained the weights; with weights of bp "
    "the zero-step control."
)
_UNTOLD = {"preset": {"default", "none"}, "goal": {"non-targeted", "none"}}
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
    summary, keys = _summary(_without_repeats(frame, metrics), group_by, metrics)
    # The gradient is told in the cells, the feedback's scale and the defence with the rule.
    told = {"gradient", *(_WITH_RULE if "rule" in keys else ())}
    told |= {k for k, usual in _UNTOLD.items() if k in keys and set(summary[k].map(str)) <= usual}
    constant = {k for k in keys if group_by is None and k != "rule" and summary[k].nunique(dropna=False) == 1}
    shown = [k for k in keys if k not in told | constant]
    shared = [
        f"{labels.name(k)} {labels.setting(k, summary[k].iloc[0])}"
        for k in keys
        if k in constant - told and not labels.is_missing(summary[k].iloc[0])
    ]
    paired = pairs(records(summary), keys)
    seeds = [_seeds(pair) for pair in paired]
    if len(set(seeds)) == 1:
        shared.append(f"seeds {seeds[0]}")
        seeds = []
    alike = _alike(paired, metrics)
    metrics = [metric for metric in metrics if metric not in alike]
    rows = []
    for position, pair in enumerate(paired):
        cells = [_setting(pair, k) for k in shown] + seeds[position : position + 1]
        for metric in metrics:
            cells += _metric_cells(pair, metric)
        rows.append(tuple(cells))
    columns = [*(labels.name(k) for k in shown), *(["seeds"] if seeds else [])]
    for metric in metrics:
        columns += _metric_heads(metric)
    title = f"Results ({', '.join(shared)})" if shared else "Results"
    told_once = ", ".join(f"{labels.name(metric)} {value}%" for metric, value in alike.items())
    notes = ([f"In every row: {told_once}."] if alike else []) + [*_notes(paired)]
    return Table(title, tuple(columns), tuple(rows), len(shown), tuple(notes))


def _alike(paired: Sequence[Pair], metrics: Sequence[str]) -> dict[str, str]:
    """Theory and chance beside a score, where all of several rows share them: a note says them once."""
    found = {}
    for metric in metrics:
        score = metric.removeprefix("theory_").removeprefix("chance_")
        values = {_mean(pair.row, metric) for pair in paired}
        beside = score != metric and score in metrics
        if beside and len(paired) > 1 and len(values) == 1 and labels.MISSING not in values:
            (found[metric],) = values
    return found


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
    metric = labels.score_of(first)
    metrics = [f"clean_{metric}", metric, f"theory_{metric}", f"chance_{metric}"]
    attrs = dict(block.attrs)
    block = block.reindex(columns=list(dict.fromkeys([*block.columns, *metrics])))
    block.attrs = attrs
    summary, keys = _summary(block, [*blocks, *(c for c in _ROW if c in block.columns)], metrics)
    extra = [k for k in keys if k not in (*_BLOCK, *_ROW)]
    shown = ["objective", "epsilon", "rule", *extra]
    rows = []
    paired = pairs(records(summary), keys)
    for pair in paired:
        cells = [_setting(pair, k) for k in shown]
        for name in metrics:
            cells += _metric_cells(pair, name)
        rows.append((*cells, _seeds(pair)))
    heads = [head for name in metrics for head in _metric_heads(name)]
    what = ", ".join(
        [*(labels.setting(name, first[name]) for name in ("dataset", "backbone")), *_bits(first)]
    )
    title = f"{first['attack']} (preset {first['preset']}), {first['goal']}: {what}"
    columns = (*(labels.name(k) for k in shown), *heads, "seeds")
    notes = (*_notes(paired), _SCALE_NOTE)
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
    paired = pairs(attacked, keys)
    shown = [
        k
        for k in ("run", "rule", "attack", "epsilon")
        if k in keys and (k in ("attack", "epsilon") or len({_setting(pair, k) for pair in paired}) > 1)
    ]
    both = any(pair.rule is not None for pair in paired)
    scored = [labels.score_of(pair.row) for pair in paired]
    mixed = len(set(scored)) > 1
    body = []
    for pair, metric in zip(paired, scored, strict=True):
        cells = [_setting(pair, k) for k in shown]
        cells += [labels.name(metric)] if mixed else []
        cells.append(_with_interval(pair.row, f"clean_{metric}"))
        cells += _attacked(pair, metric)[: 2 if both else 1]
        cells += [labels.number(metric, pair.row.get(f"{kind}_{metric}")) for kind in ("theory", "chance")]
        body.append(tuple(cells))
    by_rule = ["attacked, rule gradient"] if both else []
    score = ["score (%)"] if mixed else []
    heads = (*score, "clean", "attacked, exact gradient", *by_rule, "theory", "chance")
    notes = ("Square brackets: 95% interval over queries (not over seeds).", *_notes(paired)[1:])
    columns = (*(labels.name(k) for k in shown), *heads)
    runs = {str(row.get("run", "")) for row in attacked}
    title = f"Attacks on {runs.pop()}" if len(runs) == 1 and "" not in runs else "Attacks"
    if not mixed:
        title += f", {labels.name(scored[0])} (%)"
    return Table(title, columns, tuple(body), len(shown) + len(score), notes)


def _bits(row: Any) -> list[str]:
    return [] if labels.is_missing(row.get("bits")) else [f"{labels.setting('bits', row['bits'])} bits"]


def _without_repeats(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The frame without unattacked rows whose clean score stands beside attacks on the same queries."""
    if not any(metric.startswith("clean_") for metric in metrics):
        return frame
    attacked = {(row["run"], row["queries"]) for row in records(frame) if row["attack"] != "none"}
    kept = [row["attack"] != "none" or (row["run"], row["queries"]) not in attacked for row in records(frame)]
    rest = frame[kept]
    rest.attrs = dict(frame.attrs)
    return rest


def _notes(paired: Sequence[Pair]) -> tuple[str, ...]:
    """What is to be said below a table of these rows, first that on seeds."""
    gradients = {pair.gradient for pair in paired}
    notes = [_SEED_NOTE]
    if any(labels.is_rule_gradient(gradient) for gradient in gradients):
        notes.append(_GRADIENT_NOTE)
    if any(gradient.startswith("rule:") for gradient in gradients):
        notes.append(_CONTROL_NOTE)
    return tuple(notes)


def _attacked(pair: Pair, metric: str) -> list[str]:
    exact = (
        _exact_beside(pair, metric) if pair.exact is None else _said(pair, _with_interval(pair.exact, metric))
    )
    rule = labels.MISSING if pair.rule is None else _in_brackets(labels.number(metric, pair.rule.get(metric)))
    return [exact, rule]


def _in_brackets(number: str) -> str:
    """A number by a rule's gradient."""
    return number if number == labels.MISSING else f"(rule: {number})"


def _said(pair: Pair, number: str) -> str:
    """A number in the column of exact gradients, with a word where none was followed, or another model's."""
    if number == labels.MISSING or pair.gradient not in ("none", "transfer"):
        return number
    if pair.gradient == "transfer":
        return f"transfer: {number}"
    return f"{number} (no attack)" if pair.row.get("attack") in (None, "none") else f"no gradient: {number}"


def _with_interval(row: Mapping[str, Any], metric: str) -> str:
    return labels.interval(metric, row.get(metric), row.get(f"{metric}_low"), row.get(f"{metric}_high"))


def _summary(
    frame: pd.DataFrame, group_by: Sequence[str] | None, metrics: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The summary, with the exact twins of its metrics, and its group columns."""
    group_by = list(group_by or [c for c in GROUP_BY if c in frame.columns])
    if "rule" in group_by:
        group_by += [c for c in _WITH_RULE if c in frame.columns and c not in group_by]
    # Clean scores differ with the queries, whether or not these would part any group.
    if "queries" in frame.columns and frame["queries"].nunique() > 1 and "queries" not in group_by:
        group_by.append("queries")
    if "rule" in frame.columns and "gradient" not in group_by:
        group_by.append("gradient")
    twins = [f"exact_{m}" for m in metrics if f"exact_{m}" in frame.columns]
    summary = summarise(frame, group_by, list(dict.fromkeys([*metrics, *twins])))
    columns = [str(column) for column in summary.columns]
    return summary, columns[: columns.index("seeds")]


def _setting(pair: Pair, key: str) -> str:
    if key == "rule":
        return labels.rule_of(pair.row, pair.gradient)
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
    exact = _exact_beside(pair, metric) if pair.exact is None else _said(pair, _mean(pair.exact, metric))
    rule = labels.MISSING if pair.rule is None else _in_brackets(_mean(pair.rule, metric))
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
