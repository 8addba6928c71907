"""The run that a command is about: one that was made here, or a model of somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hashrobust.cli._options import check_task
from hashrobust.errors import InputError

if TYPE_CHECKING:
    from hashrobust.experiments.store import Folder

_PANEL = "A model made elsewhere, in place of a run"

OptionalRun = Annotated[
    str | None,
    typer.Argument(help="A run's folder, or the beginning of its name in --results; or give --model."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODULE:FACTORY",
        help="Such as package.module:factory, called for a model: images in [0, 1] to outputs or logits.",
        rich_help_panel=_PANEL,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Its state dict, a safetensors file.", rich_help_panel=_PANEL),
]
Dataset = Annotated[
    str | None,
    typer.Option("--dataset", help="Its data: see `hashrobust list datasets`.", rich_help_panel=_PANEL),
]
ModelTask = Annotated[
    str | None,
    typer.Option("--task", help="hashing or classification.", show_default="hashing", rich_help_panel=_PANEL),
]
ModelImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        min=1,
        metavar="N",
        help="Height and width in pixels.",
        show_default="the dataset's own",
        rich_help_panel=_PANEL,
    ),
]


def find_subject(
    run: str | None,
    results: Path,
    *,
    model: str | None,
    weights: Path | None,
    dataset: str | None,
    task: str | None,
    image_size: int | None,
    data_dir: Path | None,
    device: str,
) -> Folder:
    """The run folder.

    Raises:
        InputError: both or neither of a run and a model, a model without its dataset, or an unknown task.
    """
    from hashrobust.experiments.foreign_runs import import_foreign
    from hashrobust.experiments.store import find_run

    if (run is None) == (model is None):
        raise InputError("name either a run, or a model by --model package.module:factory with --dataset")
    if run is not None:
        if any(option is not None for option in (weights, dataset, task, image_size)):
            raise InputError(
                "--weights, --dataset, --task and --image-size belong to --model: a run has its own"
            )
        return find_run(run, results)
    assert model is not None
    if dataset is None:
        raise InputError(
            "--model needs --dataset: name what it retrieves from or classifies, see `hashrobust list datasets`"
        )
    return import_foreign(
        model,
        dataset,
        results,
        task=task or "hashing",
        weights=weights,
        image_size=image_size,
        data_dir=data_dir,
        device=device,
    )


def default_attack(run: str | None, model: str | None, task: str | None, results: Path) -> str:
    """The attack that is meant unless one is named: by the task of the run or of the model."""
    from hashrobust.experiments.audit.plan import DEFAULT_ATTACKS
    from hashrobust.experiments.store import find_run

    if run is not None and model is None:
        task = "classification" if find_run(run, results).classifies else "hashing"
    return DEFAULT_ATTACKS[check_task(task or "hashing")]
