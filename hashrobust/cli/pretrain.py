"""`hashrobust pretrain`."""

from __future__ import annotations

from typing import Annotated

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
    parse_seeds,
)
from hashrobust.cli._processes import together


@together
def command(
    task: Annotated[
        str,
        typer.Option(
            help="What the network will be fine-tuned for, hashing or classification: each has its own train split."
        ),
    ] = "hashing",
    dataset: Annotated[str, typer.Option(help="See `hashrobust list datasets`.")] = "digits",
    backbone: Annotated[str, typer.Option(help="See `hashrobust list backbones`.")] = "lenet",
    image_size: ImageSize = None,
    epochs: Annotated[int, typer.Option(help="Passes over the train split.")] = 30,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 128,
    optimizer: Annotated[str, typer.Option(help="adam or sgd.")] = "adam",
    learning_rate: Annotated[float, typer.Option(help="At the start; decays along a cosine.")] = 2e-3,
    weight_decay: Annotated[float, typer.Option(help="The optimizer's.")] = 5e-4,
    augment: Annotated[str, typer.Option(help="none, flip, crop or crop-flip.")] = "crop",
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
    """Train a backbone with backpropagation, as a classifier.

    It sees the train split alone; the run's folder is printed.
    """
    from hashrobust.experiments.config import PretrainConfig
    from hashrobust.experiments.training_runs import pretrain_run

    protocol = "classification" if check_task(task) == "classification" else "retrieval"
    progress, folders = ConsoleProgress(quiet=quiet), []
    for seed in parse_seeds(seeds):
        config = PretrainConfig(
            dataset=dataset,
            backbone=backbone,
            image_size=image_size,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            augment=augment,
            mixed_precision=mixed_precision,
            threads=threads,
            protocol=protocol,
            seed=seed,
        )
        folder = pretrain_run(
            config, results, data_dir=data_dir, device=device, overwrite=overwrite, progress=progress
        )
        accuracy = folder.read_json("metrics.json", made_by="pretrain")["train_accuracy"]
        progress.say(f"accuracy on the train split {100 * accuracy:.1f}%")
        folders.append(folder)
        if not json:
            print(folder.path)
    to = " --task classification" if task == "classification" else ""
    size = "" if image_size is None else f" --image-size {image_size}"
    progress.say(
        f"next: hashrobust finetune{to} --dataset {dataset}{size} --backbone {backbone} "
        f"--weights run:{folders[-1].path}"
    )
    if json:
        print_json(
            [
                {"run": str(folder.path), **folder.read_json("metrics.json", made_by="pretrain")}
                for folder in folders
            ]
        )
