"""A run made ready to be attacked: its model, data, codes and chosen queries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashrobust.attacks import (
    Attack,
    AttackContext,
    GradientAttack,
    SearchAttack,
    attacks,
    draw_targets,
)
from hashrobust.datasets import LabelledDataset
from hashrobust.errors import InputError
from hashrobust.experiments.config import AttackConfig
from hashrobust.experiments.gradient_checks import difference_facts, gradient_facts
from hashrobust.experiments.gradient_path import differentiated, gradient_path
from hashrobust.experiments.opened import Model
from hashrobust.experiments.store import config_hash
from hashrobust.experiments.subject import Subject, check_surrogate
from hashrobust.rules import redraw_feedback

EXAMPLES = 6
CHECKED = 8
"""Images on which gradients are checked."""


def choose_queries(total: int, wanted: int | None, seed: int) -> NDArray[np.int64]:
    """Positions (wanted,) of a fixed subset of the queries, drawn by seed and sorted; all of them if None.

    Raises:
        InputError: more are wanted than there are.
    """
    if wanted is None or wanted == total:
        return np.arange(total)
    if wanted > total:
        raise InputError(
            f"{wanted} queries are asked for, the dataset has {total}: ask for at most that many"
        )
    return np.sort(np.random.default_rng(seed).choice(total, wanted, replace=False)).astype(np.int64)


@dataclass(frozen=True)
class Bench:
    """A subject made ready to be attacked; `source` is the model that the attacker holds, unless it is a
    surrogate the subject itself."""

    config: AttackConfig
    attack: Attack
    subject: Subject
    source: Subject
    chosen: NDArray[np.int64]
    targets: Tensor | None

    @classmethod
    def prepare(
        cls, subject: Subject, config: AttackConfig, attack: Attack, surrogate: Subject | None = None
    ) -> Bench:
        """Choose the queries (of a classifier the test images) and draw the targets.

        Raises:
            InputError: more queries than there are, a surrogate that does not fit, or an attack for another task.
        """
        task = subject.measure.task
        if task not in attack.tasks:
            served = [name for name in attacks if task in getattr(attacks[name], "tasks", ())]
            raise InputError(
                f"attack '{config.attack}' is not for {task}, which run '{subject.name}' does: "
                f"use one of {', '.join(served)}"
            )
        if surrogate is not None:
            check_surrogate(surrogate, subject)
        asked = subject.data.asked
        chosen = choose_queries(len(asked), config.queries, config.query_seed)
        targets = None
        if attack.goal == "targeted":
            if task != "hashing":
                raise InputError(
                    f"attack '{config.attack}' is targeted, which is for hashing: leave its target out"
                )
            targets = draw_targets(
                asked.labels[chosen],
                torch.from_numpy(subject.codes["database"].labels),
                seed=config.seed,
                sample_ids=asked.ids[chosen],
            )
        return cls(config, attack, subject, surrogate or subject, chosen, targets)

    @property
    def model(self) -> Model:
        """The model whose answers are scored."""
        return self.subject.model

    @property
    def data(self) -> LabelledDataset:
        """Of both models."""
        return self.subject.data

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.subject.device

    @contextmanager
    def attacker(self) -> Iterator[Model]:
        """The frozen model that the attacker differentiates through."""
        with gradient_path(self._differentiated, self.config.gradient) as through:
            yield through

    @cached_property
    def _differentiated(self) -> Model:
        """Made once: a large network takes seconds to copy."""
        return differentiated(self.source.model, self.config.gradient)

    def examples(self) -> list[int]:
        """Places in the chosen subset of the queries whose images are kept, spread evenly over it."""
        total = len(self.chosen)
        return sorted({i * total // EXAMPLES for i in range(EXAMPLES)})

    def batch(self, start: int, stop: int) -> Tensor:
        """Clean query images of these positions in the chosen subset, on the device."""
        return self.data.asked.load(self.chosen[start:stop]).to(self.device)

    def context(
        self, start: int, stop: int, through: Model, of: Subject, fitted: Mapping[str, Tensor] | None = None
    ) -> AttackContext:
        """What the attacker of these queries knows, in codes of a subject, and what the attack has fitted."""
        known: dict[str, Tensor] = {}
        for split in ("train", "database") if of.codes else ():
            known |= {
                f"{split}_codes": self._tensor(of.codes[split].codes),
                f"{split}_labels": self._tensor(of.codes[split].labels),
            }
        return AttackContext(
            **known,
            task=of.measure.task,
            transfer=self.source is not self.subject,
            train_images=lambda positions: self.data.train.load(positions).to(self.device),
            targets=None if self.targets is None else self.targets[start:stop].to(self.device),
            sample_ids=self.data.asked.ids[self.chosen[start:stop]],
            fitted=fitted,
            before_step=lambda *key: redraw_feedback(through, self.config.seed, *key),
        )

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def cost(self) -> str:
        """One sentence on how long the attack will take, from one measured step on one batch."""
        seconds, steps, unit = self.estimate()
        gradient = "no" if self.config.gradient == "none" else self.config.gradient
        work = f" x {steps} {unit}" if steps else ""
        return (
            f"{self.config.attack}, {gradient} gradient, epsilon {self.config.epsilon * 255:g}/255: "
            f"{len(self.chosen)} images{work}, about {seconds:.0f} s"
        )

    def estimate(self) -> tuple[float, int, str]:
        """Estimated seconds, and the steps per image with their unit: gradient steps or model queries."""
        attack, images = self.attack, self.batch(0, self.config.batch_size)
        searches = isinstance(attack, SearchAttack)
        steps = attack.budget if isinstance(attack, SearchAttack) else 0
        if isinstance(attack, GradientAttack):
            steps = attack.gradient_steps
        with self.attacker() as through:
            for _ in range(2):  # the first pass warms up
                started = time.perf_counter()
                z = through(images.requires_grad_(not searches))
                if z.requires_grad and not searches:
                    torch.autograd.grad(z.sum(), images, allow_unused=True)
                step = time.perf_counter() - started
        return step * steps * len(self.chosen) / len(images), steps, "queries" if searches else "steps"

    def gradient_facts(self) -> dict[str, Any]:
        """The checks of `gradient_facts` on the first queries; empty for an attack that follows no gradient."""
        if not self.attack.follows_gradient:
            return {}
        images = self.batch(0, CHECKED)
        with self.attacker() as through:
            if self.config.gradient.startswith("rule"):
                # The draw of the last step, whether or not this process has made that step.
                attack, last = self.attack, (0, 0)
                if isinstance(attack, GradientAttack):
                    last = (attack.descents - 1, attack.steps - 1)
                redraw_feedback(through, self.config.seed, *last)
            return gradient_facts(self.source.model, through, images, self._difference_facts(images))

    def _difference_facts(self, images: Tensor) -> dict[str, Any]:
        """Those of the model that is differentiated, found once for all attacks on a run: they take float64 passes by
        the hundred."""
        run, ids = self.source.folder, self.data.asked.ids[self.chosen[:CHECKED]]
        name = f"gradient_checks/{config_hash({'epsilon': self.config.epsilon, 'ids': ids.tolist()})}.json"
        if self.source is self.subject and run.has(name):  # a surrogate's folder is not held by this process
            stored: dict[str, Any] = run.read_json(name, made_by="attack")
            return stored
        found = difference_facts(self.source.model, images, self.config.epsilon)
        if self.source is self.subject:
            run.write_json(name, found)
        return found
