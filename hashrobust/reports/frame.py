"""All finished results of a folder of runs as one table of numbers (fractions, never percent)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hashrobust.errors import StoreError
from hashrobust.experiments import store
from hashrobust.experiments.measures import MEASURES
from hashrobust.experiments.store import Folder
from hashrobust.metrics import paired_bootstrap_interval
from hashrobust.options import ALL_LAYERS
from hashrobust.reports import labels
from hashrobust.reports.audit_attacks import AUDIT, PART, membership
from hashrobust.reports.queries import scores

LEADING = (
    *(
        "run",
        "task",
        "dataset",
        "backbone",
        "objective",
        "bits",
        "rule",
        "feedback_scale",
        "layers",
        "defence",
        "weights",
    ),
    *("seed", "attack", "preset", "goal", "epsilon", "gradient", "queries", "steps"),
    *("clean_map", "map", "map_low", "map_high", "exact_map", "masking_gap", "masking_gap_low"),
    *("masking_gap_high", "theory_map", "chance_map", "t_map", "exact_t_map"),
)
"""The columns that every results frame begins with."""
CLASSIFICATION = (
    *("clean_accuracy", "accuracy", "accuracy_low", "accuracy_high", "exact_accuracy", "theory_accuracy"),
    "chance_accuracy",
)
"""Those that follow where there are classifiers."""

EXACT_TWINS = ("map", "t_map", "map_at_k", "map_8bit", "accuracy", "accuracy_8bit")
"""Metrics whose exact-gradient value stands beside them, as `exact_<metric>`."""

SORT_BY = (
    *(
        "task",
        "dataset",
        "backbone",
        "objective",
        "bits",
        "rule",
        "feedback_scale",
        "layers",
        "defence",
        "seed",
    ),
    *("attack", "preset", "epsilon", "gradient", "run", "folder"),
)
_EXECUTION = {"attack_batch_size", "attack_threads"}
_UNATTACKED = {"attack": "none", "preset": "none", "goal": "none", "gradient": "none", "epsilon": 0.0}


@dataclass(frozen=True)
class _Record:
    """One row in the making."""

    folder: Folder
    settings: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def twin_key(self) -> tuple[str, ...]:
        """What a rule-gradient attack shares with its exact-gradient twin."""
        passed_over = {"gradient", "folder", *_EXECUTION}
        return tuple(f"{k}={v}" for k, v in sorted(self.settings.items()) if k not in passed_over)


def results_frame(results: str | Path = "results") -> pd.DataFrame:
    """One row per finished attack, and one with attack `none` per evaluated run, of all runs of a folder or of one run.

    Columns: the settings of run and attack, then metrics as fractions. `masking_gap` is
    mAP(rule gradient) - mAP(exact gradient) of attacks otherwise equal, its interval 95% over
    queries, paired; `exact_<metric>` is the exact-gradient value that belongs beside a row. `audit` and `audit_part`
    name the audits that list an attack.
    `frame.attrs` holds `settings` (names of setting columns), `unfinished` (folders skipped) and
    `pretrained` (their number).

    Raises:
        StoreError: there is no run, or nothing in them is finished.
    """
    records: list[_Record] = []
    unfinished: list[str] = []
    pretrained = 0
    results = Path(results)
    runs = store.list_runs(results)
    for run in runs:
        if run.config.get("task") == "pretrain" and not run.classifies:
            pretrained += 1
            continue
        run_settings = _run_settings(run) | {"run": run.name}
        attacks = run.attacks()
        for folder, read in [(run, _evaluation), *((attack, _attack) for attack in attacks)]:
            if folder.has(_evaluated(run) if folder is run else "metrics.json"):
                records.append(read(folder, run_settings))
            elif folder is not run or not any(attack.has("metrics.json") for attack in attacks):
                unfinished.append(str(folder.path.relative_to(run.path.parent)))
    if not records:
        raise StoreError(_nothing(results, unfinished, pretrained))
    _add_gaps(records)
    frame = _assemble(records, membership(runs))
    frame.attrs |= {"unfinished": unfinished, "pretrained": pretrained}
    return frame


def _nothing(results: Path, unfinished: Sequence[str], pretrained: int) -> str:
    if unfinished:
        return (
            f"'{results}' holds no results yet ({len(unfinished)} not evaluated, or not attacked to the end, such as "
            f"{unfinished[0]}): run `hashrobust evaluate` or `hashrobust attack` first"
        )
    found = f"only {pretrained} pre-trained run(s)" if pretrained else "no run"
    return f"'{results}' holds {found}: make one to report on with `hashrobust finetune`, then `evaluate`"


def _evaluated(run: Folder) -> str:
    return "accuracy.json" if run.classifies else "metrics.json"


def _run_settings(run: Folder) -> dict[str, Any]:
    config = run.config
    settings = {"defence": "none", "layers": ALL_LAYERS} | _flat(
        {k: v for k, v in config.items() if k not in ("format", "task")}
    )
    if run.classifies:
        settings |= {"task": "classification", "objective": "cross-entropy"}
        if config["task"] == "pretrain":
            settings |= {"rule": labels.PRETRAINED, "feedback_scale": "xavier"}
    else:
        settings |= {"task": "hashing"}
    # Each seed may start from a pre-trained run of its own; the digest still tells them apart.
    weights = str(settings.get("weights", "none"))
    return settings | {"weights": re.sub(r"-s\d+-[0-9a-f]{8}/?$", "", weights)}


def _evaluation(run: Folder, run_settings: Mapping[str, Any]) -> _Record:
    metrics = _numbers(run.read_json(_evaluated(run), made_by="evaluate"))
    mean = MEASURES[run_settings["task"]].mean
    names = (mean, f"{mean}_low", f"{mean}_high", f"{mean}_at_k")
    clean = {f"clean_{name}": metrics[name] for name in names if name in metrics}
    settings = {**run_settings, **_UNATTACKED, "folder": run.name, "queries": metrics.get("queries")}
    return _Record(run, settings, metrics | clean)


def _attack(attack: Folder, run_settings: Mapping[str, Any]) -> _Record:
    config = attack.config
    metrics = _numbers(attack.read_json("metrics.json", made_by="attack"))
    own = {
        **{k: config[k] for k in ("attack", "epsilon")},
        "gradient": "transfer" if "surrogate" in config else config.get("gradient", "exact"),
        "preset": config.get("preset", "default"),
        "goal": metrics.get("goal", "non-targeted"),
        "queries": metrics.get("queries", config.get("queries")),
        "folder": f"{run_settings['run']}/attacks/{attack.name}",
        **{f"attack_{k}": config[k] for k in ("seed", "query_seed", "batch_size", "threads") if k in config},
        **{k: config[k] for k in ("surrogate",) if k in config},
        **({"attack_version": config["version"]} if "version" in config else {}),
        **({"warm_start": True} if config.get("start_epsilons") else {}),
        **_flat({"params": config.get("params", {})}),
    }
    return _Record(attack, {**run_settings, **own}, metrics)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            told = json.dumps(value, default=str) if isinstance(value, list) else value
            flat[prefix + key] = told if isinstance(told, str | int | float) else str(told)  # TOML has dates
    return flat


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The scalar metrics, nulls as NaN."""
    plain = {key: float("nan") if value is None else value for key, value in metrics.items()}
    return {key: value for key, value in plain.items() if isinstance(value, str | int | float)}


def _add_gaps(records: Sequence[_Record]) -> None:
    """Put the exact-gradient twin's numbers and the masking gap on both rows of each pair."""
    exact = {r.twin_key: r for r in reversed(records) if r.settings["gradient"] == "exact"}
    attackers = [r for r in records if labels.is_rule_gradient(r.settings["gradient"])]
    # Where the model's own feedback and controls share a twin, the twin carries its own gap.
    for record in sorted(attackers, key=lambda r: r.settings["gradient"], reverse=True):
        twin = exact.get(record.twin_key)
        task = record.settings["task"]
        mean = MEASURES[task].mean
        if twin is None or mean not in record.metrics or mean not in twin.metrics:
            continue
        for metric in EXACT_TWINS:
            if metric in twin.metrics:
                record.metrics[f"exact_{metric}"] = twin.metrics[metric]
        gap = {"masking_gap": record.metrics[mean] - twin.metrics[mean]}
        gap |= _gap_interval(record, twin, task)
        record.metrics.update(gap)
        twin.metrics.update(gap)
    for twin in exact.values():
        twin.metrics.update({f"exact_{m}": twin.metrics[m] for m in EXACT_TWINS if m in twin.metrics})


def _gap_interval(rule: _Record, exact: _Record, task: str) -> dict[str, float]:
    by_rule, by_exact = (scores(record.folder, task) for record in (rule, exact))
    if by_rule is None or by_exact is None:
        return {}
    paired = by_rule.merge(by_exact, on="query_id", suffixes=("_rule", "_exact"))
    if len(paired) < 2:
        return {}
    low, high = paired_bootstrap_interval(paired["score_rule"].to_numpy(), paired["score_exact"].to_numpy())
    return {"masking_gap_low": low, "masking_gap_high": high}


def _assemble(records: Sequence[_Record], audits: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    settings = {column for record in records for column in record.settings} - {"folder"}
    metrics = {column for record in records for column in record.metrics} - settings
    rows = [{**r.metrics, **r.settings, **audits.get(r.settings["folder"], {})} for r in records]
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=_order(settings, metrics))
    for column in frame.columns:
        if len({type(value) for value in frame[column].dropna()} & {str, bool, int, float}) > 1 and not (
            pd.api.types.is_numeric_dtype(frame[column])
        ):
            # A parameter may be a word in one attack and a number in another; files want one type.
            frame[column] = frame[column].map(str, na_action="ignore")
    by = [column for column in SORT_BY if column in frame.columns]
    keys = [tuple(labels.sort_key(c, row[c]) for c in by) for row in frame[by].to_dict("records")]
    frame = frame.iloc[sorted(range(len(frame)), key=lambda i: keys[i])].reset_index(drop=True)
    frame.attrs["settings"] = sorted(settings)
    return frame


def _order(settings: set[str], metrics: set[str]) -> list[str]:
    own = [name for name in CLASSIFICATION if name in metrics]
    leading = {*LEADING, *own}
    rest = [*own, *sorted(settings - leading), *sorted(metrics - leading), AUDIT, PART, "folder"]
    return [*LEADING, *rest]
