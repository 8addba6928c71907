"""What audits found: a table and a figure over all of them; reads audit folders only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hashrobust.experiments import store
from hashrobust.experiments.measures import MEASURES
from hashrobust.options import ALL_LAYERS
from hashrobust.reports import labels
from hashrobust.reports.audit_attacks import RESULT
from hashrobust.reports.formats import Table
from hashrobust.reports.style import colour_of, save, styled

_CHECK = "check: "
_BARS = {
    "clean": 0.25,
    "rule": 0.45,
    "exact": 0.7,
    "worst": 1.0,
}  # what each bar of a model shows, and its shade
_LETTERS = 20
"""Of a model's name, on one line below its bars."""
_BAR_WIDTH = 0.8 / len(_BARS)


def audits_frame(results: Path) -> pd.DataFrame:
    """One row per finished audit of the runs in a folder: its settings, headline (fractions) and check statuses."""
    rows = []
    for run in store.list_runs(results):
        config = run.config
        for audit in run.audits():
            if not audit.has(RESULT):
                continue
            found = audit.read_json(RESULT, made_by="audit")
            of_run = {
                "run": run.name,
                "task": found.get("task", "hashing"),
                "rule": config.get("rule", found["rule"]),
                "layers": config.get("layers", ALL_LAYERS),
                "defence": config.get("defence", "none"),
                "dataset": config.get("dataset"),
                "backbone": config.get("backbone"),
            }
            asked = {
                key: value
                for key, value in audit.config.items()
                if isinstance(value, str | int | float) and key not in of_run
            }
            rows.append(
                {
                    **of_run,
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
    records = frame.to_dict("records")
    rows = tuple(
        (
            model,
            _budget(row),
            str(row["verdict"]),
            labels.percent(row.get(_named(row, "clean"))),
            labels.percent_interval(row, _named(row, "worst")),
            labels.percent(row.get(_named(row, "exact"))),
            f"(rule: {labels.percent(row.get(_named(row, 'rule')))})"
            if not labels.is_missing(row.get(_named(row, "rule")))
            else "",
            labels.percent(row.get(_named(row, "theory"))),
            labels.percent(row.get(_named(row, "chance"))),
            _advantage(row),
            "; ".join(
                n.removeprefix(_CHECK) for n in frame.columns if n.startswith(_CHECK) and row[n] == "FAIL"
            ),
        )
        for model, row in zip(_models(records), records, strict=True)
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
            *("theory", "chance", "worst case minus control's", "checks that failed"),
        ),
        rows=rows,
        words=3,
        notes=(
            "Worst case: mean over queries of the lowest score over all attacks. A PASS says that the worst-case "
            "number can be quoted, not that it is high.",
        ),
    )


@styled
def audit_bars(frame: pd.DataFrame, path: Path, also: Sequence[str] = ()) -> list[Path]:
    """For each audited model clean, rule-gradient, exact-gradient and worst-case mAP as bars."""
    figure = Figure(figsize=(max(7.0, 1.6 + 1.5 * len(frame)), 4), layout="constrained")
    axes = figure.subplots()
    rows = frame.to_dict("records")
    for place, row in enumerate(rows):
        _draw_bars(axes, place, row)
        _draw_limits(axes, place, row)
    axes.set_xticks(
        range(len(rows)),
        [f"{fill(name, _LETTERS)}\n{row['verdict']}" for name, row in zip(_names(rows), rows, strict=True)],
    )
    axes.set_ylabel(f"{_words(frame)} (%)")
    axes.set_title(
        "no attack | RULE gradient (hatched) | exact gradient | worst case with 95% over queries\n"
        "dashed: chance, dotted: theory"
    )
    return save(figure, path, also)


def _draw_bars(axes: Axes, place: int, row: Mapping[Hashable, Any]) -> None:
    for number, (kind, shade) in enumerate(_BARS.items()):
        value: Any = row.get(_named(row, kind))
        if labels.is_missing(value):
            continue
        x = place + (number - 1.5) * _BAR_WIDTH
        hatch = "///" if kind == "rule" else None
        colour = colour_of(row["rule"])
        axes.bar(x, 100 * value, 0.9 * _BAR_WIDTH, color=colour, alpha=shade, hatch=hatch, edgecolor="white")
        low, high = (row.get(f"{_named(row, kind)}_{end}") for end in ("low", "high"))
        top = value
        if kind == "worst" and not (labels.is_missing(low) or labels.is_missing(high)):
            top = high
            reach = [[100 * (value - low)], [100 * (high - value)]]
            axes.errorbar(x, 100 * value, yerr=reach, color="0.3", capsize=2, lw=1)
        axes.annotate(f"{100 * value:.0f}", (x, 100 * top), ha="center", va="bottom")


def _draw_limits(axes: Axes, place: int, row: Mapping[Hashable, Any]) -> None:
    for kind, dashes in (("theory", ":"), ("chance", "--")):
        value: Any = row.get(_named(row, kind))
        if not labels.is_missing(value):
            axes.hlines(100 * value, place - 0.42, place + 0.42, color="0.4", ls=dashes, lw=1)


def _named(row: Any, kind: str) -> str:
    """The column of one of an audit's numbers: `worst_map`, of a classifier `worst_accuracy`."""
    return f"{kind}_{MEASURES[row['task']].mean}"


def _words(frame: pd.DataFrame) -> str:
    return " or ".join(MEASURES[task].words for task in dict.fromkeys(frame["task"]))


def _budget(row: Any) -> str:
    """Steps and starts of the audited attack."""
    amounts = [row.get(name) for name in ("steps", "restarts")]
    return " x ".join(f"{amount:.0f}" for amount in amounts if not labels.is_missing(amount))


def _label(row: Any) -> str:
    """How a model was trained; that of one made elsewhere is the name of its run."""
    if labels.is_missing(row.get("backbone")):
        return str(row["run"])
    rule, defence = labels.trained_by(row), row.get("defence", "none")
    return rule if defence in ("none", None) else f"{rule}+{defence}"


def _models(rows: Sequence[Any]) -> list[str]:
    """Labels of audits; models that were trained and attacked alike are told apart by their tasks, then by their runs,
    audits of one run by their controls.
    """
    names = [_label(row) for row in rows]
    for column in ("task", "run", "control"):
        values: dict[tuple[str, str], set[Any]] = {}
        for name, row in zip(names, rows, strict=True):
            values.setdefault((name, _budget(row)), set()).add(row.get(column))
        names = [
            f"{name} ({_told(column, row[column])})" if len(values[name, _budget(row)]) > 1 else name
            for name, row in zip(names, rows, strict=True)
        ]
    return names


def _told(column: str, value: Any) -> str:
    return str(value) if column == "task" else f"{column} {value}"


def _names(rows: Sequence[Any]) -> list[str]:
    """The same for figures, which have no column of steps and starts."""
    models = _models(rows)
    return [
        f"{model}, {_budget(row)}" if models.count(model) > 1 else model
        for model, row in zip(models, rows, strict=True)
    ]


def _advantage(row: Any) -> str:
    if labels.is_missing(row.get("advantage")):
        return ""
    return labels.percent_interval(row, "advantage") if row.get("matched") else "not matched"
