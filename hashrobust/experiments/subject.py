"""What is attacked: a run with its model, data and codes at hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hashrobust.datasets import RetrievalDataset
from hashrobust.errors import InputError
from hashrobust.experiments.environment import choose_device
from hashrobust.experiments.foreign_runs import load_any
from hashrobust.experiments.retrieval_runs import StoredCodes, encode_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.training_runs import load_run_data
from hashrobust.models import Hasher
from hashrobust.progress import Progress
from hashrobust.rules import rule_of


@dataclass(frozen=True)
class Subject:
    """A run opened: its model in eval mode on its device, its data, and the codes of every split."""

    folder: Folder
    model: Hasher
    data: RetrievalDataset
    codes: dict[str, StoredCodes]
    gradient_checks: dict[Any, dict[str, Any]] = field(default_factory=dict, repr=False, compare=False)
    """What is known already of the model's gradients, by epsilon and images: all attacks ask the same."""

    @classmethod
    def open(
        cls,
        run: Folder,
        *,
        data: RetrievalDataset | None = None,
        model: Hasher | None = None,
        data_dir: Path | None = None,
        device: str = "auto",
        progress: Progress,
    ) -> Subject:
        """Load what is not given; codes are computed once and stored in the run.

        Raises:
            StoreError: the run is unfinished or damaged, or its data has changed.
        """
        data = data or load_run_data(run, data_dir)
        model = (model or load_any(run)).to(choose_device(device)).eval()
        codes = encode_run(run, data=data, model=model, progress=progress)
        return cls(run, model, data, codes)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def rule(self) -> str:
        """The learning rule whose feedback the model carries; "bp" for plain and foreign models."""
        return rule_of(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device


def check_surrogate(surrogate: Subject, target: Subject) -> None:
    """Refuse a surrogate that cannot stand in for the target.

    Raises:
        InputError: it has other bits, takes other images, or was made with other data.
    """
    facts = {
        "bits": (surrogate.model.bits, target.model.bits),
        "images (channels, height, width) of": (surrogate.model.input_shape, target.model.input_shape),
        "data with fingerprint": (surrogate.data.fingerprint, target.data.fingerprint),
    }
    for what, (own, wanted) in facts.items():
        if own != wanted:
            raise InputError(
                f"surrogate '{surrogate.name}' has {what} {own}, run '{target.name}' {wanted}: "
                "take a surrogate made with the same data set, image size and code length"
            )
