"""A run made ready to be attacked: its model, data, codes and chosen queries, crafted batch by batch."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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
    draw_targets,
    perturbation,
    round_to_8_bits,
)
from hashrobust.datasets import RetrievalDataset
from hashrobust.errors import HashRobustError, InputError
from hashrobust.experiments.attack_scores import Crafted
from hashrobust.experiments.config import AttackConfig, FinetuneConfig
from hashrobust.experiments.environment import choose_device
from hashrobust.experiments.gradient_checks import gradient_facts
from hashrobust.experiments.retrieval_runs import StoredCodes, encode_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.training_runs import load_run, load_run_data
from hashrobust.models import HashModel, frozen, sign
from hashrobust.progress import Progress
from hashrobust.rules import convert, exact_gradient, redraw_feedback

EXAMPLES = 6
PARTS = "parts"


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


@contextmanager
def gradient_path(model: HashModel, gradient: str, *, seed: int, scale: str) -> Iterator[HashModel]:
    """The model through which the attacker differentiates: exactly, by its own rule, or by a named one.

    The forward pass, and so the codes, are the same in all three.
    """
    if gradient == "exact":
        with exact_gradient(model):
            yield model
    elif gradient == "rule":
        yield model
    else:
        through = copy.deepcopy(model)
        convert(through, gradient.removeprefix("rule:"), seed=seed, scale=scale)
        yield through


@dataclass(frozen=True)
class Bench:
    """A run made ready to be attacked."""

    config: AttackConfig
    attack: Attack
    model: HashModel
    training: FinetuneConfig
    data: RetrievalDataset
    codes: dict[str, StoredCodes]
    chosen: NDArray[np.int64]
    targets: Tensor | None

    @classmethod
    def prepare(
        cls,
        run: Folder,
        config: AttackConfig,
        attack: Attack,
        *,
        data_dir: Path | None,
        device: str,
        progress: Progress,
    ) -> Bench:
        """Load the model, the data, the stored codes and the chosen queries; draw targets."""
        data = load_run_data(run, data_dir)
        model = load_run(run).to(choose_device(device))
        codes = encode_run(run, data=data, device=device, progress=progress)
        chosen = choose_queries(len(data.query), config.queries, config.query_seed)
        targets = None
        if attack.goal == "targeted":
            targets = draw_targets(
                data.query.labels[chosen],
                torch.from_numpy(codes["database"].labels),
                seed=config.seed,
                sample_ids=data.query.ids[chosen],
            )
        training = FinetuneConfig.from_dict(run.config)
        return cls(config, attack, model, training, data, codes, chosen, targets)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    @contextmanager
    def attacker(self) -> Iterator[HashModel]:
        """The frozen model that the attacker differentiates through."""
        scale, seed = self.training.feedback_scale, self.training.seed
        with (
            gradient_path(self.model, self.config.gradient, seed=seed, scale=scale) as through,
            frozen(through),
        ):
            yield through

    def examples(self) -> list[int]:
        """Places in the chosen subset of the queries whose images are kept, spread evenly over it."""
        total = len(self.chosen)
        return sorted({i * total // EXAMPLES for i in range(EXAMPLES)})

    def batch(self, start: int, stop: int) -> Tensor:
        """Clean query images of these positions in the chosen subset, on the device."""
        return self.data.query.load(self.chosen[start:stop]).to(self.device)

    def context(self, start: int, stop: int, through: HashModel) -> AttackContext:
        """What the attacker of these queries knows."""
        train, database = self.codes["train"], self.codes["database"]
        return AttackContext(
            train_codes=self._tensor(train.codes),
            train_labels=self._tensor(train.labels),
            train_images=lambda positions: self.data.train.load(positions).to(self.device),
            database_codes=self._tensor(database.codes),
            database_labels=self._tensor(database.labels),
            targets=None if self.targets is None else self.targets[start:stop].to(self.device),
            sample_ids=self.data.query.ids[self.chosen[start:stop]],
            before_step=lambda restart, step: redraw_feedback(through, self.config.seed, restart, step),
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
        with frozen(self.model):
            self.model(images)
            started = time.perf_counter()
            z = self.model(images.requires_grad_(not searches))
            if not searches:
                z.sum().backward()
            step = time.perf_counter() - started
        return step * steps * len(self.chosen) / len(images), steps, "queries" if searches else "steps"

    def gradient_facts(self) -> dict[str, Any]:
        """The checks of `gradient_facts` on the first queries, with the attacker's gradient."""
        with self.attacker() as through:
            if self.config.gradient == "rule" and isinstance(self.attack, GradientAttack):
                # The draw of the last step, whether or not this process has made that step.
                redraw_feedback(through, self.config.seed, self.attack.descents - 1, self.attack.steps - 1)
            return gradient_facts(self.model, through, self.batch(0, 8))

    def craft(self, folder: Folder, progress: Progress) -> Crafted:
        """Attack all chosen queries; batches that are stored already are read back."""
        size, total = self.config.batch_size, len(self.chosen)
        starts = range(0, total, size)
        parts = [folder.path / PARTS / f"{start:07d}.npz" for start in starts]
        done = sum(
            min(size, total - start) for start, part in zip(starts, parts, strict=True) if part.exists()
        )
        with progress.track(
            f"{self.config.attack} ({self.config.gradient})", total, "queries", done
        ) as advance:
            for start, part in zip(starts, parts, strict=True):
                if part.exists():
                    continue
                stop = min(start + size, total)
                folder.write_arrays(f"{PARTS}/{part.name}", self._craft_batch(start, stop), seal=False)
                advance(stop - start, "")
        return Crafted.read(parts)

    def _craft_batch(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        clean = self.batch(start, stop)
        labels = self.data.query.labels[self.chosen[start:stop]].to(self.device)
        with self.attacker() as through:
            context = self.context(start, stop, through)
            result = self.attack.run(through, clean, labels=labels, context=context)
        rounded = round_to_8_bits(result.images, clean, self.config.epsilon)
        clean_codes = self.model.encode(clean)
        self._check_forward(clean, clean_codes)
        theory = self.attack.theory_codes(clean_codes.float().to(self.device), labels, context)
        arrays = {
            "clean_codes": clean_codes,
            "codes": self.model.encode(result.images),
            "codes_8bit": self.model.encode(rounded),
            "theory_codes": torch.zeros(0, clean_codes.shape[1]) if theory is None else sign(theory),
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

    def _check_forward(self, clean: Tensor, codes: Tensor) -> None:
        with exact_gradient(self.model):
            if not torch.equal(self.model.encode(clean), codes):
                raise HashRobustError(
                    f"rule '{self.training.rule}' changes the codes of the forward pass: its attacks mean nothing"
                )
