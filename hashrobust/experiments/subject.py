"""What is attacked: a run with its model, data and, if it hashes, codes at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hashrobust.datasets import LabelledDataset, RetrievalDataset
from hashrobust.errors import InputError
from hashrobust.experiments.environment import choose_device
from hashrobust.experiments.files import file_digest
from hashrobust.experiments.measures import MEASURES, Measure
from hashrobust.experiments.opened import Model, open_model
from hashrobust.experiments.retrieval_runs import CODES, StoredCodes, encode_run
from hashrobust.experiments.store import CONFIG, Folder
from hashrobust.experiments.trained_runs import load_run_data
from hashrobust.experiments.weights import MODEL
from hashrobust.metrics import leave_one_out_average_precision
from hashrobust.models import ClassifyingModel
from hashrobust.options import own_feedback
from hashrobust.progress import Progress
from hashrobust.rules import layers_of, rule_of


@dataclass(frozen=True)
class Subject:
    """A run opened: its model in eval mode on its device, its data, and the codes of every split, if it hashes."""

    folder: Folder
    model: Model
    data: LabelledDataset
    codes: dict[str, StoredCodes]

    @classmethod
    def open(
        cls,
        run: Folder,
        *,
        data: LabelledDataset | None = None,
        model: Model | None = None,
        data_dir: Path | None = None,
        device: str = "auto",
        progress: Progress,
    ) -> Subject:
        """Load what is not given; codes are computed once and stored in the run.

        Raises:
            StoreError: the run is unfinished or damaged, or its data has changed.
        """
        data = data or load_run_data(run, data_dir, progress)
        model = (model or open_model(run)).to(choose_device(device)).eval()
        if isinstance(model, ClassifyingModel):
            return cls(run, model, data, {})
        assert isinstance(data, RetrievalDataset)
        return cls(run, model, data, encode_run(run, data=data, model=model, progress=progress))

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def measure(self) -> Measure:
        """What the model is measured by."""
        return MEASURES["classification" if isinstance(self.model, ClassifyingModel) else "hashing"]

    @property
    def digest(self) -> str:
        """SHA-256 of the file by which the model is known: its codes, or of a classifier the weights, or what is
        stored of a model made elsewhere."""
        if self.codes:
            return file_digest(self.folder.file(CODES, made_by="index"))
        name = MODEL if self.folder.has(MODEL) else CONFIG
        return file_digest(self.folder.file(name, made_by=self.folder.command))

    def answers(self, images: Tensor) -> Tensor:
        """Codes (N, K) int8 in {-1, +1}, or of a classifier classes (N,) int64, of images in [0, 1]."""
        model = self.model
        return model.predict(images) if isinstance(model, ClassifyingModel) else model.encode(images)

    def validation_score(self) -> float:
        """mAP with each validation image ranked against the others, or of a classifier their accuracy."""
        if isinstance(self.model, ClassifyingModel):
            return self.model.accuracy(self.data.validation)
        stored = self.codes["validation"]
        return float(leave_one_out_average_precision(stored.codes, stored.labels).mean())

    @property
    def rule(self) -> str:
        """The learning rule whose feedback the model carries; "bp" for plain and foreign models."""
        return rule_of(self.model)

    @property
    def feedback(self) -> str:
        """The rule, and the layers where only some follow it, as a gradient `rule:NAME` names them."""
        return own_feedback(self.rule, layers_of(self.model))

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device


def check_surrogate(surrogate: Subject, target: Subject, role: str = "surrogate") -> None:
    """Refuse a surrogate, or a control, that cannot stand in for the target.

    Raises:
        InputError: it serves another task, has other outputs, takes other images, or was made with other data.
    """
    facts = {
        "the task": (surrogate.measure.task, target.measure.task),
        "bits": (surrogate.model.output_count, target.model.output_count),
        "images (channels, height, width) of": (surrogate.model.input_shape, target.model.input_shape),
        "data with fingerprint": (surrogate.data.fingerprint, target.data.fingerprint),
    }
    for what, (own, wanted) in facts.items():
        if own != wanted:
            raise InputError(
                f"{role} '{surrogate.name}' has {what} {own}, run '{target.name}' {wanted}: "
                f"take a {role} made with the same data set, image size and code length"
            )
