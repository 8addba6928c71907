"""`hashrobust attack`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Threads,
    parse_params,
    parse_step_size,
    split_list,
)

if TYPE_CHECKING:
    from hashrobust.experiments.config import AttackConfig
    from hashrobust.experiments.store import Folder

PICTURE = "examples/examples.png"


def command(
    run: Run,
    attack: Annotated[
        list[str], typer.Option(help="See `hashrobust list attacks`; several: repeat or a,b.")
    ] = ["center"],  # noqa: B006
    epsilon: Annotated[
        list[str],
        typer.Option(
            help="Such as 8/255; several: repeat or 2/255,8/255.", show_default="the preset's, else 8/255"
        ),
    ] = [],  # noqa: B006
    gradient: Annotated[
        list[str],
        typer.Option(
            help="exact; rule: the model's own feedback; rule:NAME: through another rule's. Several: repeat."
        ),
    ] = ["exact"],  # noqa: B006
    preset: Annotated[str | None, typer.Option(help="Published settings, such as original or saat.")] = None,
    steps: Annotated[int | None, typer.Option(help="Gradient steps.", show_default="the attack's")] = None,
    step_size: Annotated[str | None, typer.Option(help="Such as 1/255.", show_default="the attack's")] = None,
    restarts: Annotated[int | None, typer.Option(help="Random starts.", show_default="the attack's")] = None,
    queries: Annotated[
        int | None, typer.Option(help="A fixed subset of so many queries.", show_default="all")
    ] = None,
    query_seed: Annotated[int, typer.Option(help="Which subset.")] = 0,
    seed: Annotated[int, typer.Option(help="Of random starts, targets and draws.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images a batch.")] = 100,
    threads: Threads = None,
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
    from hashrobust.experiments.attack_runs import attack_cost, attack_run
    from hashrobust.experiments.config import AttackConfig, parse_epsilon
    from hashrobust.experiments.store import find_run

    progress = ConsoleProgress(quiet=quiet)
    own = {
        "steps": steps,
        "step_size": None if step_size is None else parse_step_size(step_size),
        "restarts": restarts,
    }
    given = {option: value for option, value in own.items() if value is not None}
    asked = [
        AttackConfig(
            attack=name,
            epsilon=radius,
            gradient=through,
            preset=preset,
            params=params,
            seed=seed,
            queries=queries,
            query_seed=query_seed,
            batch_size=batch_size,
            threads=threads,
        )
        for name in split_list(attack)
        for params in [_fitting(name, given, progress) | parse_params(param)]
        for radius in [parse_epsilon(text) for text in split_list(epsilon)] or [_own_epsilon(name, preset)]
        for through in split_list(gradient)
    ]
    configs = _distinct(asked, progress)
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
            _draw(done[-1], overwrite)
    if json:
        print_json(
            [
                {"folder": str(f.path), **f.config, **f.read_json("metrics.json", made_by="attack")}
                for f in done
            ]
        )
    else:
        _print_table(folder, done)
    if picture:
        progress.say(f"pictures: {folder.path}/attacks/*/{PICTURE}")
    progress.say(f"next: hashrobust report {folder.path.parent}")


def _own_epsilon(name: str, preset: str | None) -> float:
    """The epsilon that the preset publishes, or the attack's default."""
    from hashrobust.attacks import build_attack

    return build_attack(name, preset=preset).epsilon


def _fitting(name: str, given: dict[str, Any], progress: ConsoleProgress) -> dict[str, Any]:
    """The options of the loop that were given and that this attack has; the others are named."""
    from hashrobust.attacks import attacks

    known = attacks.parameters(name)
    for option in sorted(set(given) - set(known)):
        progress.say(f"{name} has no {option.replace('_', ' ')}: passed over")
    return {option: value for option, value in given.items() if option in known}


def _distinct(asked: list[AttackConfig], progress: ConsoleProgress) -> list[AttackConfig]:
    """The attacks to run, all checked; one that follows no gradient runs once, as `exact`."""
    from hashrobust.attacks import GradientAttack
    from hashrobust.experiments.attack_runs import build, check_gradient_name

    configs = []
    without = []
    for config in asked:
        check_gradient_name(config.gradient)
        if isinstance(build(config), GradientAttack) or config.gradient == "exact":
            configs.append(config)
        else:
            without.append(config.attack)
            configs.append(replace(config, gradient="exact"))
    for name in dict.fromkeys(without):
        progress.say(f"{name} follows no gradient: it runs once and counts as exact")
    return [config for place, config in enumerate(configs) if config not in configs[:place]]


def _draw(attack: Folder, overwrite: bool) -> None:
    from hashrobust.reports.write import draw_examples

    drawn = attack.path / PICTURE
    if overwrite or not drawn.exists():
        draw_examples(attack, drawn)


def _print_table(run: Folder, done: list[Folder]) -> None:
    from hashrobust.reports.formats import to_rich
    from hashrobust.reports.frame import results_frame
    from hashrobust.reports.tables import attack_table

    frame = results_frame(run.path)
    shown = frame["folder"].isin([f"{run.name}/attacks/{attack.name}" for attack in done])
    stdout.print(to_rich(attack_table(frame[shown])))
