"""The model of a finished run, by the run's name."""

from __future__ import annotations

from pathlib import Path

from hashrobust.experiments.classifier_runs import load_classifier
from hashrobust.experiments.foreign_runs import load_any
from hashrobust.experiments.store import Folder, find_run
from hashrobust.models import ClassifyingModel, Hasher

Model = Hasher | ClassifyingModel
"""What can be attacked."""


def open_model(run: Folder) -> Model:
    """The model of a run, fine-tuned here or imported, in eval mode.

    Raises:
        StoreError: see `load_any` and `load_classifier`.
    """
    return load_classifier(run) if run.classifies else load_any(run)


def load_run(run: str | Path, results: str | Path = "results") -> Model:
    """The model of a finished run as it was trained: converted to its rule with its own feedback, in eval mode.

    Args:
        run: a run folder, its name in `results`, or the unique beginning of one.
        results: the folder of all runs.

    Raises:
        StoreError: none or several runs fit, training is not finished, or files are damaged.
    """
    return open_model(find_run(str(run), Path(results)))
