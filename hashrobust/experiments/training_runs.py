"""Pre-training and fine-tuning as run folders: resumed where they stopped, never done twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hashrobust.backbones import backbones
from hashrobust.datasets import LabelledDataset, RetrievalDataset
from hashrobust.experiments.checkpoints import FolderCheckpoints
from hashrobust.experiments.config import (
    ClassifierConfig,
    FinetuneConfig,
    PretrainConfig,
    RuleConfig,
    TrainingConfig,
    preset_values,
)
from hashrobust.experiments.conversion import record_conversion, staged_rule
from hashrobust.experiments.environment import (
    check_fingerprint,
    choose_device,
    record_environment,
    threads,
)
from hashrobust.experiments.store import Folder
from hashrobust.experiments.trained_runs import FEEDBACK, load_data
from hashrobust.experiments.weights import MODEL, resolve_weights
from hashrobust.models import (
    Classifier,
    HashModel,
    Network,
    load_weights,
    save_model,
    save_tensors,
)
from hashrobust.objectives import objectives
from hashrobust.options import parse_stages
from hashrobust.progress import Progress, Silent
from hashrobust.rotations import rotation_fit
from hashrobust.rules import feedback_state, rules
from hashrobust.seeding import key_seed
from hashrobust.training import (
    StagedRule,
    TrainingResult,
    build_defence,
    finetune,
    objective_for,
    parallel,
    pretrain,
)

# Named, since rows that were read back from a checkpoint have their keys in another order.
ALIGNMENT = ["epoch", "layer", "angle_degrees", "norm_ratio"]
VALIDATION = {"retrieval": "validation_map", "classification": "validation_accuracy"}


def pretrain_run(
    config: PretrainConfig,
    results: Path,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Folder:
    """Train a backbone as a classifier on the train split of a protocol; its run folder.

    Raises:
        InputError: an unknown name or impossible value, before any folder is made.
        TrainingError: the loss is not finite.
    """
    progress = progress or Silent()
    place = choose_device(device)
    backbones[config.backbone]
    data = load_data(config, data_dir, classify=config.protocol == "classification", progress=progress)
    for line in data.skipped_lines():
        progress.say(line)
    with torch.random.fork_rng():
        torch.manual_seed(key_seed("init", config.seed))
        model = Classifier(config.backbone, len(data.classes), **shape_of(data), mean=data.mean, std=data.std)
    path = results / config.run_name
    if parallel.same(not overwrite and _is_done(path, "pretrain", config, data, MODEL, "metrics.json")):
        progress.say(f"{path.name} is done already")
        return Folder.open(path)
    with _held(path, "pretrain", config, overwrite=overwrite) as folder:
        if folder:
            record_environment(folder, device=place, fingerprint=data.fingerprint)
        started = time.perf_counter()
        checkpoints = FolderCheckpoints(folder) if folder else None
        result = pretrain(
            model.to(place), data, options=config.options, checkpoints=checkpoints, progress=progress
        )
        accuracy = float(parallel.by_shares(model.correct, data.train).mean())
        if folder:
            _store_training(folder, model, result, time.perf_counter() - started)
            folder.write_json("metrics.json", {"train_accuracy": accuracy})
    return Folder.open(path)


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
    check_names(config)
    rotation_fit(config.rotate)
    data = load_data(config, data_dir, progress=progress)
    assert isinstance(data, RetrievalDataset)
    objective = objective_for(data, config.objective, config.bits, config.objective_params, seed=config.seed)
    defence = build_defence(config.defence, config.defence_params, seed=config.seed)
    config, weights = resolve_weights(config, results)
    with torch.random.fork_rng():
        torch.manual_seed(key_seed("init", config.seed))
        model = HashModel(config.backbone, config.bits, **shape_of(data), mean=data.mean, std=data.std)
    start_from(model, config, weights)

    def train(checkpoints: FolderCheckpoints | None, staged: StagedRule | None) -> TrainingResult:
        return finetune(
            model,
            data,
            objective=objective,
            defence=defence,
            staged=staged,
            rotate=config.rotate,
            options=config.options,
            checkpoints=checkpoints,
            progress=progress,
        )

    return rule_run(
        config, "finetune", model, data, train, results, device=device, overwrite=overwrite, progress=progress
    )


def rule_run(
    config: FinetuneConfig | ClassifierConfig,
    task: str,
    model: Network,
    data: LabelledDataset,
    train: Callable[[FolderCheckpoints | None, StagedRule | None], TrainingResult],
    results: Path,
    *,
    device: str,
    overwrite: bool,
    progress: Progress,
) -> Folder:
    """The run folder of a model that `train` trains in place, once it is converted to the configuration's rule, or
    while it is converted to one after the other."""
    place = choose_device(device)
    for line in data.skipped_lines():
        progress.say(line)
    staged = staged_rule(config, model)
    reports = staged.convert_to_first(model)
    path = results / config.run_name
    if parallel.same(not overwrite and _is_done(path, task, config, data, MODEL, FEEDBACK, "history.csv")):
        progress.say(f"{path.name} is done already")
        return Folder.open(path)
    with _held(path, task, config, overwrite=overwrite) as folder:
        if folder:
            record_environment(folder, device=place, fingerprint=data.fingerprint)
            record_conversion(folder, reports, progress)
        started = time.perf_counter()
        model.to(place)
        checkpoints = FolderCheckpoints(folder) if folder else None
        result = train(checkpoints, staged if len(staged.stages) > 1 else None)
        if folder:
            with folder.writing(FEEDBACK) as temporary:
                save_tensors(feedback_state(model), temporary, {"rule": config.rule, "seed": config.seed})
            _store_training(folder, model, result, time.perf_counter() - started)
    return Folder.open(path)


@contextmanager
def _held(path: Path, task: str, config: TrainingConfig, *, overwrite: bool) -> Iterator[Folder | None]:
    """A run folder held for one training, whose threads are set; of several processes the first one has it alone.

    The others have None: they write nothing, and leave the block when all is written.
    """
    with threads(config.threads):
        if parallel.is_first():
            with Folder.held(path, {"task": task, **config.to_dict()}, overwrite=overwrite) as folder:
                yield folder
        else:
            yield None
        parallel.wait()


def check_names(config: RuleConfig) -> None:
    """Refuse unknown names before any data are read.

    Raises:
        UnknownNameError: no such backbone or rule.
    """
    backbones[config.backbone]
    for stage in parse_stages(config.rule):
        rules[stage.rule]


def objective_params_of_preset(preset: str, objective: str) -> dict[str, Any]:
    """The parameters that a training preset sets and that this objective takes.

    Raises:
        UnknownNameError: no such preset or objective.
    """
    wanted = preset_values(preset)[0].get("objective_params", {})
    known = objectives.parameters(objective)
    return {name: value for name, value in wanted.items() if name in known}


def shape_of(data: LabelledDataset) -> dict[str, Any]:
    """The arguments by which a network is built for a dataset's images."""
    channels, height, _ = data.image_shape
    return {"channels": channels, "image_size": height}


def start_from(model: Network, config: RuleConfig, weights: Path | None) -> None:
    """Load the weights of a configuration into the backbone, and their normalisation with them."""
    if weights is not None:
        load_weights(model, weights)
    elif config.weights == "imagenet":
        with parallel.first_ahead():
            model.use_imagenet_weights()


def _is_done(path: Path, task: str, config: TrainingConfig, data: LabelledDataset, *names: str) -> bool:
    """Whether a run of a configuration with all these files is there, made with this data."""
    if not Folder(path).has(*names):
        return False
    check_fingerprint(Folder.open(path, {"task": task, **config.to_dict()}), data.fingerprint)
    return True


def _store_training(folder: Folder, model: Network, result: TrainingResult, seconds: float) -> None:
    score = VALIDATION["classification" if folder.classifies else "retrieval"]
    columns = ["epoch", "loss", score, "learning_rate"]
    folder.write_table("history.csv", pd.DataFrame(result.history, columns=columns))
    if result.alignment:
        folder.write_table("alignment.csv", pd.DataFrame(result.alignment, columns=ALIGNMENT))
    folder.add_timing(training_seconds=seconds)
    with folder.writing(MODEL) as temporary:  # last, as it says that the training is done
        save_model(model, temporary)
