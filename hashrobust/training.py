"""The training loop, in full view: one loop for pre-training and fine-tuning, resumable at every epoch.

Data order, augmentation, dropout and feedback redraws derive from the seed and the step alone, so
that a run interrupted anywhere and taken up at its last epoch ends bit for bit where an
uninterrupted one does (same machine, same threads).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.datasets import RetrievalDataset, Split
from hashrobust.errors import InputError, TrainingError
from hashrobust.metrics import leave_one_out_average_precision
from hashrobust.models import Classifier, HashModel, Network
from hashrobust.objectives import Objective, build_objective
from hashrobust.options import TrainingOptions
from hashrobust.progress import Progress, Silent
from hashrobust.rules import alignment, redraw_feedback, rule_of
from hashrobust.seeding import key_seed, keyed_generator

Loss = Callable[[Tensor, Tensor, int], Tensor]
"""Outputs z (B, K), labels (B, C) multi-hot and the step number, to a scalar."""


@dataclass
class TrainingState:
    """All that the loop needs to go on after an epoch: tensors, and plain values."""

    tensors: dict[str, Tensor]
    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    alignment: list[dict[str, Any]] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        """The plain values, for JSON."""
        return {name: value for name, value in self.__dict__.items() if name != "tensors"}


class Checkpoints(Protocol):
    """Where the loop keeps its state between epochs."""

    def load(self) -> TrainingState | None:
        """The state after the last finished epoch, if any."""

    def save(self, state: TrainingState, model: Network) -> None:
        """Keep the state and the model as they are after an epoch."""


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves besides the model, which holds the weights of the best epoch.

    `history` has a row an epoch: epoch, loss, validation_map (None without validation),
    learning_rate. `alignment` has a row an epoch and layer: angle between feedback and forward
    weights in degrees, and the ratio of their norms.
    """

    history: list[dict[str, float]]
    alignment: list[dict[str, Any]]
    best_epoch: int


def finetune(
    model: HashModel,
    data: RetrievalDataset,
    *,
    objective: str | Objective = "dpsh",
    objective_params: dict[str, Any] | None = None,
    options: TrainingOptions | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> TrainingResult:
    """Fine-tune a hashing model by whatever rule it was converted to; in place, best epoch kept.

    The best epoch is the one with the highest validation mAP; queries are never looked at.
    `overrides` are fields of `TrainingOptions`, such as `epochs=20`.

    Raises:
        InputError: an unknown objective, parameter or option.
        TrainingError: the loss is not finite; the model holds the weights of the best epoch so far.
    """
    options = _options(options, overrides)
    if isinstance(objective, str):
        objective = build_objective(
            objective,
            bits=model.bits,
            num_classes=len(data.classes),
            similar_share=data.similar_share,
            **(objective_params or {}),
        )
    objective.to(model.device)
    return _Loop(
        model,
        objective,
        data.train,
        options,
        validate=lambda: validation_map(model, data.validation),
        checkpoints=checkpoints,
        progress=progress or Silent(),
    ).run()


def pretrain(
    model: Classifier,
    data: RetrievalDataset,
    *,
    options: TrainingOptions | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> TrainingResult:
    """Train a classifier on the train split alone; in place, last epoch kept.

    Cross-entropy, or binary cross-entropy per class for multi-label data. No other split is seen,
    so that hashing models that start from it have never met a query, validation or database image.

    Raises:
        InputError: an unknown option.
        TrainingError: the loss is not finite.
    """
    options = _options(options, overrides)

    def single_label(z: Tensor, labels: Tensor, step: int) -> Tensor:
        return F.cross_entropy(z, labels.argmax(dim=1))

    def multi_label(z: Tensor, labels: Tensor, step: int) -> Tensor:
        return F.binary_cross_entropy_with_logits(z, labels.to(z.dtype))

    loss = multi_label if data.multi_label else single_label
    return _Loop(
        model,
        loss,
        data.train,
        options,
        validate=None,
        checkpoints=checkpoints,
        progress=progress or Silent(),
    ).run()


def validation_map(model: HashModel, split: Split) -> float:
    """mAP with each image of the split ranked against all the others of it (a fraction)."""
    codes = model.encode(split)
    return float(leave_one_out_average_precision(codes, split.labels).mean())


def _options(options: TrainingOptions | None, overrides: dict[str, Any]) -> TrainingOptions:
    try:
        return TrainingOptions(**((asdict(options) if options else {}) | overrides))
    except TypeError as error:
        raise InputError(
            f"training options: {error}; known: {', '.join(TrainingOptions.__annotations__)}"
        ) from error


class _Loop:
    """One training run."""

    def __init__(
        self,
        model: Network,
        loss: Loss | Objective,
        train: Split,
        options: TrainingOptions,
        *,
        validate: Callable[[], float] | None,
        checkpoints: Checkpoints | None,
        progress: Progress,
    ) -> None:
        if len(train) < 2:
            raise InputError(f"the train split has {len(train)} images: training needs at least 2")
        self.model, self.loss, self.train, self.options = model, loss, train, options
        self.validate, self.checkpoints, self.progress = validate, checkpoints, progress
        self.optimizer = self._build_optimizer()
        self.steps_per_epoch = math.ceil(len(train) / options.batch_size)

    def run(self) -> TrainingResult:
        resumed = self.checkpoints.load() if self.checkpoints else None
        state = resumed or TrainingState(tensors={})
        if resumed:
            self._restore(resumed)
        best = self._best(state)
        while state.epoch < self.options.epochs and not self._out_of_patience(state):
            try:
                loss = self._epoch(state.epoch + 1)
            except TrainingError:
                if best:
                    self.model.load_state_dict(best)
                raise
            state.epoch += 1
            score = self.validate() if self.validate else float(state.epoch)
            if score > state.best_score:
                state.best_score, state.best_epoch = float(score), state.epoch
                best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            self._record(state, loss, score if self.validate else None)
            if self.checkpoints:
                state.tensors = self._tensors(best if state.best_epoch != state.epoch else {})
                self.checkpoints.save(state, self.model)
        self.model.load_state_dict(best)
        self.model.eval()
        return TrainingResult(state.history, state.alignment, state.best_epoch)

    def _epoch(self, epoch: int) -> float:
        """One pass over the train split; the mean loss per image."""
        options, model = self.options, self.model
        order = np.random.default_rng(key_seed("order", options.seed, epoch)).permutation(len(self.train))
        augmenting = keyed_generator("augment", options.seed, epoch)
        torch.manual_seed(key_seed("dropout", options.seed, epoch))
        model.train()
        total = 0.0
        with self.progress.track(f"epoch {epoch}/{options.epochs}", len(order), "images") as advance:
            for number, start in enumerate(range(0, len(order), options.batch_size)):
                step = (epoch - 1) * self.steps_per_epoch + number
                chosen = order[start : start + options.batch_size]
                if len(chosen) == 1:
                    continue  # pairs need two images, and so does BatchNorm
                images = augment(self.train.load(chosen), options.augment, augmenting).to(model.device)
                labels = self.train.labels[chosen].to(model.device)
                loss = self._step(images, labels, step)
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"the loss is {loss} at epoch {epoch}, step {step}: lower --learning-rate or choose "
                        f"--feedback-scale matched; the last good checkpoint is that of epoch {epoch - 1}"
                    )
                total += loss * len(chosen)
                advance(len(chosen), f"loss {total / (start + len(chosen)):.4f}")
        return total / len(order)

    def _step(self, images: Tensor, labels: Tensor, step: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self._rate(step)
        redraw_feedback(self.model, step)
        with torch.autocast(images.device.type, enabled=self.options.mixed_precision):
            z = self.model(images)
        loss: Tensor = self.loss(z.float(), labels, step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()

    def _rate(self, step: int) -> float:
        """The share of the base learning rate at this step."""
        if self.options.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * step / (self.options.epochs * self.steps_per_epoch)))

    def _out_of_patience(self, state: TrainingState) -> bool:
        patience = self.options.patience
        return (
            self.validate is not None and patience is not None and state.epoch - state.best_epoch >= patience
        )

    def _build_optimizer(self) -> torch.optim.Optimizer:
        options, model = self.options, self.model
        head = list(model.head.parameters())
        body = list(model.normalize.parameters()) + list(model.backbone.parameters())
        rate, head_rate = options.learning_rate, options.learning_rate * options.head_learning_rate_factor
        groups: list[dict[str, Any]] = [
            {"params": body, "lr": rate, "base_lr": rate},
            {"params": head, "lr": head_rate, "base_lr": head_rate},
        ]
        if isinstance(self.loss, Objective) and self.loss.own_learning_rate is not None:
            own = self.loss.own_learning_rate
            groups.append({"params": list(self.loss.parameters()), "lr": own, "base_lr": own})
        if options.optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=0.9, weight_decay=options.weight_decay)
        return torch.optim.Adam(groups, weight_decay=options.weight_decay)

    def _record(self, state: TrainingState, loss: float, score: float | None) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        row: dict[str, Any] = {
            "epoch": state.epoch,
            "loss": loss,
            "validation_map": score,
            "learning_rate": rate,
        }
        state.history.append(row)
        if rule_of(self.model) != "bp":
            state.alignment.extend({"epoch": state.epoch, **asdict(layer)} for layer in alignment(self.model))
        said = "" if score is None else f", validation mAP {100 * score:.2f}%"
        self.progress.say(f"epoch {state.epoch}: loss {loss:.4f}{said}")

    def _tensors(self, best: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
        if isinstance(self.loss, nn.Module):
            tensors |= {f"objective.{name}": tensor for name, tensor in self.loss.state_dict().items()}
        for index, entries in self.optimizer.state_dict()["state"].items():
            for name, tensor in entries.items():
                if isinstance(tensor, Tensor):
                    tensors[f"optimizer.{index}.{name}"] = tensor
        return tensors

    def _restore(self, state: TrainingState) -> None:
        self.model.load_state_dict(_under("model.", state.tensors))
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict(_under("objective.", state.tensors))
        entries: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _under("optimizer.", state.tensors).items():
            index, name = key.split(".", 1)
            entries.setdefault(int(index), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})

    def _best(self, state: TrainingState) -> dict[str, Tensor]:
        best = _under("best.", state.tensors) or _under("model.", state.tensors)
        return {name: tensor.clone() for name, tensor in best.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def augment(images: Tensor, mode: str, generator: torch.Generator) -> Tensor:
    """Random horizontal flips and shifts of up to an eighth of the size (zero padding), per image.

    Args:
        images: (B, C, H, W).
        mode: `none`, `flip`, `crop` or `crop-flip`.
        generator: the source of randomness, on the CPU.
    """
    if "flip" in mode:
        flips = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(flips.view(-1, 1, 1, 1), images.flip(-1), images)
    if "crop" in mode:
        height, width = images.shape[-2:]
        reach = max(height // 8, 1)
        padded = F.pad(images, (reach, reach, reach, reach))
        top, left = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator)
        rows = (top[:, None] + torch.arange(height))[:, None, :, None]
        columns = (left[:, None] + torch.arange(width))[:, None, None, :]
        batch = torch.arange(len(images))[:, None, None, None]
        channels = torch.arange(images.shape[1])[None, :, None, None]
        images = padded[batch, channels, rows, columns]
    return images
