"""What the numbers say, in sentences: how much robustness the exact gradient leaves of what a rule seems to give.

A rule-gradient number always stands beside the exact one. Masking is called so from 2 points of mAP on,
with its interval off 0 (Athalye et al., arXiv 1802.00420, on gradients that mask).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from hashrobust.reports import labels
from hashrobust.reports.summary import GROUP_BY, by_task, records, summarise

MASKING = 0.02
"""Difference of mAP by rule and by exact gradient above which the difference is called masking."""

_BLOCK = ("dataset", "backbone", "bits", "objective")
_KINDS = ("clean_", "", "chance_", "exact_")
_GAPS = ("masking_gap", "masking_gap_low", "masking_gap_high")
_OF_ATTACKS = ("params.", "attack_", "queries", "steps")

Row = Mapping[str, Any]


def findings(frame: pd.DataFrame) -> list[str]:
    """A paragraph for each setting (data, backbone, bits, objective, and what else differs between runs),
    at the largest epsilon that was attacked; none without non-targeted attacks.
    """
    chosen = frame[(frame["attack"] != "none") & (frame["goal"] == "non-targeted")]
    chosen.attrs = dict(frame.attrs)
    return [paragraph for part in by_task(chosen) if len(part) for paragraph in _of_task(part)]


def _of_task(chosen: pd.DataFrame) -> list[str]:
    score = labels.score_of({"task": "hashing"} | records(chosen)[0] | {"goal": "non-targeted"})
    metrics = [*(kind + score for kind in _KINDS), *_GAPS]
    attrs = dict(chosen.attrs)
    chosen = chosen.reindex(columns=list(dict.fromkeys([*chosen.columns, *metrics])))
    chosen.attrs = attrs
    summary = summarise(chosen, None, metrics)
    columns = [str(c) for c in summary.columns]
    extra = [c for c in columns[: columns.index("seeds")] if c not in GROUP_BY]
    block = [*_BLOCK, *(c for c in extra if not c.startswith(_OF_ATTACKS))]

    def key(row: Row) -> list[tuple[Any, ...]]:
        return [labels.sort_key(c, row[c]) for c in block]

    grouped = groupby(sorted(records(summary), key=key), key)
    paragraphs = [_paragraph(list(rows), block, score) for _, rows in grouped]
    return [paragraph for paragraph in paragraphs if paragraph]


def _paragraph(rows: Sequence[Row], block: Sequence[str], score: str) -> str:
    epsilon = max(row["epsilon"] for row in rows)
    rows = [row for row in rows if row["epsilon"] == epsilon]
    exact = [row for row in rows if row["gradient"] == "exact"]
    by_rule = [row for row in rows if _says_something(row, score)]
    names = [_setting(column, rows[0][column]) for column in block if not labels.is_missing(rows[0][column])]
    told = [_exact(exact, score)] if exact else []
    told += [_gap(row, score) for row in _weakest(by_rule, score)]
    if not told:  # no attacker followed a gradient of the attacked model itself
        return ""
    sentences = [f"{', '.join(names)}, at epsilon {labels.epsilon(epsilon)}.", *told]
    if len({_label(row) for row in exact}) > 1 and max(row["seeds"] for row in rows) == 1:
        sentences.append("One seed: a difference of a few points between rules may be chance.")
    return " ".join(sentences)


def _setting(column: str, value: Any) -> str:
    shown = labels.setting(column, value)
    if column == "bits":
        return f"{shown} bits"
    return shown if column in _BLOCK else f"{labels.name(column)} {shown}"


def _says_something(row: Row, score: str) -> bool:
    """Whether a row went by a rule's feedback that differs from the derivative, with its exact twin."""
    own_backpropagation = row["gradient"] == "rule" and row["rule"] == "bp"
    known = not labels.is_missing(row[f"exact_{score}"]) and not labels.is_missing(row[score])
    return labels.is_rule_gradient(row["gradient"]) and known and not own_backpropagation


def _weakest(rows: Sequence[Row], score: str) -> list[Row]:
    """Of each rule and gradient the attack that leaves the least, in the rows' order of rules."""
    lowest: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (_label(row), row["gradient"])
        if key not in lowest or row[score] < lowest[key][score]:
            lowest[key] = row
    return sorted(lowest.values(), key=lambda row: labels.sort_key("rule", row["rule"]))


def _label(row: Row) -> str:
    return labels.rule_of(row)


def _exact(rows: Sequence[Row], score: str) -> str:
    falls = [
        f"from {_percent(row[f'clean_{score}'])} to {_percent(row[score])} for {_label(row)} ({row['attack']})"
        for row in _weakest(rows, score)
    ]
    chance, words = _percent(rows[0][f"chance_{score}"]), labels.name(score)
    return f"The strongest attack by the exact gradient takes {words} {', '.join(falls)}; chance is {chance}."


def _gap(row: Row, score: str) -> str:
    feedback = row["gradient"].partition(":")[2]
    control = bool(feedback) and row["rule"] in ("bp", labels.PRETRAINED)
    who = f"{_label(row)} through {feedback} feedback" if feedback else _label(row)
    if control:
        who += ", which never trained it,"
    by_rule, by_exact = _percent(row[score]), _percent(row[f"exact_{score}"])
    gap, low = row[score] - row[f"exact_{score}"], row["masking_gap_low"]
    if gap <= MASKING or (not labels.is_missing(low) and low <= 0):
        return (
            f"{who} keeps {by_rule} by the rule's gradient and {by_exact} by the exact one: no masking to speak of "
            f"({row['attack']})."
        )
    what = "come without any training by the rule" if control else "of its apparent robustness are masking"
    return (
        f"{who} keeps {by_rule} by the rule's gradient but {by_exact} by the exact one: {_points(gap)} "
        f"points{_spread(row)} {what} ({row['attack']})."
    )


def _spread(row: Row) -> str:
    """How sure a gap is: over seeds, or of one seed over queries."""
    if row["seeds"] > 1:
        return f" (± {_points(row['masking_gap_std'])} over {row['seeds']} seeds)"
    low = row["masking_gap_low"]
    return "" if labels.is_missing(low) else f" (95%: {_points(low)} to {_points(row['masking_gap_high'])})"


def _percent(value: Any) -> str:
    return labels.MISSING if labels.is_missing(value) else f"{_points(value)}%"


def _points(value: float) -> str:
    return f"{100 * value:.1f}"
