"""`hashrobust audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from hashrobust.cli._console import ConsoleProgress, print_json, stdout
from hashrobust.cli._options import (
    RESULTS,
    DataDir,
    Device,
    Json,
    Overwrite,
    Plugin,
    Quiet,
    Results,
    Threads,
    split_list,
)
from hashrobust.cli._subject import (
    Dataset,
    Model,
    ModelImageSize,
    ModelTask,
    OptionalRun,
    Weights,
    default_attack,
    find_subject,
)


def command(
    run: OptionalRun = None,
    control: Annotated[
        str | None, typer.Option(help="The backpropagation twin: a run on the same data, with as many bits.")
    ] = None,
    epsilon: Annotated[str, typer.Option(help="The budget that the claim is about.")] = "8/255",
    attack: Annotated[
        str | None,
        typer.Option(
            help="The attack whose numbers are audited; the rest of the suite stands beside it.",
            show_default="center; classifiers: pgd",
        ),
    ] = None,
    also: Annotated[
        list[str], typer.Option(help="Further attacks for the suite; repeat for several, or a,b.")
    ] = [],  # noqa: B006
    budget: Annotated[str, typer.Option(help="quick, standard or thorough.")] = "standard",
    queries: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Queries to attack.", show_default="the budget's"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Gradient steps of an attack.", show_default="the budget's"),
    ] = None,
    restarts: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Random starts of the audited attack.", show_default="the budget's"
        ),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Model queries of an attack without gradients.",
            show_default="the budget's",
        ),
    ] = None,
    query_seed: Annotated[int, typer.Option(help="Chooses the subset of the queries.")] = 0,
    seed: Annotated[int, typer.Option(help="Of random starts and draws.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images per batch.")] = 100,
    threads: Threads = None,
    model: Model = None,
    weights: Weights = None,
    dataset: Dataset = None,
    task: ModelTask = None,
    image_size: ModelImageSize = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell how long it would take, and stop.")
    ] = False,
    results: Results = RESULTS,
    data_dir: DataDir = None,
    device: Device = "auto",
    plugin: Plugin = [],  # noqa: B006
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run all attacks and checks on a model, and give a verdict."""
    from hashrobust.experiments.audit.plan import AuditConfig
    from hashrobust.experiments.audit.runs import RESULT, audit_cost, audit_run
    from hashrobust.experiments.config import parse_epsilon
    from hashrobust.experiments.store import find_run
    from hashrobust.reports.audit_screen import screen

    progress = ConsoleProgress(quiet=quiet)
    config = AuditConfig(
        epsilon=parse_epsilon(epsilon),
        attack=attack or default_attack(run, model, task, results),
        also=tuple(split_list(also, "--also")),
        budget=budget,
        queries=queries,
        steps=steps,
        restarts=restarts,
        search=search,
        seed=seed,
        query_seed=query_seed,
        batch_size=batch_size,
        threads=threads,
    )
    twin = None if control is None else find_run(control, results)
    folder = find_subject(
        run,
        results,
        model=model,
        weights=weights,
        dataset=dataset,
        task=task,
        image_size=image_size,
        data_dir=data_dir,
        device=device,
    )
    if dry_run:
        cost = audit_cost(folder, config, control=twin, data_dir=data_dir, device=device)
        if json:
            print_json({**config.to_dict(), "cost": cost})
        else:
            print(cost)
        return
    done = audit_run(
        folder,
        config,
        control=twin,
        data_dir=data_dir,
        device=device,
        overwrite=overwrite,
        progress=progress,
    )
    if json:
        print_json({"folder": str(done.path), **done.config, **done.read_json(RESULT, made_by="audit")})
    else:
        for part in screen(done):
            stdout.print(part, soft_wrap=isinstance(part, str), markup=False, highlight=False)
    progress.say(f"stored: {done.path}; next: hashrobust report {folder.path.parent}")
