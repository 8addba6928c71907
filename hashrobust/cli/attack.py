"""`hashrobust attack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hashrobust.cli._console import ConsoleProgress, print_json, stdout
from hashrobust.cli._options import (
    DataDir,
    Device,
    Json,
    Overwrite,
    Params,
    Plugin,
    Quiet,
    Results,
    Run,
    parse_params,
    split_list,
)


def command(
    run: Run,
    attack: Annotated[
        list[str], typer.Option(help="See `hashrobust list attacks`; several: repeat or a,b.")
    ] = ["center"],  # noqa: B006
    epsilon: Annotated[list[str], typer.Option(help="8/255; several: repeat or 2/255,8/255.")] = ["8/255"],  # noqa: B006
    gradient: Annotated[
        list[str],
        typer.Option(
            help="exact; rule: the model's own feedback; rule:NAME: through another rule's. Several: repeat."
        ),
    ] = ["exact"],  # noqa: B006
    preset: Annotated[str | None, typer.Option(help="Published settings, such as original or saat.")] = None,
    steps: Annotated[int | None, typer.Option(help="Gradient steps.")] = None,
    step_size: Annotated[str | None, typer.Option(help="Such as 1/255.")] = None,
    restarts: Annotated[int | None, typer.Option(help="Random starts.")] = None,
    queries: Annotated[
        int | None, typer.Option(help="A fixed subset of so many queries; all unless given.")
    ] = None,
    query_seed: Annotated[int, typer.Option(help="Which subset.")] = 0,
    seed: Annotated[int, typer.Option(help="Of random starts, targets and draws.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images a batch.")] = 100,
    threads: Annotated[
        int | None, typer.Option(help="Processor threads; torch's choice unless given.")
    ] = None,
    param: Params = [],  # noqa: B006
    picture: Annotated[
        bool, typer.Option(help="Write a picture of examples into each attack's folder.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and stop.")] = False,
    results: Results = Path("results"),
    data_dir: DataDir = None,
    device: Device = "auto",
    plugin: Plugin = [],  # noqa: B006
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Attack a run's queries inside an L-infinity ball; prints clean, attacked, theory and chance mAP."""
    from hashrobust.experiments.attack_runs import attack_cost, attack_run, build, check_gradient_name
    from hashrobust.experiments.config import AttackConfig, parse_epsilon
    from hashrobust.experiments.store import find_run

    progress = ConsoleProgress(quiet=quiet)
    given: dict[str, Any] = {
        "steps": steps,
        "step_size": None if step_size is None else parse_epsilon(step_size),
        "restarts": restarts,
    }
    configs = [
        AttackConfig(
            attack=name,
            epsilon=radius,
            gradient=through,
            preset=preset,
            params=_fitting(name, given, progress) | parse_params(param),
            seed=seed,
            queries=queries,
            query_seed=query_seed,
            batch_size=batch_size,
            threads=threads,
        )
        for name in split_list(attack)
        for radius in [parse_epsilon(text) for text in split_list(epsilon)]
        for through in split_list(gradient)
    ]
    for config in configs:
        build(config)
        check_gradient_name(config.gradient)
    folder = find_run(run, results)
    if dry_run:
        for config in configs:
            print(attack_cost(folder, config, data_dir=data_dir, device=device))
        return
    done = []
    for config in configs:
        done.append(
            attack_run(
                folder, config, data_dir=data_dir, device=device, overwrite=overwrite, progress=progress
            )
        )
        if picture:
            from hashrobust.reports.pictures import attack_examples

            drawn = done[-1].path / "examples" / "examples.png"
            if overwrite or not drawn.exists():
                attack_examples(done[-1].path / "examples" / "examples.npz", drawn)
            progress.say(f"picture: {drawn}")
    if json:
        print_json(
            [
                {"folder": str(f.path), **f.config, **f.read_json("metrics.json", made_by="attack")}
                for f in done
            ]
        )
        return
    from hashrobust.reports.formats import to_rich
    from hashrobust.reports.frame import results_frame
    from hashrobust.reports.tables import attack_table

    frame = results_frame(folder.path)
    stdout.print(
        to_rich(attack_table(frame[frame["folder"].isin([f"{folder.name}/attacks/{f.name}" for f in done])]))
    )


def _fitting(name: str, given: dict[str, Any], progress: ConsoleProgress) -> dict[str, Any]:
    """The options of the loop that were given and that this attack has; the others are named."""
    from hashrobust.attacks import attacks

    wanted = {option: value for option, value in given.items() if value is not None}
    known = attacks.parameters(name)
    for option in set(wanted) - set(known):
        progress.say(f"{name} has no {option}: passed over")
    return {option: value for option, value in wanted.items() if option in known}
