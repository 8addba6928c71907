"""From the axes of a matrix to configurations: what is trained, and how it is attacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from hashrobust.attacks import build_attack
from hashrobust.experiments.attack_runs import as_stored, build
from hashrobust.experiments.audit.plan import DEFAULT_ATTACKS, AuditConfig, with_version
from hashrobust.experiments.config import (
    AttackConfig,
    PretrainConfig,
    parse_epsilon,
    preset_values,
)
from hashrobust.experiments.study.keys import Choice
from hashrobust.experiments.study.matrix import Matrix
from hashrobust.experiments.study.tasks import TASKS, TrainedConfig
from hashrobust.experiments.training_runs import objective_params_of_preset
from hashrobust.options import ALL_LAYERS, BACKPROPAGATION, own_feedback, parse_stages
from hashrobust.rules import takes_scale


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
    layers: str
    max_steps: int | None
    seed: int

    @property
    def feedback(self) -> str:
        """That of the run which is trained here (see `own_feedback`)."""
        return own_feedback(self.rule, self.layers)


def points(matrix: Matrix) -> Iterator[Point]:
    """What a matrix trains, seed by seed; combinations that say the same come more than once."""
    where = product(matrix.seeds, matrix.tasks, matrix.datasets, matrix.backbones, matrix.weights)
    for seed, task, dataset, backbone, weights in where:
        heads = product(matrix.objectives, matrix.bits) if TASKS[task].coded else [(Choice(""), 0)]
        for objective, bits in heads:
            axes = product(matrix.rules, matrix.scales, matrix.layers, matrix.max_steps)
            for rule, scale, layers, steps in axes:
                yield Point(
                    task=task,
                    dataset=dataset,
                    backbone=backbone,
                    weights=weights,
                    objective=objective,
                    bits=bits,
                    rule=rule,
                    # Where there is no feedback, or none in the place of weights, there is nothing to choose.
                    scale=scale if _takes_scale(rule) else "xavier",
                    layers=ALL_LAYERS if rule == BACKPROPAGATION else layers,
                    max_steps=steps,
                    seed=seed,
                )


def _takes_scale(rule: str) -> bool:
    """Whether the feedback of each stage that has any can be scaled."""
    own = [stage.rule for stage in parse_stages(rule) if stage.rule != BACKPROPAGATION]
    return bool(own) and all(takes_scale(name) for name in own)


def pretrain_config(matrix: Matrix, point: Point) -> PretrainConfig:
    """The pre-training behind a point."""
    return PretrainConfig(
        **_trained_on(matrix, point), **plain_settings(matrix.pretrain), **TASKS[point.task].pretraining
    )


def train_config(matrix: Matrix, point: Point) -> TrainedConfig:
    """The training at a point; it names the run of its pre-training, whose digest is known only later."""
    task = TASKS[point.task]
    weights = point.weights
    if weights == "pretrained":
        weights = f"run:{pretrain_config(matrix, point).run_name}"
    settings: dict[str, Any] = {
        **_training_settings(point.task, matrix.finetune.get(point.task, {}), point.objective),
        **_trained_on(matrix, point),
        "weights": weights,
        "rule": point.rule,
        "feedback_scale": point.scale,
        "layers": point.layers,
        "max_steps": point.max_steps,
    }
    if task.coded:
        settings |= {"objective": point.objective.name, "bits": point.bits}
    return task.config(**settings)


def _trained_on(matrix: Matrix, point: Point) -> dict[str, Any]:
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


def _training_settings(task: str, given: Mapping[str, Any], objective: Choice) -> dict[str, Any]:
    """The settings of a task's training: those of its preset, with what was given over them."""
    config = TASKS[task].config
    known = {known.name for known in fields(config)}
    settings = dict(given)
    preset = settings.pop("preset", None)
    values = preset_values(preset)[0] if preset else {}
    merged = {key: value for key, value in values.items() if key in known} | plain_settings(settings)
    if TASKS[task].coded:
        fitting = objective_params_of_preset(preset, objective.name) if preset else {}
        merged["objective_params"] = fitting | dict(objective.params)
    return merged


def attack_configs(matrix: Matrix, task: str, feedback: str) -> Iterator[AttackConfig]:
    """The attacks of a matrix on a run of a task that has this feedback; some come more than once."""
    for choice in matrix.attacks:
        if task in tasks_of(choice):
            axes = choice.epsilons or matrix.epsilons, choice.gradients or matrix.gradients
            for epsilon, gradient in product(*axes):
                config = _attack_config(matrix, choice, epsilon, own_gradient(gradient, feedback))
                yield as_stored(config, build(config))


def tasks_of(choice: Choice) -> frozenset[str]:
    """The tasks that an attack serves with its parameters."""
    attack = build_attack(choice.name, preset=choice.preset, **choice.params)
    return attack.tasks & {"hashing"} if attack.goal == "targeted" else attack.tasks


def _attack_config(matrix: Matrix, choice: Choice, epsilon: float, gradient: str) -> AttackConfig:
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


def own_gradient(gradient: str, feedback: str) -> str:
    """The gradient under its shortest name: by backpropagation is exact, by the run's own feedback is `rule`."""
    by = feedback if gradient == "rule" else gradient.removeprefix("rule:")
    if gradient == "exact" or by == BACKPROPAGATION:
        return "exact"
    return "rule" if by == feedback else gradient


def audit_config(matrix: Matrix, task: str) -> AuditConfig:
    """The audits of a matrix on the runs of a task."""
    given = {"attack": DEFAULT_ATTACKS[task], **(matrix.audits or {})}
    if "epsilon" in given:
        given["epsilon"] = parse_epsilon(str(given["epsilon"]))
    if "also" in given:
        given["also"] = tuple(given["also"])
    config = AuditConfig(**{"queries": matrix.queries, "threads": matrix.threads, **matrix.attack, **given})
    return with_version(config, task)
