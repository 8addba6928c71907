"""`hashrobust attack`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
    parse_params,
    parse_step_size,
    split_all,
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
from hashrobust.errors import InputError

if TYPE_CHECKING:
    from hashrobust.experiments.config import AttackConfig
    from hashrobust.experiments.store import Folder

PICTURE = "examples/examples.png"


def command(
    run: OptionalRun = None,
    attack: Annotated[
        list[str],
        typer.Option(
            help="See `hashrobust list attacks`; repeat for several, or a,b.",
            show_default="center; classifiers: pgd",
        ),
    ] = [],  # noqa: B006
    epsilon: Annotated[
        list[str],
        typer.Option(
            help="Radius of the ball, such as 8/255; repeat for several, or 2/255,8/255.",
            show_default="the preset's, else 8/255",
        ),
    ] = [],  # noqa: B006
    gradient: Annotated[
        list[str],
        typer.Option(
            help="Followed by the attacker: exact; rule, the model's own feedback; rule:NAME, another rule's. "
            "Repeat for several, or exact,rule."
        ),
    ] = ["exact"],  # noqa: B006
    preset: Annotated[
        str | None,
        typer.Option(
            help="Published settings, such as original, saat or madry: see `hashrobust list attacks NAME`."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Gradient steps.", show_default="the attack's")] = None,
    step_size: Annotated[str | None, typer.Option(help="Such as 1/255.", show_default="the attack's")] = None,
    restarts: Annotated[int | None, typer.Option(help="Random starts.", show_default="the attack's")] = None,
    param: Annotated[
        list[str],
        typer.Option(
            *("--param", "-p"),
            metavar="NAME=VALUE",
            help="Another parameter of the attack: see `hashrobust list attacks NAME`; repeat for several.",
        ),
    ] = [],  # noqa: B006
    surrogate: Annotated[
        str | None,
        typer.Option(help="Transfer: a run whose gradients are followed in place of the attacked one's."),
    ] = None,
    warm_start: Annotated[
        bool,
        typer.Option("--warm-start", help="Begin each of several ascending epsilons where the last ended."),
    ] = False,
    queries: Annotated[
        int | None, typer.Option(help="Attack a fixed subset of so many queries.", show_default="all")
    ] = None,
    query_seed: Annotated[int, typer.Option(help="Chooses the subset.")] = 0,
    seed: Annotated[int, typer.Option(help="Of random starts, targets and draws.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images per batch.")] = 100,
    threads: Threads = None,
    model: Model = None,
    weights: Weights = None,
    dataset: Dataset = None,
    task: ModelTask = None,
    image_size: ModelImageSize = None,
    picture: Annotated[
        bool, typer.Option("--picture/--no-picture", help="Draw examples into each attack's folder.")
    ] = True,
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
    """Attack a run's queries by its exact or a rule's gradient.

    Changes no pixel of a query, or of a classifier's test image, by more than epsilon; prints mAP or accuracy before
    and after.
    """
    from hashrobust.experiments.attack_runs import Where, attack_cost, attack_run
    from hashrobust.experiments.config import AttackConfig

    progress = ConsoleProgress(quiet=quiet)
    own = {
        "steps": steps,
        "step_size": None if step_size is None else parse_step_size(step_size),
        "restarts": restarts,
    }
    given = {option: value for option, value in own.items() if value is not None}
    own_params = parse_params(param)
    for name in given.keys() & own_params.keys():
        raise InputError(f"{name} stands in --param and in --{name.replace('_', '-')}: give it once")
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
            surrogate=surrogate,
            start_epsilons=smaller,
        )
        for name in split_list(attack, "--attack") or [default_attack(run, model, task, results)]
        for params in [_fitting(name, given, progress) | own_params]
        for radius, smaller in _epsilons(epsilon, name, preset, warm_start)
        for through in split_list(gradient, "--gradient")
    ]
    configs = _distinct(asked, progress)
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
        costs = [attack_cost(folder, config, data_dir=data_dir, device=device) for config in configs]
        if json:
            pairs = zip(configs, costs, strict=True)
            print_json([{**config.to_dict(), "cost": cost} for config, cost in pairs])
        else:
            print("\n".join(costs))
        return
    where, done = Where(data_dir, device, progress), []
    for config in configs:
        done.append(attack_run(folder, config, where=where, overwrite=overwrite))
        if picture:
            _draw(folder, done[-1], overwrite)
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


def _epsilons(
    texts: list[str], name: str, preset: str | None, warm_start: bool
) -> list[tuple[float, tuple[float, ...]]]:
    """Each epsilon with those through which it is warm-started; without any the attack's own."""
    from hashrobust.experiments.config import parse_epsilon

    listed = split_all(texts, "--epsilon")
    if warm_start and len(listed) > len(set(listed)):
        raise InputError(
            f"epsilons {','.join(listed)} hold one twice: a warm start takes each once, ascending"
        )
    found = [parse_epsilon(text) for text in dict.fromkeys(listed)] or [_own_epsilon(name, preset)]
    return [(epsilon, tuple(found[:place]) if warm_start else ()) for place, epsilon in enumerate(found)]


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
    """The attacks to run, all checked; one that follows no gradient runs once, as `none`."""
    from hashrobust.experiments.attack_runs import as_stored, build, check_gradient_name

    configs: list[AttackConfig] = []
    without: dict[str, None] = {}
    for config in asked:
        check_gradient_name(config.gradient)
        configs.append(as_stored(config, build(config)))
        if configs[-1].gradient != config.gradient and config.gradient != "exact":
            without[config.attack] = None
    for name in without:
        progress.say(f"{name} follows no gradient: it runs once, its gradient is none")
    return [config for place, config in enumerate(configs) if config not in configs[:place]]


def _draw(run: Folder, attack: Folder, overwrite: bool) -> None:
    from hashrobust.reports.write import draw_examples

    drawn = attack.path / PICTURE
    if overwrite or not attack.has(PICTURE):
        with run.lock(wait=True):
            draw_examples(attack, drawn)


def _print_table(run: Folder, done: list[Folder]) -> None:
    from hashrobust.reports.formats import to_rich
    from hashrobust.reports.frame import results_frame
    from hashrobust.reports.tables import attack_table

    frame = results_frame(run.path)
    shown = frame["folder"].isin([f"{run.name}/attacks/{attack.name}" for attack in done])
    stdout.print(to_rich(attack_table(frame[shown])))
