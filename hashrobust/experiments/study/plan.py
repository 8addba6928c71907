"""The cells of a study: what is run once, and what has to be there before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar

from hashrobust.experiments.audit.plan import AuditConfig
from hashrobust.experiments.config import AttackConfig, PretrainConfig
from hashrobust.experiments.study.matrix import Matrix
from hashrobust.experiments.study.points import (
    Point,
    attack_configs,
    audit_config,
    points,
    pretrain_config,
    train_config,
)
from hashrobust.experiments.study.tasks import TASKS, TrainedConfig
from hashrobust.options import ALL_LAYERS

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
    config: TrainedConfig


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


def make_plan(matrices: tuple[Matrix, ...]) -> list[Cell]:
    """The cells of a study in the order in which they run, each once, after all that it needs."""
    plan = _Plan()
    for matrix in matrices:
        asked: dict[tuple[str, str], dict[str, AttackConfig]] = {}
        for task, feedback in product(matrix.tasks, {"bp", *(point.feedback for point in points(matrix))}):
            configs = attack_configs(matrix, task, feedback)
            asked[task, feedback] = {config.folder_name: config for config in configs}
        for point in points(matrix):
            plan.add(matrix, point, asked[point.task, point.feedback], asked[point.task, "bp"])
        if matrix.audits is not None:
            plan.add_audits(matrix)
    return list(plan.ordered())


@dataclass
class _Plan:
    """Cells by key, as they are found."""

    trained: dict[str, TrainedCell] = field(default_factory=dict)
    attacked: dict[str, dict[str, AttackConfig]] = field(default_factory=dict)
    audited: dict[str, AuditCell] = field(default_factory=dict)

    def add(
        self,
        matrix: Matrix,
        point: Point,
        attacks: Mapping[str, AttackConfig],
        on_pretrained: Mapping[str, AttackConfig],
    ) -> None:
        """The training at a point with the attacks on it, and what it starts from, where that can be attacked too."""
        pretraining = self.pretraining(matrix, point)
        config = train_config(matrix, point)
        cell = TrainCell(
            key=f"{TRAIN}/{config.run_name}",
            task=point.task,
            label=_label(config, point),
            config=config,
            needs=(pretraining.key,) if pretraining else (),
        )
        self.trained.setdefault(cell.key, cell)
        self.attacked.setdefault(cell.key, {}).update(attacks)
        if pretraining and TASKS[point.task].attacks_pretrained:
            self.attacked.setdefault(pretraining.key, {}).update(on_pretrained)

    def pretraining(self, matrix: Matrix, point: Point) -> TrainedCell | None:
        if point.weights != "pretrained":
            return None
        config = pretrain_config(matrix, point)
        cell = PretrainCell(
            key=f"{PRETRAIN}/{config.run_name}", task=point.task, label=_stem(config.run_name), config=config
        )
        return self.trained.setdefault(cell.key, cell)

    def add_audits(self, matrix: Matrix) -> None:
        """An audit of each run that backpropagation did not train, against its twin that it did."""
        before: dict[str, str] = {}
        for point in points(matrix):
            if point.rule == "bp":
                continue
            config = audit_config(matrix, point.task)
            twin = replace(point, rule="bp", scale="xavier", layers=ALL_LAYERS)
            run, control = (f"{TRAIN}/{train_config(matrix, at).run_name}" for at in (point, twin))
            key = f"{AUDIT}/{config.folder_name}/{run.partition('/')[2]}"
            if key not in self.audited:
                after = [_attacks_on(of) for of in (run, control) if self.attacked[of]]
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
            if attacks := self.attacked.get(cell.key):
                yield AttackCell(
                    key=_attacks_on(cell.key),
                    task=cell.task,
                    label=f"attacks on {cell.label}",
                    needs=(cell.key,),
                    attacks=tuple(attacks.values()),
                )
        yield from self.audited.values()


def _attacks_on(key: str) -> str:
    return f"{ATTACK}/{key.partition('/')[2]}"


def _stem(run_name: str) -> str:
    """A run's name without the digest at its end."""
    return run_name.rpartition("-")[0]


def _label(config: TrainedConfig, point: Point) -> str:
    words = [_stem(config.run_name)]
    if point.weights != "pretrained":
        words.append(f"weights {point.weights}")
    if point.scale != "xavier":
        words.append(point.scale)
    if point.max_steps is not None:
        words.append(f"{point.max_steps} steps")
    return ", ".join(words)
