"""Finished trainings read back: the model, converted to its rule with its own feedback, and its data."""

from __future__ import annotations

from pathlib import Path

from hashrobust.datasets import LabelledDataset, RetrievalDataset, load_classification, load_dataset
from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.config import FinetuneConfig, RuleConfig, TrainingConfig
from hashrobust.experiments.conversion import staged_rule
from hashrobust.experiments.environment import check_fingerprint
from hashrobust.experiments.store import Folder
from hashrobust.experiments.weights import MODEL
from hashrobust.models import HashModel, Network, load_model, load_tensors
from hashrobust.options import BACKPROPAGATION
from hashrobust.progress import Progress
from hashrobust.rules import load_feedback_state
from hashrobust.training import parallel

FEEDBACK = "feedback.safetensors"


def load_run(folder: Folder) -> HashModel:
    """The fine-tuned hashing model of a run, converted to its rule with its own feedback weights, in eval mode.

    Raises:
        StoreError: no finished fine-tuning of a hashing model, or damaged files.
    """
    if folder.config.get("task") != "finetune":
        raise StoreError(f"run '{folder.path}' holds a classifier, no hashing model: name a finetune run")
    model = load_trained(folder, FinetuneConfig.from_dict(folder.config))
    assert isinstance(model, HashModel)
    return model


def load_trained(folder: Folder, config: RuleConfig) -> Network:
    """The model of a run that was trained by a rule, converted to it, in eval mode.

    Raises:
        StoreError: training is not finished, or files are damaged.
    """
    try:
        model = load_model(folder.file(MODEL, made_by=folder.command))
        state, _ = load_tensors(folder.file(FEEDBACK, made_by=folder.command))
    except StoreError:
        raise
    except InputError as error:
        raise StoreError(f"run '{folder.path}' is damaged: {error}") from error
    staged = staged_rule(config, model)
    if staged.last != BACKPROPAGATION:
        staged.convert(model, staged.last)
        load_feedback_state(model, state)
    return model


def load_run_data(
    folder: Folder, data_dir: Path | None = None, progress: Progress | None = None
) -> LabelledDataset:
    """The dataset of a run, by the protocol of its task.

    Raises:
        StoreError: the data is not what the run was made with.
    """
    config = TrainingConfig.from_dict(folder.config)
    data = load_data(config, data_dir, classify=folder.classifies, progress=progress)
    check_fingerprint(folder, data.fingerprint)
    return data


def load_retrieval_data(
    folder: Folder, data_dir: Path | None = None, progress: Progress | None = None
) -> RetrievalDataset:
    """The dataset of a run that hashes.

    Raises:
        StoreError: the run's model is a classifier; or see `load_run_data`.
    """
    data = load_run_data(folder, data_dir, progress)
    if not isinstance(data, RetrievalDataset):
        raise StoreError(f"run '{folder.path}' holds a classifier, which has no codes: name a hashing run")
    return data


def load_data(
    config: TrainingConfig,
    data_dir: Path | None,
    *,
    classify: bool = False,
    progress: Progress | None = None,
) -> LabelledDataset:
    """The dataset of a configuration, by the classification or the retrieval protocol."""
    load = load_classification if classify else load_dataset
    with parallel.first_ahead():
        return load(config.dataset, data_dir=data_dir, image_size=config.image_size, progress=progress)
