"""What audits found: one screen an audit, tables and a figure over all of them; reads audit folders only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hashrobust.experiments import store
from hashrobust.experiments.measures import MEASURES, Measure
from hashrobust.experiments.store import Folder
from hashrobust.reports import labels
from hashrobust.reports.audit_attacks import RESULT
from hashrobust.reports.formats import Table, to_rich
from hashrobust.reports.style import colour_of, save, styled

_CONTROL = "control: "
_CHECK = "check: "
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


def audits_frame(results: Path) -> pd.DataFrame:
    """One row per finished audit of the runs in a folder: its settings, headline (fractions) and check statuses."""
    rows = []
    for run in store.list_runs(results):
        config = run.config
        for audit in run.audits():
            if not audit.has(RESULT):
                continue
            found = audit.read_json(RESULT, made_by="audit")
            asked = {key: value for key, value in audit.config.items() if not isinstance(value, list)}
            rows.append(
                {
                    "run": run.name,
                    "task": found.get("task", "hashing"),
                    "rule": found["rule"],
                    "defence": config.get("defence", "none"),
                    "dataset": config.get("dataset"),
                    "backbone": config.get("backbone"),
                    **asked,
                    "verdict": found["verdict"],
                    "matched": found["matched"],
                    **found["headline"],
                    **{f"{_CHECK}{check['name']}": check["status"] for check in found["checks"]},
                    "folder": f"{run.name}/audits/{audit.name}",
                }
            )
    # Rules in the order of every table, what is defended besides last.
    rows.sort(key=lambda row: (row["defence"] != "none", labels.sort_key("rule", row["rule"]), row["run"]))
    return pd.DataFrame(rows)


def audits_table(frame: pd.DataFrame) -> Table:
    """The audits of a frame side by side, in percent; numbers by a rule's gradient say so."""
    rows = tuple(
        (
            _label(row),
            _budget(row),
            str(row["verdict"]),
            _percent(row.get(_named(row, "clean"))),
            _interval(row, _named(row, "worst")),
            _percent(row.get(_named(row, "exact"))),
            f"(rule: {_percent(row.get(_named(row, 'rule')))})"
            if _known(row.get(_named(row, "rule")))
            else "",
            _percent(row.get(_named(row, "theory"))),
            _percent(row.get(_named(row, "chance"))),
            _advantage(row),
            "; ".join(
                n.removeprefix(_CHECK) for n in frame.columns if n.startswith(_CHECK) and row[n] == "FAIL"
            ),
        )
        for row in frame.to_dict("records")
    )
    return Table(
        title=f"Audits: {_words(frame)} in percent, with 95% intervals over queries",
        columns=(
            *(
                "model",
                "steps x starts",
                "verdict",
                "clean",
                "worst case",
                "exact gradient",
                "(rule gradient)",
            ),
            *("theory", "chance", "worst case over control", "checks that failed"),
        ),
        rows=rows,
        words=3,
        notes=(
            "Worst case: mean over queries of the lowest score over all attacks. A PASS says that the worst-case "
            "number can be quoted, not that it is high.",
        ),
    )


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
    )


@styled
def audit_bars(frame: pd.DataFrame, path: Path, also: Sequence[str] = ()) -> list[Path]:
    """For each audited model clean, rule-gradient, exact-gradient and worst-case mAP as bars."""
    kinds = (
        ("clean", "no attack", 0.25),
        ("rule", "main attack, RULE gradient", 0.45),
        ("exact", "main attack, exact gradient", 0.7),
        ("worst", "worst case over all attacks", 1.0),
    )
    figure = Figure(figsize=(max(7.0, 1.6 + 1.5 * len(frame)), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(kinds)
    rows = frame.to_dict("records")
    for place, row in enumerate(rows):
        for number, (kind, _, shade) in enumerate(kinds):
            value = row.get(_named(row, kind))
            if value is not None and _known(value):
                x = place + (number - 1.5) * width
                axes.bar(
                    x,
                    100 * float(value),
                    0.9 * width,
                    color=colour_of(row["rule"]),
                    alpha=shade,
                    hatch="///" if kind == "rule" else None,
                    edgecolor="white",
                )
                top = row.get(f"{_named(row, 'worst')}_high") if kind == "worst" else None
                height = 100 * float(value if top is None or not _known(top) else top)
                axes.annotate(f"{100 * float(value):.0f}", (x, height), ha="center", va="bottom")
        worst_case = _named(row, "worst")
        if _known(row.get(f"{worst_case}_low")):
            low, high, worst = (100 * row[f"{worst_case}{end}"] for end in ("_low", "_high", ""))
            axes.errorbar(
                place + 1.5 * width, worst, yerr=[[worst - low], [high - worst]], color="0.3", capsize=2, lw=1
            )
        for kind, dashes in (("theory", ":"), ("chance", "--")):
            if _known(row.get(_named(row, kind))):
                axes.hlines(
                    100 * row[_named(row, kind)], place - 0.42, place + 0.42, color="0.4", ls=dashes, lw=1
                )
    axes.set_xticks(
        range(len(rows)), [f"{name}\n{row['verdict']}" for name, row in zip(_names(rows), rows, strict=True)]
    )
    axes.set_ylabel(f"{_words(frame)} (%)")
    axes.set_title(
        "no attack | RULE gradient (hatched) | exact gradient | worst case with 95% over queries\n"
        "dashed: chance, dotted: theory"
    )
    return save(figure, path, also)


def _headline(audit: Folder, found: dict[str, Any]) -> Table:
    numbers, measure = found["headline"], MEASURES[found.get("task", "hashing")]
    mean, words = measure.mean, measure.words
    rows = [
        (f"clean {words}", _percent(numbers.get(f"clean_{mean}"))),
        ("worst case over all attacks", _interval(numbers, f"worst_{mean}")),
        ("audited attack, exact gradient", _percent(numbers.get(f"exact_{mean}"))),
        ("theory", _percent(numbers.get(f"theory_{mean}"))),
        ("chance", _percent(numbers.get(f"chance_{mean}"))),
    ]
    if f"rule_{mean}" in numbers:
        gap = _interval(numbers, "masking_gap")
        rows[3:3] = [
            ("audited attack, RULE gradient", _percent(numbers[f"rule_{mean}"])),
            ("masking gap (rule - exact)", gap),
            ("rule gradient: cosine to the exact one", f"{numbers['gradient_cosine']:.3f}"),
            ("rule gradient: signs that agree", _percent(numbers["gradient_sign_agreement"])),
        ]
    if f"control_worst_{mean}" in numbers:
        rows += [
            ("control: clean mAP", _percent(numbers[f"control_clean_{mean}"])),
            ("control: audited attack, exact gradient", _percent(numbers[f"control_exact_{mean}"])),
            ("control: worst case", _percent(numbers[f"control_worst_{mean}"])),
            (
                f"validation {words}, control's",
                ", ".join(_percent(numbers[f"{of}validation_{mean}"]) for of in ("", "control_")),
            ),
            (
                "worst case over control's" + ("" if found["matched"] else " (not matched)"),
                _interval(numbers, "advantage"),
            ),
        ]
        if f"zero_step_{mean}" in numbers:
            rows.append(
                (
                    "zero-step control: its attack by the RULE's gradient",
                    _percent(numbers[f"zero_step_{mean}"]),
                )
            )
    settings = f"{numbers.get('queries', 0)} queries, epsilon {255 * audit.config['epsilon']:g}/255"
    return Table(
        title=f"{audit.path.parents[1].name}/{audit.name}: {settings}",
        columns=("", "%"),
        rows=tuple(rows),
        words=1,
        notes=("Intervals: 95% over queries, paired where two models or gradients are compared.",),
    )


def _attacks(found: dict[str, Any]) -> Table:
    """The attacks on the audited run, and beside each the same attack on the control."""
    measure = MEASURES[found.get("task", "hashing")]
    twins = {row["part"].removeprefix(_CONTROL): row for row in found["attacks"] if row["on_control"]}
    rows = tuple(
        (
            row["part"],
            _ACCESS[row["access"]],
            f"{255 * row['epsilon']:g}/255",
            _outcome(row, measure),
            _percent(row.get(f"theory_{measure.mean}")),
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
    note = "Gradients and model queries: an image, of the run."
    return Table(
        title=f"Attacks: {measure.words} in percent", columns=heads, rows=rows, words=2, notes=(note,)
    )


def _outcome(row: dict[str, Any], measure: Measure) -> str:
    return "failed" if row["error"] else _percent(row.get(measure.mean))


def _depth(layers: Sequence[dict[str, Any]]) -> Table:
    return Table(
        title="The RULE's error against the exact one, from the output inward",
        columns=("layer", "depth", "cosine", "signs that agree (%)", "norm ratio"),
        rows=tuple(
            (
                layer["layer"],
                str(layer["depth"]),
                f"{layer['cosine']:.3f}",
                _percent(layer["sign_agreement"]),
                f"{layer['norm_ratio']:.3g}",
            )
            for layer in layers
        ),
        words=1,
    )


def _named(row: Any, kind: str) -> str:
    """The column of one of an audit's numbers: `worst_map`, of a classifier `worst_accuracy`."""
    return f"{kind}_{MEASURES[row['task']].mean}"


def _words(frame: pd.DataFrame) -> str:
    return " or ".join(MEASURES[task].words for task in dict.fromkeys(frame["task"]))


def _budget(row: Any) -> str:
    """Steps and starts of the audited attack."""
    amounts = [row.get(name) for name in ("steps", "restarts")]
    return " x ".join(f"{amount:.0f}" for amount in amounts if _known(amount))


def _label(row: Any) -> str:
    defence = row.get("defence", "none")
    rule = (
        row["rule"]
        if _known(row.get("backbone")) and not str(row.get("run", "")).count("foreign")
        else row["run"]
    )
    return str(rule) if defence in ("none", None) else f"{rule}+{defence}"


def _names(rows: Sequence[Any]) -> list[str]:
    """Labels of audits; equal ones are told apart by steps and starts."""
    names = [_label(row) for row in rows]
    return [
        f"{name}, {_budget(row)}" if names.count(name) > 1 else name
        for name, row in zip(names, rows, strict=True)
    ]


def _advantage(row: Any) -> str:
    if not _known(row.get("advantage")):
        return ""
    return _interval(row, "advantage") if row.get("matched") else "not matched"


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and value != value)


def _percent(value: Any) -> str:
    return f"{100 * float(value):.1f}" if _known(value) else ""


def _interval(row: Any, name: str) -> str:
    if not _known(row.get(name)):
        return ""
    return f"{_percent(row[name])} [{_percent(row[f'{name}_low'])}, {_percent(row[f'{name}_high'])}]"


def _count(value: Any) -> str:
    return f"{float(value):.0f}" if _known(value) and value else ""
