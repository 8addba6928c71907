"""One attack on a run: crafted batch by batch, scored by the run's own model, resumable after each batch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hashrobust.attacks import Attack, GradientAttack, SearchAttack, build_attack
from hashrobust.datasets import LabelledDataset
from hashrobust.errors import InputError
from hashrobust.experiments.attack_scores import score_attack, write_examples
from hashrobust.experiments.bench import Bench
from hashrobust.experiments.config import AttackConfig
from hashrobust.experiments.crafting import PARTS, craft, discard_parts
from hashrobust.experiments.environment import record_environment, threads
from hashrobust.experiments.gradient_path import named_rule
from hashrobust.experiments.retrieval_runs import CODES
from hashrobust.experiments.store import Folder, find_run
from hashrobust.experiments.subject import Subject
from hashrobust.progress import Progress, Silent
from hashrobust.rules import rules

METRICS = "metrics.json"
"""Of an attack: written last, as it says that the attack is done."""


def attack_run(
    run: Folder,
    config: AttackConfig,
    *,
    subject: Subject | None = None,
    surrogate: Subject | None = None,
    where: Where | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    wait: bool = False,
    progress: Progress | None = None,
) -> Folder:
    """Attack a run's queries, or of a classifier test images; the attack's folder `attacks/<name>-<hash8>`.

    `subject` is the run if it is open already, `surrogate` likewise the run that `config.surrogate` names; `where`
    opens them, and keeps them open for further attacks. With `wait`, another process that works on the run is
    waited for.

    Raises:
        InputError: an unknown name or impossible value, before any folder is made.
        StoreError: the run is unfinished, damaged, in use, or its data has changed.
    """
    check_gradient_name(config.gradient)
    attack = build(config)
    config = as_stored(config, attack)
    where = where or Where(data_dir, device, progress or Silent())
    config, surrogate = where.with_surrogate(run, config, surrogate)
    path = run.path / "attacks" / config.folder_name
    folder = Folder(path)
    if not overwrite and is_done(folder):
        where.progress.say(f"{run.name}/{path.name} is done already")
        return Folder.open(path, config.to_dict())
    with run.lock(wait=wait), threads(config.threads):
        # Made while this process waited, or by one killed at its very end.
        if not overwrite and folder.has(METRICS):
            discard_parts(folder)
            return Folder.open(path, config.to_dict())
        bench = Bench.prepare(subject or where.open(run), config, attack, surrogate)
        folder = Folder.create(path, config.to_dict(), overwrite=overwrite)
        _fill(folder, bench, where.progress)
    return folder


def is_done(folder: Folder) -> bool:
    """Whether an attack folder is finished: its metrics are there, and the batches that they were made of gone."""
    return folder.has(METRICS) and not (folder.path / PARTS).exists()


def _fill(folder: Folder, bench: Bench, progress: Progress) -> None:
    """Craft and score, and store what an attack folder holds."""
    record_environment(folder, device=bench.device, fingerprint=bench.data.fingerprint)
    if not (folder.path / PARTS).exists():
        progress.say(bench.cost())
    started = time.perf_counter()
    crafted = craft(bench, folder, progress)
    facts = bench.gradient_facts()
    _tell(facts, progress)
    metrics, queries = score_attack(crafted, bench.subject, bench.chosen)
    write_examples(folder, crafted, bench.subject, bench.chosen, bench.examples())
    folder.write_table("queries.parquet", queries)
    folder.add_timing(attack_seconds=time.perf_counter() - started)
    folder.write_json(METRICS, metrics | facts | describe(bench.attack))
    discard_parts(folder)


def _tell(facts: Mapping[str, Any], progress: Progress) -> None:
    """Say of gradients that they could not be checked, or failed."""
    if facts.get("gradient_check_skipped"):
        progress.say(
            f"gradients are not checked against finite differences: {facts['gradient_check_skipped']}"
        )
    elif not facts.get("gradient_check_passed", True):
        progress.say(
            f"warning: exact gradients fail the finite-difference check (cosine {facts['gradient_check_cosine']:.3f}, "
            f"{100 * facts['gradient_check_kink_share']:.0f}% kinks): see Gradients in docs/conventions.md"
        )


def attack_cost(
    run: Folder, config: AttackConfig, *, data_dir: Path | None = None, device: str = "auto"
) -> str:
    """One sentence on what an attack would cost, from one measured gradient step.

    Raises:
        InputError: see `attack_run`.
    """
    with threads(config.threads):
        attack = build(config)
        where = Where(data_dir, device, Silent())
        subject = where.open_beside(run)
        config, surrogate = where.with_surrogate(run, config, None)
        return Bench.prepare(subject, as_stored(config, attack), attack, surrogate).cost()


@dataclass(frozen=True)
class Where:
    """How runs are opened, each once."""

    data_dir: Path | None
    device: str
    progress: Progress
    opened: dict[Path, Subject] = field(default_factory=dict)

    def open(self, run: Folder, data: LabelledDataset | None = None) -> Subject:
        """The run with its model, data and codes."""
        if run.path not in self.opened:
            self.opened[run.path] = Subject.open(
                run, data=data, data_dir=self.data_dir, device=self.device, progress=self.progress
            )
        return self.opened[run.path]

    def open_beside(self, run: Folder, data: LabelledDataset | None = None) -> Subject:
        """`open` for a run that this process does not hold: held while its codes are made, if they are missing."""
        with nullcontext() if run.classifies or run.has(CODES) else run.lock(wait=True):
            return self.open(run, data)

    def with_surrogate(
        self, run: Folder, config: AttackConfig, surrogate: Subject | None
    ) -> tuple[AttackConfig, Subject | None]:
        """The configuration with the surrogate's full name and digest, and the surrogate opened.

        Raises:
            InputError: the surrogate is the attacked run itself.
            StoreError: no such run beside the attacked one.
        """
        if config.surrogate is None:
            return config, None
        if surrogate is None:
            found = find_run(config.surrogate, run.path.parent)
            if found.path.resolve() == run.path.resolve():
                raise InputError(
                    f"surrogate '{found.name}' is the attacked run itself: name another one, or leave it out"
                )
            surrogate = self.open_beside(found)
        return replace(config, surrogate=surrogate.name, surrogate_digest=surrogate.digest), surrogate


def as_stored(config: AttackConfig, attack: Attack) -> AttackConfig:
    """The configuration as it is stored: with the attack's version; one that follows no gradient says `none`."""
    gradient = config.gradient if attack.follows_gradient else "none"
    return replace(config, gradient=gradient, version=attack.version)


def check_gradient_name(gradient: str) -> None:
    """Refuse a gradient that is none of `exact`, `rule`, `rule:NAME`, `rule:NAME:PATTERNS` and `none`."""
    kind, colon, _ = gradient.partition(":")
    if gradient in ("exact", "rule", "none"):
        return
    if kind != "rule" or not colon:
        raise InputError(f"unknown gradient '{gradient}': use exact, rule, or rule:NAME such as rule:frsf")
    rules[named_rule(gradient)[0]]


def build(config: AttackConfig) -> Attack:
    """The attack of a configuration.

    Raises:
        InputError: an unknown name, preset or parameter, a value out of range, or a surrogate with a rule's gradient
            or with an attack that follows none.
    """
    # No number by a rule's gradient stands without the word, and a transfer's would.
    if config.surrogate is not None and config.gradient.startswith("rule"):
        raise InputError(
            f"a transfer follows the surrogate's exact gradient: leave out either gradient '{config.gradient}' or "
            "the surrogate"
        )
    attack = build_attack(
        config.attack,
        preset=config.preset,
        **{"epsilon": config.epsilon, "seed": config.seed, **config.params},
    )
    if config.surrogate is not None and not attack.follows_gradient:
        raise InputError(
            f"attack '{config.attack}' follows no gradient, and so none of a surrogate either: leave the surrogate out"
        )
    return attack


def describe(attack: Attack) -> dict[str, Any]:
    """The attack's settings as they ended up after preset and defaults."""
    settings: dict[str, Any] = {"goal": attack.goal, "bounded": attack.bounded}
    if isinstance(attack, GradientAttack):
        settings |= {
            "steps": attack.steps,
            "step_size": attack.step_size_at(0),
            "step_schedule": "linear" if attack.step_size is None else "constant",
            "restarts": attack.restarts,
        }
    if isinstance(attack, SearchAttack):
        settings |= {"budget": attack.budget, "oracle": attack.oracle}
    return settings
