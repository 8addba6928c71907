"""One attack on a run: crafted batch by batch, scored by the run's own model, resumable after each batch."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from hashrobust.attacks import Attack, GradientAttack, SearchAttack, build_attack
from hashrobust.errors import InputError
from hashrobust.experiments.attack_scores import score_attack, write_examples
from hashrobust.experiments.bench import PARTS, Bench
from hashrobust.experiments.config import AttackConfig
from hashrobust.experiments.environment import record_environment, threads
from hashrobust.experiments.store import Folder
from hashrobust.progress import Progress, Silent
from hashrobust.rules import rules


def attack_run(
    run: Folder,
    config: AttackConfig,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Folder:
    """Attack a run's queries; the attack's folder `attacks/<name>-<hash8>`.

    Raises:
        InputError: an unknown name or impossible value, before any folder is made.
        StoreError: the run is unfinished, damaged, in use, or its data has changed.
    """
    check_gradient_name(config.gradient)
    attack = build(config)
    progress = progress or Silent()
    path = run.path / "attacks" / config.folder_name
    if not overwrite and Folder(path).has("metrics.json"):
        progress.say(f"{run.name}/{path.name} is done already")
        return Folder.open(path)
    with run.lock(), threads(config.threads):
        bench = Bench.prepare(run, config, attack, data_dir=data_dir, device=device, progress=progress)
        if overwrite and path.exists():
            Folder(path).clear()
        folder = Folder.create(path, config.to_dict())
        record_environment(folder, device=bench.device, fingerprint=bench.data.fingerprint)
        if not (folder.path / PARTS).exists():
            progress.say(bench.cost())
        started = time.perf_counter()
        _fill(folder, bench, progress)
        folder.add_timing(attack_seconds=time.perf_counter() - started)
        shutil.rmtree(folder.path / PARTS, ignore_errors=True)
    return folder


def _fill(folder: Folder, bench: Bench, progress: Progress) -> None:
    """Craft, score, and store what an attack folder holds; the metrics last, as they say that it is done."""
    crafted = bench.craft(folder, progress)
    facts = bench.gradient_facts()
    if not facts["gradient_check_passed"]:
        progress.say(
            f"warning: exact gradients fail the finite-difference check (cosine {facts['gradient_check_cosine']:.3f}, "
            f"{100 * facts['gradient_check_kink_share']:.0f}% kinks): see Gradients in docs/conventions.md"
        )
    metrics, queries = score_attack(crafted, bench.codes, bench.chosen, bench.data)
    write_examples(folder, crafted, bench.codes, bench.chosen, bench.data, bench.examples())
    folder.write_table("queries.parquet", queries)
    folder.write_json("metrics.json", metrics | facts | describe(bench.attack))


def attack_cost(
    run: Folder, config: AttackConfig, *, data_dir: Path | None = None, device: str = "auto"
) -> str:
    """One sentence on what an attack would cost, from one measured gradient step.

    Raises:
        InputError: see `attack_run`.
    """
    with run.lock(), threads(config.threads):
        attack = build(config)
        return Bench.prepare(run, config, attack, data_dir=data_dir, device=device, progress=Silent()).cost()


def check_gradient_name(gradient: str) -> None:
    """Refuse a gradient that is none of `exact`, `rule` and `rule:NAME`."""
    kind, colon, name = gradient.partition(":")
    if gradient in ("exact", "rule"):
        return
    if kind != "rule" or not colon:
        raise InputError(f"unknown gradient '{gradient}': use exact, rule, or rule:NAME such as rule:frsf")
    rules[name]


def build(config: AttackConfig) -> Attack:
    """The attack of a configuration.

    Raises:
        InputError: an unknown name, preset or parameter, or a value out of range.
    """
    return build_attack(
        config.attack,
        preset=config.preset,
        **{"epsilon": config.epsilon, "seed": config.seed, **config.params},
    )


def describe(attack: Attack) -> dict[str, Any]:
    """The attack's settings as they ended up after preset and defaults."""
    settings: dict[str, Any] = {"goal": attack.goal}
    if isinstance(attack, GradientAttack):
        settings |= {
            "steps": attack.steps,
            "step_size": attack.resolved_step_size,
            "restarts": attack.restarts,
        }
    if isinstance(attack, SearchAttack):
        settings |= {"budget": attack.budget, "oracle": attack.oracle}
    return settings
