"""`hashrobust finetune`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashrobust.cli._console import ConsoleProgress, print_json
from hashrobust.cli._options import (
    RESULTS,
    DataDir,
    Device,
    ImageSize,
    Json,
    MixedPrecision,
    Overwrite,
    Plugin,
    Quiet,
    Results,
    Seeds,
    Threads,
    check_task,
    parse_params,
    parse_seeds,
)
from hashrobust.cli._processes import together
from hashrobust.errors import InputError

if TYPE_CHECKING:
    from hashrobust.experiments.store import Folder

_HASHING, _RULE, _HOW = "Hashing", "Learning rule", "Training"


@together
def command(
    context: typer.Context,
    task: Annotated[str, typer.Option(help="hashing or classification.")] = "hashing",
    dataset: Annotated[str, typer.Option(help="See `hashrobust list datasets`.")] = "digits",
    image_size: ImageSize = None,
    backbone: Annotated[str, typer.Option(help="See `hashrobust list backbones`.")] = "lenet",
    weights: Annotated[
        str, typer.Option(help="none, imagenet, run:NAME (or its folder), or a safetensors file.")
    ] = "none",
    preset: Annotated[
        str | None, typer.Option(help="berriche2025: the paper's training, for what is not given here.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="See `hashrobust list objectives`.", rich_help_panel=_HASHING)
    ] = "dpsh",
    param: Annotated[
        list[str],
        typer.Option(
            *("--param", "-p"),
            metavar="NAME=VALUE",
            help="A parameter of the objective; repeat for several.",
            rich_help_panel=_HASHING,
        ),
    ] = [],  # noqa: B006
    bits: Annotated[int, typer.Option(help="Code length K.", rich_help_panel=_HASHING)] = 32,
    rotate: Annotated[
        str,
        typer.Option(
            help="After training: none, or see `hashrobust list rotations`.", rich_help_panel=_HASHING
        ),
    ] = "none",
    defence: Annotated[
        str, typer.Option(help="none, or see `hashrobust list defences`.", rich_help_panel=_HASHING)
    ] = "none",
    defence_param: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the defence; repeat for several.",
            rich_help_panel=_HASHING,
        ),
    ] = [],  # noqa: B006
    rule: Annotated[
        str,
        typer.Option(
            help="See `hashrobust list rules`; bp@5,frsf is bp up to epoch 5, frsf from then on.",
            rich_help_panel=_RULE,
        ),
    ] = "bp",
    layers: Annotated[
        str,
        typer.Option(
            help="Layers that follow the rule, such as 'backbone.*' or conv1,head; the others keep bp.",
            rich_help_panel=_RULE,
        ),
    ] = "*",
    feedback_scale: Annotated[
        str,
        typer.Option(
            help="xavier (the paper's) or matched (to the norm of the weights).", rich_help_panel=_RULE
        ),
    ] = "xavier",
    epochs: Annotated[
        int, typer.Option(help="Passes over the train split, at most: see --patience.", rich_help_panel=_HOW)
    ] = 20,
    patience: Annotated[
        int,
        typer.Option(
            help="Stop after so many epochs without a better validation score; 0: never.",
            rich_help_panel=_HOW,
        ),
    ] = 10,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="End after so many steps, and keep their weights.",
            show_default="all epochs",
            rich_help_panel=_HOW,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.", rich_help_panel=_HOW)] = 128,
    optimizer: Annotated[str, typer.Option(help="adam or sgd.", rich_help_panel=_HOW)] = "adam",
    learning_rate: Annotated[float, typer.Option(help="The backbone's.", rich_help_panel=_HOW)] = 1e-4,
    head_learning_rate_factor: Annotated[
        float,
        typer.Option(
            help="The last layer's learning rate, as a multiple of the backbone's.",
            show_default="10; classification: 1",
            rich_help_panel=_HOW,
        ),
    ] = 10.0,
    weight_decay: Annotated[float, typer.Option(help="The optimizer's.", rich_help_panel=_HOW)] = 5e-4,
    schedule: Annotated[
        str,
        typer.Option(
            help="Of the learning rate: constant, cosine, or step (a tenth after 1/2 and 3/4).",
            rich_help_panel=_HOW,
        ),
    ] = "constant",
    augment: Annotated[
        str, typer.Option(help="none, flip, crop or crop-flip.", rich_help_panel=_HOW)
    ] = "none",
    seeds: Seeds = "0",
    mixed_precision: MixedPrecision = False,
    threads: Threads = None,
    results: Results = RESULTS,
    data_dir: DataDir = None,
    device: Device = "auto",
    plugin: Plugin = [],  # noqa: B006
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a hashing model or a classifier by a learning rule.

    The run's folder is printed.
    """
    progress = ConsoleProgress(quiet=quiet)
    settings: dict[str, Any] = {
        "dataset": dataset,
        "backbone": backbone,
        "weights": weights,
        "objective": objective,
        "objective_params": parse_params(param),
        "bits": bits,
        "rule": rule,
        "feedback_scale": feedback_scale,
        "layers": layers,
        "defence": defence,
        "defence_params": parse_params(defence_param),
        "rotate": rotate,
        "image_size": image_size,
        "epochs": epochs,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "head_learning_rate_factor": head_learning_rate_factor,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "patience": patience or None,
        "augment": augment,
        "mixed_precision": mixed_precision,
        "threads": threads,
    }
    settings = _fitting(check_task(task), settings, lambda name: _was_given(context, name))
    if preset is not None:
        given = {name for name in settings if _was_given(context, name)}
        settings |= _preset(preset, settings, given, progress)
    folders = []
    for seed in parse_seeds(seeds):
        folder = _train(
            task,
            settings | {"seed": seed},
            results,
            data_dir=data_dir,
            device=device,
            overwrite=overwrite,
            progress=progress,
        )
        folders.append(folder)
        if not json:
            print(folder.path)
    attack = "center" if task == "hashing" else "pgd"
    by_rule = "" if settings["rule"].rpartition(",")[2] == "bp" else " --gradient exact,rule"
    progress.say(f"next: hashrobust attack {folders[-1].path} --attack {attack}{by_rule}")
    if json:
        print_json([{"run": str(folder.path), **folder.config} for folder in folders])


def _train(task: str, settings: dict[str, Any], results: Path, **how: Any) -> Folder:
    from hashrobust.experiments.classifier_runs import classify_run
    from hashrobust.experiments.config import ClassifierConfig, FinetuneConfig
    from hashrobust.experiments.training_runs import finetune_run

    if task == "classification":
        return classify_run(ClassifierConfig(**settings), results, **how)
    return finetune_run(FinetuneConfig(**settings), results, **how)


_OF_HASHING = ("objective", "objective_params", "bits", "defence", "defence_params", "rotate")
_OPTIONS = {"objective_params": "param", "defence_params": "defence_param"}


def _fitting(task: str, settings: dict[str, Any], given: Callable[[str], bool]) -> dict[str, Any]:
    """The settings that the task takes, with its own defaults.

    Raises:
        InputError: one was given that belongs to the other task.
    """
    if task == "hashing":
        return settings
    for name in _OF_HASHING:
        option = _OPTIONS.get(name, name)
        if given(option):
            raise InputError(f"--{option.replace('_', '-')} belongs to hashing: leave it out to classify")
    if not given("head_learning_rate_factor"):
        settings = settings | {"head_learning_rate_factor": 1.0}
    return {name: value for name, value in settings.items() if name not in _OF_HASHING}


def _preset(
    name: str, settings: Mapping[str, Any], given: Collection[str], progress: ConsoleProgress
) -> dict[str, Any]:
    """The preset's values for those settings that were not given; what its source leaves unknown is said."""
    from hashrobust.experiments.config import preset_values
    from hashrobust.experiments.training_runs import objective_params_of_preset

    values, remark = preset_values(name)
    chosen = {key: value for key, value in values.items() if key in settings and key not in given}
    if "objective" in settings:
        fitting = objective_params_of_preset(name, settings["objective"])
        chosen["objective_params"] = fitting | settings["objective_params"]
    progress.say(remark)
    return chosen


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
