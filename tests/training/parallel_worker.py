"""Trainings that are done by one process and by two: called by the tests, or run in processes that are told what they
are, as `torchrun --nproc-per-node 2 parallel_worker.py FOLDER` does.

Each process keeps what it has at the end of each training as FOLDER/<name>-<rank>.safetensors.
"""

from __future__ import annotations

import atexit
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hashrobust.datasets import ClassificationDataset, RetrievalDataset, load_classification, load_dataset
from hashrobust.experiments.checkpoints import FolderCheckpoints
from hashrobust.experiments.store import Folder
from hashrobust.launch import launch
from hashrobust.models import Classifier, HashModel, Network, load_tensors, save_tensors
from hashrobust.rules import convert, feedback_state
from hashrobust.training import (
    StagedRule,
    TrainingResult,
    finetune,
    finetune_classifier,
    objective_for,
    parallel,
    pretrain,
)

# 150 images, so that batches of 49 are 49, 49, 49 and 3: shares of 24 and 25, and a last batch for one process alone.
FAST: dict[str, Any] = {
    **{"epochs": 2, "batch_size": 49, "optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.0},
    "head_learning_rate_factor": 1.0,
}
CASES: dict[str, dict[str, Any]] = {
    **{rule: {"rule": rule} for rule in ("bp", "fa", "usf", "brsf", "frsf", "dfa")},
    "matched": {"rule": "brsf", "scale": "matched"},
    "some layers": {"rule": "frsf", "layers": "backbone.*"},
    "staged": {"staged": "bp@1,brsf"},
    "centres": {"objective": "csq", "rule": "frsf", "batch_size": 50},
    "proxies": {"objective": "hyp2", "rule": "brsf"},
    "own classifier": {"objective": "greedyhash"},
    "triplets": {"objective": "dtsh", "optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 5e-4},
    "augmented": {"rule": "frsf", "augment": "crop-flip", "schedule": "cosine"},
    "odd batches": {"rule": "frsf", "batch_size": 13},
    "batches of two": {"rule": "usf", "batch_size": 2, "max_steps": 20},
    "batches of three": {"batch_size": 3, "max_steps": 20},
    "defended": {"rule": "frsf", "objective": "csq", "defence": "center-fast"},
    "classifier": {"task": "classification", "rule": "brsf"},
    "pretraining": {"task": "pretraining", "augment": "crop"},
}
# Not the same as by one process: each has BatchNorm's statistics of its share, and ITQ makes much of rounding.
OTHERS: dict[str, dict[str, Any]] = {
    "batchnorm": {"backbone": "resnet20", "rule": "frsf", "max_steps": 1, "batch_size": 20},
    "batchnorm small": {"backbone": "resnet20", "rule": "brsf", "max_steps": 8, "batch_size": 3},
    "rotated": {"objective": "csq", "rotate": "itq"},
}


def load(task: str) -> RetrievalDataset | ClassificationDataset:
    """Digits with a train split of 150."""
    data = (load_classification if task == "classification" else load_dataset)("digits", image_size=16)
    train = replace(data.train, labels=data.train.labels[::3][:150], ids=data.train.ids[::3][:150])
    return replace(data, train=train)


def new_model(task: str = "hashing", backbone: Any = "lenet") -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if task == "hashing":
            model = HashModel(backbone, 12, image_size=16)
            nn.init.normal_(model.head.weight, std=0.3)  # so that all layers learn from the first step on
            return model
        return Classifier(backbone, 10, image_size=16)


def train(
    *,
    task: str = "hashing",
    rule: str = "bp",
    objective: str = "dpsh",
    staged: str | None = None,
    scale: str = "xavier",
    layers: str = "*",
    backbone: Any = "lenet",
    **options: Any,
) -> tuple[dict[str, Tensor], TrainingResult]:
    """Train as a case says; weights, feedback and the objective's own tensors, and what training left."""
    data, model = load(task), new_model(task, backbone)
    options = FAST | options
    if staged:
        options["staged"] = StagedRule.parse(staged)
    elif rule != "bp":
        convert(model, rule, scale=scale, layers=layers)
    tensors: dict[str, Tensor] = {}
    if task == "hashing":
        assert isinstance(data, RetrievalDataset) and isinstance(model, HashModel)
        built = objective_for(data, objective, 12, {}, seed=0)
        result = finetune(model, data, objective=built, **options)
        tensors |= {f"objective.{name}": tensor for name, tensor in built.state_dict().items()}
    elif task == "classification":
        assert isinstance(data, ClassificationDataset) and isinstance(model, Classifier)
        result = finetune_classifier(model, data, **options)
    else:
        assert isinstance(model, Classifier)
        result = pretrain(model, data, **options)
    tensors |= {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"feedback.{name}": tensor for name, tensor in feedback_state(model).items()}
    return tensors, result


class Droops(nn.Module):
    """Features with dropout, that remembers what was left of the first image it saw."""

    feature_dim = 64
    channels, image_size = 1, 16

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(256, 64), nn.Dropout(0.5)
        self.left: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.dropout(1 + self.layer(images.flatten(1)).relu())
        if self.training and self.left is None:
            self.left = features[0] != 0
        return features


def thread_names() -> list[str]:
    """Names of this process's threads, where the system tells them."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def main(folder: Path) -> None:
    """All cases, and some more that are not the same by one process."""
    torch.set_num_threads(1)
    atexit.register(lambda: (folder / f"threads-{launch().rank}").write_text("\n".join(thread_names())))
    with parallel.joined():
        rank = parallel.rank()

        def keep(name: str, tensors: dict[str, Tensor], history: list[dict[str, float]]) -> None:
            save_tensors(tensors, folder / f"{name}-{rank}.safetensors", {"history": history})

        for name, case in (CASES | OTHERS).items():
            tensors, result = train(**case)
            keep(name, tensors, result.history)
        droops = Droops()
        train(backbone=droops, max_steps=1)
        assert droops.left is not None
        keep("dropout", {"left": droops.left}, [])
        begun = FolderCheckpoints(Folder.open(folder / "begun"))
        tensors, result = train(
            rule="brsf", objective="hyp2", epochs=3, checkpoints=begun if parallel.is_first() else None
        )
        keep("resumed", tensors, result.history)
        (folder / f"size-{rank}.json").write_text(json.dumps([parallel.size(), parallel.same(["of", rank])]))


def kept(folder: Path, name: str, rank: int) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """What a process kept of a training."""
    tensors, values = load_tensors(folder / f"{name}-{rank}.safetensors")
    return tensors, values["history"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
