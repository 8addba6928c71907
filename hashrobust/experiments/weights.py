"""The weights that a training starts from: found, named by their content, and checked not to have seen the answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from hashrobust.errors import InputError
from hashrobust.experiments.config import ClassifierConfig, FinetuneConfig, RuleConfig
from hashrobust.experiments.files import file_digest
from hashrobust.experiments.store import CONFIG, Folder, find_run

MODEL = "model.safetensors"

Config = TypeVar("Config", FinetuneConfig, ClassifierConfig)


def resolve_weights(config: Config, results: Path) -> tuple[Config, Path | None]:
    """The configuration with the digest of its weights, and the file they are in (None: no file).

    Raises:
        InputError: `weights` names no run or file, one that cannot be read, or a run of the same data set under
            the other protocol, which was trained on images that this one keeps to be asked about.
    """
    weights = config.weights
    if weights in ("none", "imagenet"):
        return config, None
    if weights.startswith("run:") or (Path(weights) / CONFIG).is_file():
        run = find_run(weights.removeprefix("run:"), results)
        path = run.file(MODEL, made_by="pretrain")
        weights = f"run:{run.name}"
    else:
        path = Path(weights)
        if not path.is_file():
            raise InputError(
                f"weights '{weights}' are no file: give none, imagenet, run:NAME, a run's folder or a safetensors file"
            )
    _check_unseen(config, path)
    return replace(config, weights=weights, weights_digest=file_digest(path)), path


def run_of(weights: Path) -> Folder | None:
    """The run folder that a file of weights stands in, if any."""
    return Folder.open(weights.parent) if (weights.parent / CONFIG).exists() else None


def _check_unseen(config: RuleConfig, weights: Path) -> None:
    run = run_of(weights)
    if run is None or run.config.get("dataset") != config.dataset:
        return
    classifies = isinstance(config, ClassifierConfig)
    if run.classifies != classifies:
        task, asked = (
            ("classification", "test images") if classifies else ("hashing", "queries or the database")
        )
        raise InputError(
            f"weights '{weights}' were trained by the other protocol of {config.dataset}, on images that stand "
            f"among the {asked} of this one: pretrain with --task {task}"
        )
