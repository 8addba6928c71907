"""From the matrices of a study to its cells: what is run once, and what has to be there before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any, ClassVar

from hashrobust.attacks import attacks
from hashrobust.experiments.attack_runs import build, with_gradient
from hashrobust.experiments.audit.plan import AuditConfig
from hashrobust.experiments.config import (
    AttackConfig,
    FinetuneConfig,
    PretrainConfig,
    parse_epsilon,
    preset_values,
)
from hashrobust.experiments.study.matrix import Choice, Matrix
from hashrobust.experiments.study.tasks import TASKS
from hashrobust.objectives import objectives

RuleConfig = FinetuneConfig
"""Of a training by rule."""

PRETRAIN, TRAIN, ATTACK, AUDIT = STAGES = ("pretrain", "train", "attack", "audit")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One piece of work, in `units` of what people count.

    `needs` are the keys of the cells with whose runs it works: of attacks the attacked run, of an audit the
    audited one and its control. `after` are cells that use the same runs and go first, whether or not they
    succeed. `label` is what it is called where people read.
    """

    stage: ClassVar[str]
    key: str
    task: str
    label: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def units(self) -> int:
        """How many trainings, attacks or audits it is."""
        return 1


@dataclass(frozen=True, kw_only=True)
class PretrainCell(Cell):
    """A pre-training."""

    stage = PRETRAIN
    config: PretrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainCell(Cell):
    """A training by rule, with the evaluation of what it made."""

    stage = TRAIN
    config: RuleConfig


@dataclass(frozen=True, kw_only=True)
class AttackCell(Cell):
    """All attacks on one run, which is opened once."""

    stage = ATTACK
    attacks: tuple[AttackConfig, ...]

    @property
    def units(self) -> int:
        """The attacks."""
        return len(self.attacks)


@dataclass(frozen=True, kw_only=True)
class AuditCell(Cell):
    """An audit of one run against its twin by backpropagation."""

    stage = AUDIT
    config: AuditConfig


TrainedCell = PretrainCell | TrainCell


@dataclass(frozen=True)
class Point:
    """One combination of a matrix's axes, as far as it says what is trained."""

    task: str
    dataset: str
    backbone: str
    weights: str
    objective: Choice
    bits: int
    rule: str
    scale: str
    max_steps: int | None
    seed: int


def points(matrix: Matrix) -> Iterator[Point]:
    """What a matrix trains, seed by seed; combinations that say the same come more than once."""
    where = product(matrix.seeds, matrix.tasks, matrix.datasets, matrix.backbones, matrix.weights)
    for seed, task, dataset, backbone, weights in where:
        heads = product(matrix.objectives, matrix.bits) if TASKS[task].coded else [(Choice(""), 0)]
        for objective, bits in heads:
            for rule, scale, steps in product(matrix.rules, matrix.scales, matrix.max_steps):
                yield Point(
                    task=task,
                    dataset=dataset,
                    backbone=backbone,
                    weights=weights,
                    objective=objective,
                    bits=bits,
                    rule=rule,
                    # Backpropagation has no feedback to scale.
                    scale="xavier" if rule == "bp" else scale,
                    max_steps=steps,
                    seed=seed,
                )


def make_plan(matrices: tuple[Matrix, ...]) -> list[Cell]:
    """The cells of a study in the order in which they run, each once, after all that it needs."""
    plan = _Plan()
    for matrix in matrices:
        for point in points(matrix):
            plan.add(matrix, point)
        if matrix.audits is not None:
            plan.add_audits(matrix)
    return list(plan.ordered())


def pretrain_config(matrix: Matrix, point: Point) -> PretrainConfig:
    """The pre-training behind a point."""
    return PretrainConfig(
        **trained_on(matrix, point), **plain_settings(matrix.pretrain), **TASKS[point.task].pretraining
    )


def train_config(matrix: Matrix, point: Point) -> RuleConfig:
    """The training at a point; it names the run of its pre-training, whose digest is known only later."""
    task = TASKS[point.task]
    weights = point.weights
    if weights == "pretrained":
        weights = f"run:{pretrain_config(matrix, point).run_name}"
    settings: dict[str, Any] = {
        **training_settings(point.task, matrix.finetune.get(point.task, {}), point.objective),
        **trained_on(matrix, point),
        "weights": weights,
        "rule": point.rule,
        "feedback_scale": point.scale,
        "max_steps": point.max_steps,
    }
    if task.coded:
        settings |= {"objective": point.objective.name, "bits": point.bits}
    return task.config(**settings)


def trained_on(matrix: Matrix, point: Point) -> dict[str, Any]:
    """What pre-training and training have in common."""
    return {
        "dataset": point.dataset,
        "image_size": matrix.image_size,
        "backbone": point.backbone,
        "threads": matrix.threads,
        "seed": point.seed,
    }


def plain_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training as a configuration has them: TOML has no None, a patience of 0 stands for it."""
    return {key: None if (key, value) == ("patience", 0) else value for key, value in given.items()}


def training_settings(task: str, given: Mapping[str, Any], objective: Choice) -> dict[str, Any]:
    """The settings of a task's training: those of its preset, with what was given over them."""
    config = TASKS[task].config
    known = {known.name for known in fields(config)}
    settings = dict(given)
    preset = preset_values(settings.pop("preset"))[0] if "preset" in settings else {}
    merged = {key: value for key, value in preset.items() if key in known} | plain_settings(settings)
    if TASKS[task].coded:
        takes = objectives.parameters(objective.name)
        fitting = {key: value for key, value in preset.get("objective_params", {}).items() if key in takes}
        merged["objective_params"] = fitting | dict(objective.params)
    return merged


def attack_configs(matrix: Matrix, task: str, rule: str) -> Iterator[AttackConfig]:
    """The attacks of a matrix on a run of a task that was trained by a rule; some come more than once."""
    for choice, epsilon, gradient in product(matrix.attacks, matrix.epsilons, matrix.gradients):
        if task in tasks_of(choice.name):
            config = attack_config(matrix, choice, epsilon, own_gradient(gradient, rule))
            yield with_gradient(config, build(config))


def tasks_of(attack: str) -> frozenset[str]:
    """The tasks that an attack serves."""
    return frozenset(getattr(attacks[attack], "tasks", {"hashing"}))


def attack_config(matrix: Matrix, choice: Choice, epsilon: float, gradient: str) -> AttackConfig:
    """One attack of a matrix."""
    return AttackConfig(
        attack=choice.name,
        preset=choice.preset,
        params=dict(choice.params),
        epsilon=epsilon,
        gradient=gradient,
        queries=matrix.queries,
        threads=matrix.threads,
        **matrix.attack,
    )


def own_gradient(gradient: str, rule: str) -> str:
    """The gradient under its shortest name: by backpropagation is exact, by the run's own rule is `rule`."""
    by = rule if gradient == "rule" else gradient.removeprefix("rule:")
    if gradient == "exact" or by == "bp":
        return "exact"
    return "rule" if by == rule else gradient


def audit_config(matrix: Matrix) -> AuditConfig:
    """The audits of a matrix."""
    given = dict(matrix.audits or {})
    if "epsilon" in given:
        given["epsilon"] = parse_epsilon(str(given["epsilon"]))
    if "also" in given:
        given["also"] = tuple(given["also"])
    return AuditConfig(**{"queries": matrix.queries, "threads": matrix.threads, **matrix.attack, **given})


@dataclass
class _Plan:
    """Cells by key, as they are found."""

    trained: dict[str, TrainedCell] = field(default_factory=dict)
    attacked: dict[str, AttackCell] = field(default_factory=dict)
    audited: dict[str, AuditCell] = field(default_factory=dict)

    def add(self, matrix: Matrix, point: Point) -> None:
        """The training at a point, what it starts from, and the attacks on it."""
        pretraining = self.pretraining(matrix, point)
        config = train_config(matrix, point)
        cell = TrainCell(
            key=f"{TRAIN}/{config.run_name}",
            task=point.task,
            label=_label(config, point),
            config=config,
            needs=(pretraining.key,) if pretraining else (),
        )
        self.attack(self.trained.setdefault(cell.key, cell), attack_configs(matrix, point.task, point.rule))
        if pretraining and TASKS[point.task].attacks_pretrained:
            self.attack(pretraining, attack_configs(matrix, point.task, "bp"))

    def pretraining(self, matrix: Matrix, point: Point) -> TrainedCell | None:
        if point.weights != "pretrained":
            return None
        config = pretrain_config(matrix, point)
        cell = PretrainCell(
            key=f"{PRETRAIN}/{config.run_name}", task=point.task, label=_stem(config.run_name), config=config
        )
        return self.trained.setdefault(cell.key, cell)

    def attack(self, on: TrainedCell, configs: Iterator[AttackConfig]) -> None:
        """Add what is missing to the attacks on a run."""
        before = self.attacked[on.key].attacks if on.key in self.attacked else ()
        merged = {config.folder_name: config for config in (*before, *configs)}
        if merged:
            self.attacked[on.key] = AttackCell(
                key=_attacks_on(on.key),
                task=on.task,
                label=f"attacks on {on.label}",
                needs=(on.key,),
                attacks=tuple(merged.values()),
            )

    def add_audits(self, matrix: Matrix) -> None:
        """An audit of each hashing run that backpropagation did not train, against its twin that it did."""
        config = audit_config(matrix)
        before: dict[str, str] = {}
        for point in points(matrix):
            if not TASKS[point.task].coded or point.rule == "bp":
                continue
            twin = replace(point, rule="bp", scale="xavier")
            run, control = (f"{TRAIN}/{train_config(matrix, at).run_name}" for at in (point, twin))
            key = f"{AUDIT}/{config.folder_name}/{run.partition('/')[2]}"
            if key not in self.audited:
                after = [_attacks_on(of) for of in (run, control) if of in self.attacked]
                if control in before:  # one after the other: audits of one control share its attacks
                    after.append(before[control])
                self.audited[key] = AuditCell(
                    key=key,
                    task=point.task,
                    label=f"audit of {self.trained[run].label}",
                    config=config,
                    needs=(run, control),
                    after=tuple(after),
                )
                before[control] = key

    def ordered(self) -> Iterator[Cell]:
        """Attacks right after what they attack, audits at the end of all."""
        for cell in self.trained.values():
            yield cell
            if cell.key in self.attacked:
                yield self.attacked[cell.key]
        yield from self.audited.values()


def _attacks_on(key: str) -> str:
    return f"{ATTACK}/{key.partition('/')[2]}"


def _stem(run_name: str) -> str:
    """A run's name without the digest at its end."""
    return run_name.rpartition("-")[0]


def _label(config: RuleConfig, point: Point) -> str:
    words = [_stem(config.run_name)]
    if point.weights != "pretrained":
        words.append(f"weights {point.weights}")
    if point.scale != "xavier":
        words.append(point.scale)
    if point.max_steps is not None:
        words.append(f"{point.max_steps} steps")
    return ", ".join(words)
