"""Our results in the terms of published ones: what each answers, and its protocol as its run folder tells it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from hashrobust.experiments import store
from hashrobust.experiments.documents import understood
from hashrobust.experiments.store import Folder
from hashrobust.reports import labels
from hashrobust.reports.published import Asked, Fact
from hashrobust.reports.summary import records

# Runs that differ in nothing else are seeds of one result.
_OF_A_SEED = {
    *("run", "folder", "seed", "weights_digest", "attack_seed", "attack_query_seed"),
    *("attack_batch_size", "attack_threads", "threads"),
}
_ALIASES = {"coco": "mscoco", "nuswide21": "nuswide", "mirflickr25k": "flickr25k"}
_NOT_COMPARED = ("rule", "transfer")


@dataclass(frozen=True, kw_only=True)
class Ours:
    """A result of ours, over the seeds that there are: fractions, `spread` one standard deviation over them."""

    row: Mapping[str, Any]
    asked: Asked
    value: float
    spread: float | None
    protocol: Mapping[str, Fact]


def our_results(frame: pd.DataFrame, results: Path) -> Iterator[Ours]:
    """The rows of a results frame, seeds together; those by a rule's gradient and of transfer are left out."""
    runs = {run.name: run for run in store.list_runs(results)}
    keys = [
        name for name in frame.attrs.get("settings", []) if name in frame.columns and name not in _OF_A_SEED
    ]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in records(frame):
        if str(row["gradient"]).split(":")[0] not in _NOT_COMPARED:
            groups.setdefault(tuple(str(row[key]) for key in keys), []).append(row)
    for rows in groups.values():
        first, score = rows[0], labels.score_of(rows[0])
        # The literature cuts the ranking at k, and tells robustness as accuracy.
        metric = score if score == "accuracy" else f"{score}_at_k"
        values = pd.Series([row.get(metric) for row in rows], dtype=float)
        if values.isna().any():
            continue
        yield Ours(
            row=first,
            asked=_asked(first, score),
            value=float(values.mean()),
            spread=float(values.std(ddof=1)) if len(values) > 1 else None,
            protocol={"seeds": len(rows)} | _protocol(runs[first["run"]], first),
        )


def _asked(row: Mapping[str, Any], score: str) -> Asked:
    attacked = row["attack"] != "none"
    return Asked(
        task=row["task"],
        dataset=plain_name(str(row["dataset"])),
        score=score,
        # What serves as a pre-trained network was trained with backpropagation, from scratch.
        rule="bp" if row["rule"] == labels.PRETRAINED else labels.trained_by(row),
        defence="none" if labels.is_undefended(row) else str(row["defence"]),
        attack=str(row["attack"]),
        goal=str(row["goal"]) if attacked else "none",
    )


def plain_name(dataset: str) -> str:
    """A data set's name as published tables call it: `list:data/nus-wide` is `nuswide`. Folders keep their own."""
    kind, colon, path = dataset.partition(":")
    if kind == "folder":
        return dataset
    name = path.rstrip("/").rpartition("/")[2] if colon else kind
    if name in ("mnist", "fashion-mnist"):
        return name
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return _ALIASES.get(plain, plain)


def _protocol(run: Folder, row: Mapping[str, Any]) -> dict[str, Fact]:
    """Every fact of a result that its run folder tells; what is not told there is left out."""
    config = run.config
    facts: dict[str, Any] = {
        "network": config.get("backbone"),
        "image size": _image_size(run),
        "weights at the start": str(row.get("weights", "none")).removeprefix("run:"),
        "feedback scale": None if row["rule"] in ("bp", labels.PRETRAINED) else row["feedback_scale"],
        "defence": None if labels.is_undefended(row) else str(row["defence"]),
        **{
            name: config.get(name.replace(" ", "_"))
            for name in ("optimizer", "learning rate", "weight decay", "batch size", "epochs", "schedule")
        },
        "patience": config.get("patience", "none") if "epochs" in config else None,
        "augmentation": config.get("augment"),
        "epoch kept": _epoch_kept(config),
    }
    facts |= _of_classifiers(run) if run.classifies else _of_hashing(run, config)
    if row["attack"] != "none":
        facts |= _of_attacks(row)
    return {name: fact for name, fact in facts.items() if not labels.is_missing(fact)}


def _epoch_kept(config: Mapping[str, Any]) -> str | None:
    if "epochs" not in config:
        return None
    return (
        "last"
        if config.get("max_steps") is not None or config["task"] == "pretrain"
        else "best on validation"
    )


def _of_classifiers(run: Folder) -> dict[str, Any]:
    found = run.read_json("accuracy.json", made_by="evaluate") if run.has("accuracy.json") else {}
    tested = "" if not found else f", {found['queries']} test images"
    return {
        "split": f"a tenth of each class of train is validation{tested}",
        "measure": "top-1 accuracy",
    }


def _of_hashing(run: Folder, config: Mapping[str, Any]) -> dict[str, Any]:
    k = run.read_json("metrics.json", made_by="evaluate").get("k") if run.has("metrics.json") else None
    weight = config.get("objective_params", {}).get("quantization_weight")
    penalty = (
        f"the objective's penalty, weight {'its default' if weight is None else labels.setting('', weight)}"
    )
    rotation = config.get("rotate", "none")
    return {
        "objective": config.get("objective"),
        "bits": config.get("bits"),
        "quantisation": penalty if rotation == "none" else f"{penalty}; rotated by {rotation} after training",
        "split": _sizes(run),
        "measure": None if k is None else f"mAP@{k:.0f} over relevant items retrieved, ties in expectation",
    }


def _sizes(run: Folder) -> str | None:
    if not run.has("codes.npz"):
        return None
    path = run.file("codes.npz", made_by="index")
    stored = store.read_arrays(path)
    with understood(path):
        sizes = ", ".join(
            f"{len(stored[name])} {name}" for name in ("train", "query", "validation", "database")
        )
    return f"{sizes} images (drawn here)"


def _of_attacks(row: Mapping[str, Any]) -> dict[str, Any]:
    preset = str(row.get("preset", "default"))
    own = {name.removeprefix("params."): row[name] for name in row if name.startswith("params.")}
    changed = ", ".join(f"{name} {value}" for name, value in own.items() if not labels.is_missing(value))
    return {
        "epsilon": row["epsilon"],
        "attack settings": f"preset {preset}" + (f" with {changed}" if changed else ""),
        "steps": row.get("steps"),
        "model queries": row.get("budget"),
        "images asked": row.get("queries"),
        "gradient": str(row["gradient"]),
    }


def _image_size(run: Folder) -> int | None:
    """As configured, or else as the stored model describes itself."""
    config = run.config
    if shape := config.get("input_shape"):
        return int(shape[-1])
    if "image_size" in config or not run.has("model.safetensors"):
        return config.get("image_size")
    try:
        with safe_open(run.path / "model.safetensors", framework="numpy") as file:
            size = json.loads((file.metadata() or {}).get("hashrobust", "{}")).get("image_size")
    except Exception:  # readers of damaged files raise whatever they come upon
        return None
    return size if isinstance(size, int) else None
