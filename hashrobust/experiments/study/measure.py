"""How long a study will take, from a few real steps of each network on this machine."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hashrobust.attacks import GradientAttack, SearchAttack
from hashrobust.datasets import LabelledDataset, RetrievalDataset
from hashrobust.experiments.attack_runs import build
from hashrobust.experiments.audit.plan import plan
from hashrobust.experiments.config import AttackConfig, FinetuneConfig, TrainingConfig
from hashrobust.experiments.conversion import staged_rule
from hashrobust.experiments.environment import choose_device, threads
from hashrobust.experiments.gradient_path import differentiated, gradient_path
from hashrobust.experiments.study.plan import ATTACK, AUDIT, AttackCell, AuditCell, TrainCell, TrainedCell
from hashrobust.experiments.study.planned import Planned
from hashrobust.experiments.study.sources import Source, missing_weights, sources
from hashrobust.experiments.study.tasks import TASKS
from hashrobust.progress import Advance, Left, Progress, Silent

_STEPS, _PASSES, _ENOUGH_SECONDS = 6, 5, 3.0
"""Training steps that are measured after the first one, and passes, at most; and the time after which fewer do."""
_BATCH = 100
_CHECK = 2 * 1280
"""Passes forward that the check against finite differences costs: 1280 images, in float64."""
_PER_ATTACK = 0.3
"""Seconds an attack takes besides: scores, examples, files."""


@dataclass(frozen=True)
class Pace:
    """Seconds on this machine for one network, trained with one defence: an image of a training step, of a pass
    forward, of a gradient; and for loading the data."""

    task: str
    dataset: str
    backbone: str
    defence: str
    training: float
    forward: float
    gradient: float
    loading: float
    batch_size: int

    @property
    def network(self) -> str:
        """The network in words, such as "lenet with center-at"."""
        return _words(self.backbone, self.defence)

    @property
    def training_step(self) -> float:
        """Seconds a training step."""
        return self.training * self.batch_size


@dataclass
class Estimate:
    """Seconds by stage and task of what is missing, with one process; what was measured, and what could not be:
    `incomplete` are the tasks whose time is not all of it."""

    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    paces: list[Pace] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    incomplete: set[str] = field(default_factory=set)

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


def estimate(planned: Planned, progress: Progress | None = None) -> Estimate:
    """The time that the missing cells take at most on this machine, one after the other.

    Early stopping, samples that an attack is done with, and attacks that audits share are not foreseen.
    """
    progress = progress or Silent()
    result = Estimate()
    result.unmeasured.extend(missing_weights(planned))
    for source in sources(planned):
        if source.data is None:
            result.incomplete.add(source.task)
            result.unmeasured.append(
                f"{source.missing} (the time of {len(source.cells)} trainings is not measured)"
            )
            continue
        paces: dict[tuple[str, str], Pace] = {}
        for cell in source.cells:
            kind = cell.config.backbone, _defence(cell.config)
            if kind not in paces:
                progress.say(f"measuring {_words(*kind)} on {source.dataset}, {source.task}")
                paces[kind] = _measure(planned, source, source.data, *kind)
            _add(result, planned, cell, paces[kind], source.data)
        result.paces.extend(paces.values())
    return result


def _defence(config: TrainingConfig) -> str:
    """What a training costs more than others of its network, as a name: the defence with its parameters."""
    params = getattr(config, "defence_params", {})
    words = " ".join(f"{name}={params[name]}" for name in sorted(params))
    return f"{getattr(config, 'defence', 'none')} {words}".rstrip()


def _words(backbone: str, defence: str) -> str:
    return backbone if defence == "none" else f"{backbone} with {defence}"


def _measure(planned: Planned, source: Source, data: LabelledDataset, backbone: str, defence: str) -> Pace:
    """A few training steps and one gradient of a fresh network, by a rule if the study has one.

    A pre-training takes the pace of the trainings that follow, without their defence.
    """
    task, device = TASKS[source.task], choose_device(planned.place.device)
    asked = [
        cell.config
        for cell in planned.cells
        if isinstance(cell, TrainCell)
        and (cell.task, cell.config.dataset) == (source.task, source.dataset)
        and (cell.config.image_size, cell.config.backbone) == (source.image_size, backbone)
    ]
    same = [config for config in asked if _defence(config) == defence]
    config = replace(max(same or asked, key=lambda config: config.rule != "bp"), max_steps=None)
    if not same and isinstance(config, FinetuneConfig):
        config = replace(config, defence="none", defence_params={})
    shape = {
        "channels": data.image_shape[0],
        "image_size": data.image_shape[-1],
        "mean": data.mean,
        "std": data.std,
    }
    with threads(config.threads):
        model = task.network(config, data, **shape)
        staged = staged_rule(config, model)
        staged.convert(model, staged.last)
        watch = _Stopwatch()
        with suppress(_EnoughError):
            task.fit(model.to(device), data, config, watch)
        split = data.asked
        images = split.load(range(min(_BATCH, len(split)))).to(device)
        with gradient_path(differentiated(model.eval(), "exact"), "exact") as through:
            forward, gradient = _passes(through, images)
    return Pace(
        task=source.task,
        dataset=source.dataset,
        backbone=backbone,
        defence=defence,
        training=watch.seconds_an_image,
        forward=forward / len(images),
        gradient=gradient / len(images),
        loading=source.seconds,
        batch_size=config.batch_size,
    )


def _passes(through: Callable[[Tensor], Tensor], images: Tensor) -> tuple[float, float]:
    """Seconds of a pass forward, and of a gradient: the median of a few, after a small one that warms up."""

    def forward(batch: Tensor) -> None:
        with torch.no_grad():
            through(batch)

    def gradient(batch: Tensor) -> None:
        batch = batch.clone().requires_grad_()
        torch.autograd.grad(through(batch).sum(), batch)

    gradient(images[:4])
    return _median_seconds(lambda: forward(images)), _median_seconds(lambda: gradient(images))


def _median_seconds(action: Callable[[], None]) -> float:
    seconds: list[float] = []
    while len(seconds) < _PASSES and sum(seconds) < _ENOUGH_SECONDS:
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


class _EnoughError(Exception):
    """Ends a training that was only begun to be timed."""


class _Stopwatch(Silent):
    """Progress that times training steps, the first one left out, and ends the training after a few."""

    def __init__(self) -> None:
        self.seconds, self.images, self.steps = 0.0, 0, -1

    @property
    def seconds_an_image(self) -> float:
        """The mean."""
        return self.seconds / max(self.images, 1)

    @contextmanager
    def track(
        self, description: str, total: int, unit: str, done: int = 0, left: Left | None = None
    ) -> Iterator[Advance]:
        """See `Progress`; `advance` comes after each step."""
        last = time.perf_counter()

        def advance(amount: int, note: str) -> None:
            nonlocal last
            now = time.perf_counter()
            self.steps += 1
            if self.steps > 0:
                self.seconds, self.images = self.seconds + now - last, self.images + amount
            if self.steps >= _STEPS or (self.steps >= 2 and self.seconds > _ENOUGH_SECONDS):
                raise _EnoughError
            last = now

        yield advance


def _add(result: Estimate, planned: Planned, cell: TrainedCell, pace: Pace, data: LabelledDataset) -> None:
    """Add what is missing of a training, and of all that is done with its run."""
    if planned.left(cell):
        result.seconds[cell.stage, cell.task] += _training_seconds(cell, pace, data)
    for other in planned.cells:
        if other.needs[:1] == (cell.key,) and planned.left(other):
            if isinstance(other, AttackCell):
                share = planned.left(other) / other.units
                seconds = share * _attacks_seconds(other.attacks, pace, data) + pace.loading
                result.seconds[ATTACK, cell.task] += seconds
            elif isinstance(other, AuditCell) and isinstance(cell, TrainCell):
                suite = plan(
                    other.config,
                    queries=len(data.asked),
                    task=cell.task,
                    rule=cell.config.feedback,
                    control="twin",
                )
                seconds = _attacks_seconds([audited.config for audited in suite], pace, data)
                result.seconds[AUDIT, cell.task] += seconds


def _training_seconds(cell: TrainedCell, pace: Pace, data: LabelledDataset) -> float:
    config, images = cell.config, len(data.train)
    steps_an_epoch = math.ceil((images - 1) / config.batch_size)
    steps = config.epochs * steps_an_epoch
    if config.max_steps is not None:
        steps = min(steps, config.max_steps)
    passes = 0.0
    if isinstance(cell, TrainCell):
        asked = (
            len(data.train) + len(data.query) + len(data.database)
            if isinstance(data, RetrievalDataset)
            else len(data.asked)
        )
        epochs = math.ceil(steps / steps_an_epoch)
        passes = asked + (1 + epochs) * len(data.validation)
        if pace.defence != "none":
            passes += epochs * images  # for what a defence prepares
    trained = min(steps * config.batch_size, steps / steps_an_epoch * images)
    return trained * pace.training + passes * pace.forward + pace.loading


def _attacks_seconds(configs: Sequence[AttackConfig], pace: Pace, data: LabelledDataset) -> float:
    total = 0.0
    for config in configs:
        attack = build(config)
        gradients = attack.gradient_steps if isinstance(attack, GradientAttack) else 0
        passes = attack.budget if isinstance(attack, SearchAttack) else 0
        split = data.asked
        queries = len(split) if config.queries is None else min(config.queries, len(split))
        total += queries * (gradients * pace.gradient + (passes + 5) * pace.forward) + _PER_ATTACK
    checks = len({config.epsilon for config in configs})
    return total + checks * _CHECK * pace.forward
