"""Figure of the gradient by depth: how the rule's error departs from the exact one, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hashrobust.experiments.store import Folder
from hashrobust.reports.audit_attacks import RESULT
from hashrobust.reports.page.groups import covers, model_name, setting_name
from hashrobust.reports.page.series import Figure, Series, choice, in_order
from hashrobust.reports.style import colour_of

MEASURES = {
    "cosine": ("cosine of the rule's gradient to the exact one", "cosine", 1.0),
    "sign_agreement": ("signs that agree with the exact gradient", "signs that agree (%)", 100.0),
    "norm_ratio": ("norm of the rule's gradient to that of the exact one", "ratio of norms", 1.0),
}
"""Of each layer: what it is called, its axis, and the factor from what is stored."""


@dataclass(frozen=True)
class Audited:
    """One finished audit of a run."""

    run: str
    name: str
    setting: str
    """Data, network and training, but for the rule."""
    settings: Mapping[str, Any]
    """Those of the run, as in a results frame."""
    config: Mapping[str, Any]
    """What the audit was asked for."""
    found: Mapping[str, Any]
    """The content of `audit.json`."""

    @property
    def model(self) -> str:
        """The rule that trained it, with its defence."""
        return model_name(self.settings)


def audited(
    runs: Sequence[Folder], settings: Mapping[str, Mapping[str, Any]], of_runs: Sequence[str]
) -> list[Audited]:
    """The finished audits of the runs that have settings."""
    return [
        Audited(
            run.name,
            audit.name,
            setting_name(settings[run.name], of_runs),
            settings[run.name],
            audit.config,
            audit.read_json(RESULT, made_by="audit"),
        )
        for run in runs
        if run.name in settings
        for audit in run.audits()
        if audit.has(RESULT)
    ]


def depth_figure(audits: Sequence[Audited]) -> Figure | None:
    """Cosine, agreement of signs and ratio of norms against depth, from the output inward, a line a rule."""
    # What audits of one run measure of its gradients is the same.
    by_run = {audit.run: audit for audit in audits if audit.found["gradient_by_depth"]}
    lines: dict[tuple[str, str, str], list[Audited]] = {}
    for audit in by_run.values():
        if audit.settings["rule"] != "bp":
            layers = str([(layer["depth"], layer["layer"]) for layer in audit.found["gradient_by_depth"]])
            lines.setdefault((audit.setting, audit.model, layers), []).append(audit)
    series = [
        _line(setting, model, measure, members)
        for (setting, model, _), members in lines.items()
        for measure in MEASURES
    ]
    if not series:
        return None
    return Figure(
        identifier="depth",
        title="The rule's gradient by depth",
        caption="How the error that a learning rule sends back compares with the exact gradient, layer by layer from "
        "the output inward, on unattacked queries. Exact gradient: cosine 1, all signs agree. The "
        "masking gap comes from what is lost on this way.",
        choices=[choice("setting", "Setting", series), choice("measure", "Measure", series)],
        series=in_order(series),
        x_title="layers from the output inward",
        x_ticks=[(depth, str(depth)) for depth in sorted({x for line in series for x in line.x})],
        y_titles={word: axis for word, axis, _ in MEASURES.values()},
        from_zero=True,
    )


def _line(setting: str, model: str, measure: str, members: Sequence[Audited]) -> Series:
    word, axis, factor = MEASURES[measure]
    layers = members[0].found["gradient_by_depth"]
    table = factor * np.array(
        [[_number(layer[measure]) for layer in audit.found["gradient_by_depth"]] for audit in members]
    )
    mean = table.mean(axis=0)
    deviation = table.std(axis=0, ddof=1) if len(members) > 1 else np.full(len(mean), math.nan)
    return Series(
        model=model,
        kind="gap",
        colour=colour_of(model),
        choices={"setting": setting, "measure": word},
        x=[layer["depth"] for layer in layers],
        y=mean.tolist(),
        low=(mean - deviation).tolist(),
        high=(mean + deviation).tolist(),
        text=[
            f"{model}, {layer['layer']}\n{axis}: {value:.3g}"
            for layer, value in zip(layers, mean, strict=True)
        ],
        note=covers(len(members)) if len(members) > 1 else "",
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
