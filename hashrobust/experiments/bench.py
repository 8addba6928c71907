"""A run made ready to be attacked: its model, data, codes and chosen queries, crafted batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashrobust.attacks import (
    Attack,
    AttackContext,
    AttackResult,
    GradientAttack,
    SearchAttack,
    attacks,
    draw_targets,
    inside_ball,
    outward,
    perturbation,
    round_to_8_bits,
)
from hashrobust.datasets import LabelledDataset
from hashrobust.errors import HashRobustError, InputError
from hashrobust.experiments.attack_scores import Crafted
from hashrobust.experiments.config import AttackConfig
from hashrobust.experiments.gradient_checks import difference_facts, gradient_facts
from hashrobust.experiments.gradient_path import differentiated, gradient_path
from hashrobust.experiments.store import Folder, config_hash
from hashrobust.experiments.subject import Model, Subject, check_surrogate
from hashrobust.models import load_tensors, save_tensors, sign
from hashrobust.progress import Progress
from hashrobust.rules import exact_gradient, redraw_feedback

EXAMPLES = 6
CHECKED = 8
"""Images on which gradients are checked."""
PARTS, FITTED = "parts", "fitted"


def choose_queries(total: int, wanted: int | None, seed: int) -> NDArray[np.int64]:
    """Positions of a fixed subset of the queries, drawn by seed and sorted; all of them if None.

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
        return (
            f"{self.config.attack}, {self.config.gradient} gradient, epsilon {self.config.epsilon * 255:g}/255: "
            f"{len(self.chosen)} images x {steps} {unit}, about {seconds:.0f} s"
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
                if not searches:
                    torch.autograd.grad(z.sum(), images)
                step = time.perf_counter() - started
        return step * steps * len(self.chosen) / len(images), steps, "queries" if searches else "steps"

    def gradient_facts(self) -> dict[str, Any]:
        """The checks of `gradient_facts` on the first queries; empty for an attack that follows no gradient."""
        if not self.attack.follows_gradient:
            return {}
        images = self.batch(0, CHECKED)
        with self.attacker() as through:
            if self.config.gradient == "rule" and isinstance(self.attack, GradientAttack):
                # The draw of the last step, whether or not this process has made that step.
                redraw_feedback(through, self.config.seed, self.attack.descents - 1, self.attack.steps - 1)
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

    def craft(self, folder: Folder, progress: Progress) -> Crafted:
        """Attack all chosen queries; batches that are stored already are read back."""
        size, total = self.config.batch_size, len(self.chosen)
        starts = range(0, total, size)
        parts = [folder.path / PARTS / f"{start:07d}.npz" for start in starts]
        done = sum(
            min(size, total - start) for start, part in zip(starts, parts, strict=True) if part.exists()
        )
        fitted = self._fitted(progress) if done < total else None
        with progress.track(
            f"{self.config.attack} ({self.config.gradient})", total, "queries", done
        ) as advance:
            for start, part in zip(starts, parts, strict=True):
                if part.exists():
                    continue
                stop = min(start + size, total)
                arrays = self._craft_batch(start, stop, fitted)
                folder.write_arrays(f"{PARTS}/{part.name}", arrays, seal=False)
                advance(stop - start, "")
        return Crafted.read(parts)

    def _fitted(self, progress: Progress) -> dict[str, Tensor] | None:
        """What the attack learns once per model, stored in the attacked run for every later attack alike."""
        if not self.attack.fits:
            return None
        whole = self.config.to_dict()
        relevant = {key: whole[key] for key in whole if key not in ("queries", "query_seed", "batch_size")}
        name = f"{FITTED}/{self.config.attack}-{config_hash(relevant)}.safetensors"
        run = self.subject.folder
        if not run.has(name):
            progress.say(f"{self.config.attack} is fitted on the training images, once for this run")
            with self.attacker() as through:
                known = self.context(0, 0, through, self.source)
                learned = self.attack.fit(through, replace(known, targets=None, sample_ids=None))
            with run.writing(name) as temporary:
                save_tensors(learned, temporary, {"attack": self.config.attack})
            run.seal(name)
        return load_tensors(run.file(name, made_by="attack"))[0]

    def _craft_batch(
        self, start: int, stop: int, fitted: Mapping[str, Tensor] | None
    ) -> dict[str, NDArray[Any]]:
        clean = self.batch(start, stop)
        labels = self.data.asked.labels[self.chosen[start:stop]].to(self.device)
        with self.attacker() as through:
            context = self.context(start, stop, through, self.source, fitted)
            result = self._run(through, clean, labels, context)
        # Attacks of others may have replaced the check in `run`.
        if result.bounded and not inside_ball(result.images, clean, self.config.epsilon):
            raise HashRobustError(
                f"attack '{self.config.attack}' left its ball of radius {255 * self.config.epsilon:g}/255: "
                "mend the attack, its images do not count"
            )
        reach = self.config.epsilon if result.bounded else 1.0
        rounded = round_to_8_bits(result.images, clean, reach)
        answers = self.subject.answers(clean)
        self._check_forward(clean, answers)
        arrays = {
            "clean": answers,
            "attacked": self.subject.answers(result.images),
            "attacked_8bit": self.subject.answers(rounded),
            "theory": self._theory(answers, labels, start, stop, fitted),
            "targets": torch.zeros(0) if self.targets is None else self.targets[start:stop],
            "objective": result.objective,
            "gradient_evaluations": result.gradient_evaluations,
            "model_queries": result.queries,
            "finished": result.finished,
            "zero_gradients": result.zero_gradients,
            "nonfinite_gradients": result.nonfinite_gradients,
            "images": result.images[[i - start for i in self.examples() if start <= i < stop]],
            **{f"perturbation_{name}": values for name, values in perturbation(clean, result.images).items()},
        }
        return {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}

    def _theory(
        self,
        codes: Tensor,
        labels: Tensor,
        start: int,
        stop: int,
        fitted: Mapping[str, Tensor] | None,
    ) -> Tensor:
        """The codes that full success would reach, from the clean ones; empty if the attack aims at none."""
        theory = None
        if self.subject.codes:
            # In the codes of the model under attack, whoever lent the gradient.
            learned = fitted if self.source is self.subject else None
            own = self.context(start, stop, self.model, self.subject, learned)
            theory = self.attack.theory_codes(codes.float().to(self.device), labels, own)
        return torch.zeros(0) if theory is None else sign(theory)

    def _run(self, through: Model, clean: Tensor, labels: Tensor, context: AttackContext) -> AttackResult:
        """The attack, through the smaller epsilons first if it is warm-started; the work of all is counted."""
        result: AttackResult | None = None
        spent = torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
        before = 0.0
        for epsilon in (*self.config.start_epsilons, self.config.epsilon):
            if result is not None:
                start = outward(result.images, clean, before, epsilon)
                context = replace(context, start_images=start)
            result = replace(self.attack, epsilon=epsilon).run(through, clean, labels=labels, context=context)
            spent = spent + result.gradient_evaluations
            before = epsilon
        assert result is not None
        return replace(result, gradient_evaluations=spent)

    def _check_forward(self, clean: Tensor, answers: Tensor) -> None:
        """Answers must be the same twice, and the same with and without the rule's feedback."""
        with exact_gradient(self.model):
            if not torch.equal(self.subject.answers(clean), answers):
                raise HashRobustError(
                    f"run '{self.subject.name}' gives the same images other answers when asked again: its answers "
                    "are random or depend on the gradient's mode, so its attacks mean nothing"
                )
