"""`hashrobust finetune`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hashrobust.cli._console import ConsoleProgress, print_json
from hashrobust.cli._options import (
    DataDir,
    Device,
    ImageSize,
    Json,
    Overwrite,
    Params,
    Plugin,
    Quiet,
    Results,
    Threads,
    parse_params,
    parse_seeds,
)


def command(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(help="See `hashrobust list datasets`.")] = "digits",
    backbone: Annotated[str, typer.Option(help="See `hashrobust list backbones`.")] = "lenet",
    weights: Annotated[str, typer.Option(help="none, imagenet, a safetensors file, or run:NAME.")] = "none",
    objective: Annotated[str, typer.Option(help="See `hashrobust list objectives`.")] = "dpsh",
    bits: Annotated[int, typer.Option(help="Code length K.")] = 32,
    rule: Annotated[str, typer.Option(help="See `hashrobust list rules`.")] = "bp",
    feedback_scale: Annotated[str, typer.Option(help="xavier (the paper's) or matched.")] = "xavier",
    defence: Annotated[str, typer.Option(help="none, or see `hashrobust list defences`.")] = "none",
    image_size: ImageSize = None,
    epochs: Annotated[int, typer.Option(help="At most; see --patience.")] = 20,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=0, help="End after so many steps, keeping their weights.", show_default="all epochs"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 128,
    optimizer: Annotated[str, typer.Option(help="adam or sgd.")] = "adam",
    learning_rate: Annotated[float, typer.Option(help="Of the backbone.")] = 1e-4,
    head_learning_rate_factor: Annotated[
        float, typer.Option(help="Hash layer's learning rate / backbone's.")
    ] = 10.0,
    weight_decay: Annotated[float, typer.Option(help="Of the optimizer.")] = 5e-4,
    schedule: Annotated[str, typer.Option(help="constant or cosine.")] = "constant",
    patience: Annotated[
        int, typer.Option(help="Epochs without a better validation mAP before stopping; 0: never.")
    ] = 10,
    augment: Annotated[str, typer.Option(help="none, flip, crop or crop-flip.")] = "none",
    seeds: Annotated[str, typer.Option("--seeds", "--seed", help="0, 0,3 or 0-2.")] = "0",
    mixed_precision: Annotated[bool, typer.Option(help="bfloat16 where torch allows it.")] = False,
    threads: Threads = None,
    preset: Annotated[str | None, typer.Option(help="berriche2025: the paper's training.")] = None,
    param: Params = [],  # noqa: B006
    defence_param: Annotated[
        list[str], typer.Option(help="A parameter of the defence, as name=value; may be repeated.")
    ] = [],  # noqa: B006
    results: Results = Path("results"),
    data_dir: DataDir = None,
    device: Device = "auto",
    plugin: Plugin = [],  # noqa: B006
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a hashing model with a learning rule; prints the run's folder."""
    from hashrobust.experiments.config import FinetuneConfig
    from hashrobust.experiments.training_runs import finetune_run

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
        "defence": defence,
        "defence_params": parse_params(defence_param),
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
    if preset is not None:
        given = {name for name in settings if _was_given(context, name)}
        settings |= _preset(preset, settings, given, progress)
    folders = []
    for seed in parse_seeds(seeds):
        config = FinetuneConfig(**settings, seed=seed)
        folder = finetune_run(
            config, results, data_dir=data_dir, device=device, overwrite=overwrite, progress=progress
        )
        folders.append(folder)
        if not json:
            print(folder.path)
    progress.say(f"next: hashrobust attack {folders[-1].path} --attack center --gradient exact,rule")
    if json:
        print_json([{"run": str(folder.path), **folder.config} for folder in folders])


def _preset(
    name: str, settings: Mapping[str, Any], given: Collection[str], progress: ConsoleProgress
) -> dict[str, Any]:
    """The preset's values for what was not given; what its source leaves unknown is said."""
    from hashrobust.experiments.config import preset_values
    from hashrobust.objectives import objectives

    values, remark = preset_values(name)
    takes = objectives.parameters(settings["objective"])
    fitting = {key: value for key, value in values.get("objective_params", {}).items() if key in takes}
    progress.say(remark)
    return {
        **{key: value for key, value in values.items() if key not in given},
        "objective_params": fitting | settings["objective_params"],
    }


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
