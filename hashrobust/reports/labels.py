"""How settings and numbers are called wherever a person reads them: tables and figures."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from hashrobust.options import ALL_LAYERS

PRETRAINED = "pretrained"
"""Stands for the rule of a network before any fine-tuning."""

RULES = (PRETRAINED, "bp", "fa", "dfa", "usf", "brsf", "frsf")
"""The order of rules in tables and figures; others follow by name."""

MISSING = "—"

_YES_OR_NO = {"True": "yes", "False": "no"}

_NAMES = {
    "accuracy_8bit": "accuracy, 8-bit images",
    "map": "mAP",
    "map_at_k": "mAP@k",
    "map_8bit": "mAP, 8-bit images",
    "t_map": "t-mAP",
    "clean_map": "clean mAP",
    "clean_map_at_k": "clean mAP@k",
    "clean_t_map": "clean t-mAP",
    "theory_map": "theory mAP",
    "theory_t_map": "theory t-mAP",
    "chance_map": "chance mAP",
    "chance_map_at_k": "chance mAP@k",
    "chance_t_map": "chance t-mAP",
    "validation_map": "validation mAP",
    "masking_gap": "masking gap, rule - exact",
    "linf_max": "L-infinity, max",
    "l2_mean": "L2, mean",
    "mse_mean": "MSE, mean",
    "psnr_mean": "PSNR, mean (dB)",
    "ssim_mean": "SSIM, mean",
}
_FRACTIONS = {"map", "ap", "accuracy", "correct", "precision", "recall", "share", "gap"}
_FREE_OF_GRADIENT = {"clean", "theory", "chance"}


def score_of(row: Any) -> str:
    """What a row of results is measured by: `map`, of targeted attacks `t_map`, of classifiers `accuracy`."""
    if row.get("task") == "classification":
        return "accuracy"
    targeted = row.get("goal", "targeted") == "targeted" and not is_missing(row.get("t_map"))
    return "t_map" if targeted else "map"


def what_of(row: Any) -> str:
    """Data, backbone and task of a row of results: `digits, lenet, dpsh, 32 bits`."""
    bits = "" if is_missing(row.get("bits")) else f", {setting('bits', row['bits'])} bits"
    return f"{row['dataset']}, {row['backbone']}, {row['objective']}{bits}"


def is_fraction(metric: str) -> bool:
    """Whether a metric is stored as a fraction and printed as percent."""
    return metric == "empty_queries" or bool(_FRACTIONS & set(metric.split("_")))


def depends_on_gradient(metric: str) -> bool:
    """Whether a metric differs between an attack's exact and its rule gradient."""
    return metric != "masking_gap" and metric.split("_")[0] not in _FREE_OF_GRADIENT


def name(column: str) -> str:
    """What a column is called, without its unit; a parameter of an attack by its own name."""
    return _NAMES.get(column, column.removeprefix("params.").replace("_", " "))


def heading(metric: str, *, gradient: str = "") -> str:
    """A column head with the gradient and the unit: `mAP, exact gradient (%)`."""
    words = name(metric) + (f", {gradient} gradient" if gradient else "")
    return f"{words} (%)" if is_fraction(metric) else words


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def epsilon(value: float) -> str:
    """An epsilon in pixel units of [0, 1] as 255ths: `8/255`."""
    return f"{value * 255:.4g}/255"


def number(metric: str, value: Any, spread: Any = None) -> str:
    """A metric as printed, fractions in percent; `spread` follows after `±` unless it is missing."""
    if is_missing(value):
        return MISSING
    text = _figure(metric, value)
    return text if is_missing(spread) else f"{text} ± {_figure(metric, spread)}"


def interval(metric: str, value: Any, low: Any, high: Any) -> str:
    """A metric with its interval, where there is one: `55.2 [53.1, 57.3]`."""
    if is_missing(value) or is_missing(low) or is_missing(high):
        return number(metric, value)
    return f"{_figure(metric, value)} [{_figure(metric, low)}, {_figure(metric, high)}]"


def percent(value: Any, missing: str = "") -> str:
    """A fraction in percent: `41.5`."""
    return missing if is_missing(value) else f"{100 * float(value):.1f}"


def percent_interval(row: Mapping[Any, Any], name: str) -> str:
    """A fraction of a row in percent with its interval, where there is one: `55.2 [53.1, 57.3]`; blank if the row
    lacks it.
    """
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if is_missing(low) or is_missing(high):
        return percent(value)
    return "" if is_missing(value) else f"{percent(value)} [{percent(low)}, {percent(high)}]"


def _figure(metric: str, value: float) -> str:
    return f"{100 * value:.1f}" if is_fraction(metric) else f"{value:.4g}"


def setting(column: str, value: Any) -> str:
    """A setting as printed."""
    if is_missing(value):
        return MISSING
    if column == "epsilon":
        return epsilon(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return _YES_OR_NO.get(str(value), str(value))


def is_rule_gradient(gradient: str) -> bool:
    """Whether the attack followed a rule's feedback and not the derivative of what it attacks."""
    return gradient.split(":")[0] == "rule"


def rule(
    name: str,
    scale: str = "xavier",
    gradient: str = "exact",
    *,
    layers: str = ALL_LAYERS,
    defence: str = "none",
) -> str:
    """A run's rule with the layers that follow it, if not all do, and its defence; for the zero-step control also the
    feedback that it was attacked through."""
    shown = f"{name} (matched)" if scale == "matched" else name
    shown += "" if layers == ALL_LAYERS else f" on {layers}"
    shown += "" if defence == "none" else f" + {defence}"
    feedback = gradient.partition(":")[2]
    return f"{shown} via {feedback}" if feedback else shown


def rule_of(row: Mapping[str, Any], gradient: str = "exact") -> str:
    """`rule` for a row of results."""
    return rule(
        str(row["rule"]),
        str(row.get("feedback_scale", "xavier")),
        gradient,
        layers=_layers(row),
        defence="none" if is_undefended(row) else row["defence"],
    )


def trained_by(row: Mapping[str, Any]) -> str:
    """The rule of a row of results, with the layers that follow it, if not all do, and nothing else."""
    return rule(str(row["rule"]), layers=_layers(row))


def _layers(row: Mapping[str, Any]) -> str:
    return ALL_LAYERS if is_missing(row.get("layers")) else str(row["layers"])


def is_undefended(row: Mapping[str, Any]) -> bool:
    """Whether a row of results is that of a run without a defence."""
    return is_missing(row.get("defence")) or row["defence"] == "none"


def rule_rank(name: str) -> str:
    """A key that sorts rules: plain backpropagation first, unknown rules last."""
    return f"{RULES.index(name) if name in RULES else len(RULES)}{name}"


def sort_key(column: Hashable, value: Any) -> Any:
    """A key for one cell that sorts any column, missing values first."""
    if is_missing(value):
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    if column in ("attack", "defence") and value == "none":
        return (2, 0.0, "")
    return (2, 0.0, rule_rank(str(value)) if column == "rule" else str(value))
