"""What a study can train: one entry a task, with all that differs between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hashrobust.datasets import RetrievalDataset, load_dataset
from hashrobust.experiments.config import FinetuneConfig
from hashrobust.experiments.store import Folder
from hashrobust.experiments.training_runs import finetune_run
from hashrobust.models import HashModel
from hashrobust.progress import Progress
from hashrobust.training import build_defence, finetune, objective_for


@dataclass(frozen=True)
class Task:
    """One task.

    `train` makes the run of a `config`; `pretraining` are settings that its pre-training has to have, `load` is how
    its data come, `attacked` their split that is attacked. With `coded` the networks give codes: they have an
    objective and bits, and their retrieval is measured. `fit` trains a fresh network in memory, for a measurement of
    time. `attacks_pretrained` says that the pre-trained network itself can be attacked, before any fine-tuning.
    """

    config: type[FinetuneConfig]
    train: Callable[..., Folder]
    pretraining: Mapping[str, Any]
    load: Callable[..., RetrievalDataset]
    attacked: str
    coded: bool
    attacks_pretrained: bool
    network: Callable[..., HashModel]
    fit: Callable[..., object]


def _hash_model(config: FinetuneConfig, data: RetrievalDataset, **shape: Any) -> HashModel:
    return HashModel(config.backbone, config.bits, **shape)


def _fit_hashing(
    model: HashModel, data: RetrievalDataset, config: FinetuneConfig, progress: Progress
) -> object:
    objective = objective_for(data, config.objective, config.bits, config.objective_params, seed=config.seed)
    defence = build_defence(config.defence, config.defence_params, seed=config.seed)
    return finetune(
        model, data, objective=objective, defence=defence, options=config.options, progress=progress
    )


TASKS: Mapping[str, Task] = {
    "hashing": Task(
        config=FinetuneConfig,
        train=finetune_run,
        pretraining={},
        load=load_dataset,
        attacked="query",
        coded=True,
        attacks_pretrained=False,
        network=_hash_model,
        fit=_fit_hashing,
    ),
}
