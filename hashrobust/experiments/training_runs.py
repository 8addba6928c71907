"""Pre-training and fine-tuning as run folders: resumed where they stopped, never done twice."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from hashrobust.backbones import backbones
from hashrobust.datasets import RetrievalDataset, load_dataset
from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.checkpoints import FolderCheckpoints
from hashrobust.experiments.config import FinetuneConfig, PretrainConfig, TrainingConfig, preset_values
from hashrobust.experiments.environment import (
    check_fingerprint,
    choose_device,
    record_environment,
    threads,
)
from hashrobust.experiments.files import file_digest
from hashrobust.experiments.store import Folder, find_run
from hashrobust.models import (
    Classifier,
    HashModel,
    Network,
    load_model,
    load_tensors,
    load_weights,
    save_model,
    save_tensors,
)
from hashrobust.objectives import objectives
from hashrobust.progress import Progress, Silent
from hashrobust.rules import ConversionReport, convert, feedback_state, load_feedback_state, rules
from hashrobust.seeding import key_seed
from hashrobust.training import TrainingResult, build_defence, finetune, objective_for, pretrain

MODEL = "model.safetensors"
FEEDBACK = "feedback.safetensors"
# Named, since rows that were read back from a checkpoint have their keys in another order.
HISTORY = ["epoch", "loss", "validation_map", "learning_rate"]
ALIGNMENT = ["epoch", "layer", "angle_degrees", "norm_ratio"]


def pretrain_run(
    config: PretrainConfig,
    results: Path,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Folder:
    """Train a backbone as a classifier on the protocol's train split; its run folder.

    Raises:
        InputError: an unknown name or impossible value, before any folder is made.
        TrainingError: the loss is not finite.
    """
    progress = progress or Silent()
    place = choose_device(device)
    backbones[config.backbone]
    data = _load_data(config, data_dir)
    for line in data.skipped_lines():
        progress.say(line)
    with torch.random.fork_rng():
        torch.manual_seed(key_seed("init", config.seed))
        model = Classifier(config.backbone, len(data.classes), **_shape(data), mean=data.mean, std=data.std)
    path = results / config.run_name
    if not overwrite and _is_done(path, data, MODEL, "metrics.json"):
        progress.say(f"{path.name} is done already")
        return Folder.open(path)
    described = {"task": "pretrain", **config.to_dict()}
    with Folder.held(path, described, overwrite=overwrite) as folder, threads(config.threads):
        record_environment(folder, device=place, fingerprint=data.fingerprint)
        started = time.perf_counter()
        checkpoints = FolderCheckpoints(folder)
        result = pretrain(
            model.to(place), data, options=config.options, checkpoints=checkpoints, progress=progress
        )
        _store_training(folder, model, result, time.perf_counter() - started)
        folder.write_json("metrics.json", {"train_accuracy": model.accuracy(data.train)})
    return folder


def finetune_run(
    config: FinetuneConfig,
    results: Path,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Folder:
    """Fine-tune a hashing model with a learning rule; its run folder.

    Raises:
        InputError: an unknown name or impossible value, before any folder is made.
        TrainingError: the loss is not finite.
    """
    progress = progress or Silent()
    place = choose_device(device)
    backbones[config.backbone]
    rules[config.rule]
    data = _load_data(config, data_dir)
    for line in data.skipped_lines():
        progress.say(line)
    objective = objective_for(data, config.objective, config.bits, config.objective_params, seed=config.seed)
    defence = build_defence(config.defence, config.defence_params, seed=config.seed)
    config, weights = resolve_weights(config, results)
    model = _starting_model(config, data, weights)
    report = convert(model, config.rule, seed=config.seed, scale=config.feedback_scale, probe=_probe(model))
    path = results / config.run_name
    if not overwrite and _is_done(path, data, MODEL, FEEDBACK, "history.csv"):
        progress.say(f"{path.name} is done already")
        return Folder.open(path)
    described = {"task": "finetune", **config.to_dict()}
    with Folder.held(path, described, overwrite=overwrite) as folder, threads(config.threads):
        record_environment(folder, device=place, fingerprint=data.fingerprint)
        _say_conversion(report, progress)
        folder.write_json("conversion.json", {"converted": report.converted, "left": report.left})
        started = time.perf_counter()
        checkpoints = FolderCheckpoints(folder)
        result = finetune(
            model.to(place),
            data,
            objective=objective,
            defence=defence,
            options=config.options,
            checkpoints=checkpoints,
            progress=progress,
        )
        with folder.writing(FEEDBACK) as temporary:
            save_tensors(feedback_state(model), temporary, {"rule": config.rule, "seed": config.seed})
        folder.seal(FEEDBACK)
        _store_training(folder, model, result, time.perf_counter() - started)
    return folder


def objective_params_of_preset(preset: str, objective: str) -> dict[str, Any]:
    """The parameters that a training preset sets and that this objective takes.

    Raises:
        UnknownNameError: no such preset or objective.
    """
    wanted = preset_values(preset)[0].get("objective_params", {})
    known = objectives.parameters(objective)
    return {name: value for name, value in wanted.items() if name in known}


def resolve_weights(config: FinetuneConfig, results: Path) -> tuple[FinetuneConfig, Path | None]:
    """The configuration with the digest of its weights, and the file they are in (None: no file).

    Raises:
        InputError: `weights` names no run or file, or one that cannot be read.
    """
    weights = config.weights
    if weights in ("none", "imagenet"):
        return config, None
    if weights.startswith("run:"):
        run = find_run(weights.removeprefix("run:"), results)
        path = run.file(MODEL, made_by="pretrain")
        weights = f"run:{run.name}"
    else:
        path = Path(weights)
        if not path.is_file():
            raise InputError(
                f"weights '{weights}' are no file: give none, imagenet, a safetensors file or run:NAME"
            )
    return replace(config, weights=weights, weights_digest=file_digest(path)), path


def load_run(folder: Folder) -> HashModel:
    """The fine-tuned model of a run, converted to its rule with its own feedback weights, in eval mode.

    Raises:
        StoreError: no finished fine-tuning, or damaged files.
    """
    config = FinetuneConfig.from_dict(folder.config)
    if folder.config.get("task") != "finetune":
        raise StoreError(f"run '{folder.path}' holds a classifier, no hashing model: name a finetune run")
    try:
        model = load_model(folder.file(MODEL, made_by="finetune"))
        state, _ = load_tensors(folder.file(FEEDBACK, made_by="finetune"))
    except StoreError:
        raise
    except InputError as error:
        raise StoreError(f"run '{folder.path}' is damaged: {error}") from error
    assert isinstance(model, HashModel)
    if config.rule != "bp":
        convert(model, config.rule, seed=config.seed, scale=config.feedback_scale, probe=_probe(model))
        load_feedback_state(model, state)
    return model


def load_run_data(folder: Folder, data_dir: Path | None = None) -> RetrievalDataset:
    """The dataset of a run.

    Raises:
        StoreError: the data is not what the run was made with.
    """
    config = FinetuneConfig.from_dict(folder.config)
    data = _load_data(config, data_dir)
    check_fingerprint(folder, data.fingerprint)
    return data


def _load_data(config: TrainingConfig, data_dir: Path | None) -> RetrievalDataset:
    return load_dataset(config.dataset, data_dir=data_dir, image_size=config.image_size)


def _shape(data: RetrievalDataset) -> dict[str, Any]:
    channels, height, _ = data.image_shape
    return {"channels": channels, "image_size": height}


def _starting_model(config: FinetuneConfig, data: RetrievalDataset, weights: Path | None) -> HashModel:
    with torch.random.fork_rng():
        torch.manual_seed(key_seed("init", config.seed))
        model = HashModel(config.backbone, config.bits, **_shape(data), mean=data.mean, std=data.std)
    if weights is not None:
        load_weights(model, weights)
    elif config.weights == "imagenet":
        model.use_imagenet_weights()
    return model


def _probe(model: Network) -> Tensor:
    """An input batch of the right shape, which tells the layers that are called from the others."""
    return torch.zeros(2, *model.input_shape, device=model.device)


def _is_done(path: Path, data: RetrievalDataset, *names: str) -> bool:
    """Whether a run with all these files is there, made with this data."""
    if not Folder(path).has(*names):
        return False
    check_fingerprint(Folder.open(path), data.fingerprint)
    return True


def _say_conversion(report: ConversionReport, progress: Progress) -> None:
    progress.say(f"rule {report.rule}: {len(report.converted)} layers converted")
    for name, reason in report.left.items():
        progress.say(f"  {name or 'model'} stays on backpropagation: {reason}")


def _store_training(folder: Folder, model: Network, result: TrainingResult, seconds: float) -> None:
    folder.write_table("history.csv", pd.DataFrame(result.history, columns=HISTORY))
    if result.alignment:
        folder.write_table("alignment.csv", pd.DataFrame(result.alignment, columns=ALIGNMENT))
    with folder.writing(MODEL) as temporary:
        save_model(model, temporary)
    folder.seal(MODEL)
    folder.add_timing(training_seconds=seconds)
