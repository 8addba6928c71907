"""One audit on one screen; reads audit folders only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hashrobust.experiments.measures import MEASURES, Measure
from hashrobust.experiments.store import Folder
from hashrobust.reports import labels
from hashrobust.reports.audit_attacks import RESULT
from hashrobust.reports.formats import Table, to_rich

_CONTROL = "control: "
_ACCESS = {
    "white box": "exact gradient",
    "rule": "RULE gradient",
    "transfer": "transfer",
    "gradient-free": "no gradient",
    "noise": "no gradient, noise",
}


def screen(audit: Folder) -> list[Any]:
    """The audit on one screen: tables for a terminal and, last, the verdict as text."""
    found = audit.read_json(RESULT, made_by="audit")
    parts: list[Any] = [to_rich(_headline(audit, found)), to_rich(_attacks(found))]
    if found["gradient_by_depth"]:
        parts.append(to_rich(_depth(found["gradient_by_depth"])))
    return [*parts, to_rich(checks_table(found)), f"verdict: {found['verdict']}. {found['sentence']}"]


def checks_table(found: dict[str, Any]) -> Table:
    """Every check with its number and one sentence on what it means."""
    return Table(
        title="Checks",
        columns=("check", "result", "meaning", "limit", "value"),
        rows=tuple(
            (
                check["name"],
                check["status"],
                check["meaning"],
                check["limit"],
                "" if check["value"] is None else f"{check['value']:.4g}",
            )
            for check in found["checks"]
        ),
        words=4,
        notes=("Scores among limits and values are fractions: 0.01 is one point.",),
    )


def _headline(audit: Folder, found: dict[str, Any]) -> Table:
    numbers, measure = found["headline"], MEASURES[found.get("task", "hashing")]
    mean, words = measure.mean, measure.words
    rows = [
        (f"clean {words}", labels.percent(numbers.get(f"clean_{mean}"))),
        ("worst case over all attacks", labels.percent_interval(numbers, f"worst_{mean}")),
        ("audited attack, exact gradient", labels.percent(numbers.get(f"exact_{mean}"))),
        ("theory", labels.percent(numbers.get(f"theory_{mean}"))),
        ("chance", labels.percent(numbers.get(f"chance_{mean}"))),
    ]
    if f"rule_{mean}" in numbers:
        gap = labels.percent_interval(numbers, "masking_gap")
        rows[3:3] = [
            ("audited attack, RULE gradient", labels.percent(numbers[f"rule_{mean}"])),
            ("masking gap (rule - exact)", gap),
            ("rule gradient: cosine to the exact one", _figure(numbers["gradient_cosine"], ".3f")),
            ("rule gradient: signs that agree", labels.percent(numbers["gradient_sign_agreement"])),
        ]
    if f"control_worst_{mean}" in numbers:
        rows += [
            (f"control: clean {words}", labels.percent(numbers[f"control_clean_{mean}"])),
            ("control: audited attack, exact gradient", labels.percent(numbers[f"control_exact_{mean}"])),
            ("control: worst case", labels.percent(numbers[f"control_worst_{mean}"])),
            (
                f"validation {words}: own, control's",
                ", ".join(labels.percent(numbers[f"{of}validation_{mean}"]) for of in ("", "control_")),
            ),
            (
                "worst case minus control's" + ("" if found["matched"] else " (not matched)"),
                labels.percent_interval(numbers, "advantage"),
            ),
        ]
        if f"zero_step_{mean}" in numbers:
            rows.append(
                (
                    "zero-step control: its attack by the RULE's gradient",
                    labels.percent(numbers[f"zero_step_{mean}"]),
                )
            )
    queries, asked = numbers.get("queries", 0), audit.config.get("queries") or 0
    fewer = (f"{asked} queries were asked for: these are all there are.",) if 0 < queries < asked else ()
    settings = f"{queries} queries, epsilon {255 * audit.config['epsilon']:g}/255"
    return Table(
        title=f"{audit.path.parents[1].name}/{audit.name}: {settings}",
        columns=("", "%"),
        rows=tuple(rows),
        words=1,
        notes=(*fewer, "Intervals: 95% over queries, paired where two models or gradients are compared."),
    )


def _attacks(found: dict[str, Any]) -> Table:
    """The attacks on the audited run, and beside each the same attack on the control."""
    measure = MEASURES[found.get("task", "hashing")]
    twins = {row["part"].removeprefix(_CONTROL): row for row in found["attacks"] if row["on_control"]}
    rows = tuple(
        (
            row["part"],
            _ACCESS.get(row["access"], row["access"]),
            f"{255 * row['epsilon']:g}/255",
            _outcome(row, measure),
            labels.percent(row.get(f"theory_{measure.mean}")),
            *((_outcome(twins[row["part"]], measure) if row["part"] in twins else "",) if twins else ()),
            _count(row.get("gradient_evaluations")),
            _count(row.get("model_queries")),
        )
        for row in found["attacks"]
        if not row["on_control"]
    )
    beside = (f"control's {measure.words}",) if twins else ()
    heads = (
        "attack",
        "attacker's gradient",
        "epsilon",
        measure.words,
        "theory",
        *beside,
        "gradients",
        "model queries",
    )
    note = "Gradients and model queries: per image, on the audited run."
    return Table(
        title=f"Attacks: {measure.words} in percent", columns=heads, rows=rows, words=2, notes=(note,)
    )


def _outcome(row: dict[str, Any], measure: Measure) -> str:
    return "failed" if row["error"] else labels.percent(row.get(measure.mean))


def _depth(layers: Sequence[dict[str, Any]]) -> Table:
    return Table(
        title="The RULE's error against the exact one, from the output inward",
        columns=("layer", "depth", "cosine", "signs that agree (%)", "norm ratio"),
        rows=tuple(
            (
                layer["layer"],
                str(layer["depth"]),
                _figure(layer["cosine"], ".3f"),
                labels.percent(layer["sign_agreement"]),
                _figure(layer["norm_ratio"], ".3g"),
            )
            for layer in layers
        ),
        words=1,
    )


def _figure(value: float | None, form: str) -> str:
    return labels.MISSING if value is None else format(value, form)


def _count(value: Any) -> str:
    return f"{float(value):.0f}" if not labels.is_missing(value) and value else ""
