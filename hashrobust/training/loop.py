"""The loop, in full view: one for pre-training and fine-tuning, resumable at every epoch.

Data order, augmentation, dropout and feedback redraws derive from the seed and the step alone, so
that a run interrupted anywhere and taken up at its last epoch ends bit for bit where an
uninterrupted one does (same machine, same threads). Several processes share the batches of one
training; what that takes is in `parallel.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hashrobust.datasets import Split
from hashrobust.errors import InputError, TrainingError
from hashrobust.models import Network, training_layout
from hashrobust.objectives import Objective
from hashrobust.options import TrainingOptions
from hashrobust.progress import Progress
from hashrobust.rules import (
    alignment,
    feedback_scale,
    feedback_state,
    load_feedback_state,
    redraw_feedback,
    rule_of,
    takes_scale,
)
from hashrobust.seeding import key_seed, keyed_generator
from hashrobust.training import parallel
from hashrobust.training.augmentation import augment
from hashrobust.training.defences import Defence
from hashrobust.training.parallel import Share
from hashrobust.training.staged import StagedRule
from hashrobust.training.state import Checkpoints, TrainingResult, TrainingState

Loss = Callable[[Tensor, Tensor, int], Tensor]
"""Outputs z (B, K), labels (B, C) multi-hot and the step number, to a scalar."""


class Loop:
    """One training run: `run` trains the model in place, by whatever rule it was converted to, or a staged one."""

    def __init__(
        self,
        model: Network,
        loss: Loss | Objective,
        train: Split,
        options: TrainingOptions,
        *,
        defence: Defence | None = None,
        staged: StagedRule | None = None,
        validate: Callable[[], float] | None,
        score: str = "validation_map",
        checkpoints: Checkpoints | None,
        progress: Progress,
    ) -> None:
        if len(train) < 2:
            raise InputError(f"the train split has {len(train)} images: training needs at least 2")
        self.model, self.loss, self.train, self.options = model, loss, train, options
        self.defence, self.staged = defence, staged
        self.selects_after = staged.before_last if staged else 0
        if self.selects_after >= options.epochs:
            raise InputError(
                f"the last rule begins after epoch {self.selects_after}, and there are {options.epochs}: "
                "give more epochs, or switch earlier"
            )
        if staged:
            staged.convert_to_first(model)  # what is wrong with a later stage is found before any work
        self.validate, self.score = validate, score
        self.checkpoints, self.progress = checkpoints, progress
        self.optimizer = self._build_optimizer()
        # Pairs need two images, and so does BatchNorm: a last batch of one is left out.
        self.starts = range(0, len(train) - 1, options.batch_size)

    def run(self) -> TrainingResult:
        """Train to the end; the model holds the best epoch's weights, the global random state is kept."""
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return self._run()

    def _run(self) -> TrainingResult:
        resumed = parallel.same_state(self.checkpoints.load() if self.checkpoints else None)
        state = resumed or TrainingState(tensors={})
        if resumed:
            self._restore(resumed)
        best = self._best(state)
        while state.epoch < self._epochs and not self._out_of_patience(state):
            try:
                with training_layout(self.model):
                    loss = self._epoch(state.epoch + 1)
            except TrainingError:
                self.model.load_state_dict(best)
                raise
            state.epoch += 1
            score = parallel.same(self.validate()) if self.validate else float(state.epoch)
            better = score > state.best_score and state.epoch > self.selects_after
            if better or self.options.max_steps is not None:
                state.best_score, state.best_epoch = float(score), state.epoch
                best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            self._record(state, loss, score if self.validate else None)
            if self.checkpoints:
                state.tensors = self._tensors(best if state.best_epoch != state.epoch else {})
                self.checkpoints.save(state, self.model)
        self.model.load_state_dict(best)
        # Steps may have ended before its last stage began.
        if self.staged and rule_of(self.model) != self.staged.last:
            self.staged.convert(self.model, self.staged.last)
        self.model.eval()
        return TrainingResult(state.history, state.alignment, state.best_epoch)

    def _epoch(self, epoch: int) -> float:
        """One pass over the train split; the mean loss per image."""
        options, model = self.options, self.model
        if self.staged and self.staged.begins(epoch):
            self.staged.convert(model, self.staged.at(epoch))
            self.progress.say(f"epoch {epoch} and on: rule {self.staged.at(epoch)}")
        parallel.align(model, self.loss)
        if self.defence is not None:
            self.defence.start_epoch(model, self.train)
        order = np.random.default_rng(key_seed("order", options.seed, epoch)).permutation(len(self.train))
        augmenting = keyed_generator("augment", options.seed, epoch)
        torch.manual_seed(key_seed("dropout", options.seed, epoch) + parallel.rank())
        model.train()
        total, seen = 0.0, 0
        with self.progress.track(f"epoch {epoch}/{options.epochs}", len(order), "images") as advance:
            batches = [order[start : start + options.batch_size] for start in self.starts]
            shares = [parallel.share(len(batch)) for batch in batches]
            own = [batch[share.rows] for batch, share in zip(batches, shares, strict=True)]
            for number, images in enumerate(self.train.load_each(own)):
                step = (epoch - 1) * len(self.starts) + number
                if step == self.options.max_steps:
                    break
                chosen, share = batches[number], shares[number]
                images = augment(images, options.augment, augmenting, share).to(model.device)
                labels = self.train.labels[chosen].to(model.device)
                loss = self._step(images, labels, self.train.ids[chosen], share, step)
                if not math.isfinite(loss):
                    raise self._diverged(f"the loss is {loss}", epoch, step)
                total += loss * len(chosen)
                seen += len(chosen)
                advance(len(chosen), f"loss {total / seen:.4f}")
        parallel.average_statistics(model)
        for name, tensor in model.state_dict().items():
            if not bool(tensor.isfinite().all()):
                raise self._diverged(f"{name} holds values that are not finite", epoch, step)
        return total / seen

    def _step(self, images: Tensor, labels: Tensor, ids: Tensor, share: Share, step: int) -> float:
        """One step on the images of a share of a batch with these labels and ids; the loss of the batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self._rate(step)
        redraw_feedback(self.model, step)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.options.mixed_precision):
            z = self.model(images)
            added = None
            if self.defence:
                added = self.defence.loss(self.model, images, labels[share.rows], ids[share.rows], step)
        loss: Tensor = self.loss(share.gather(z.float()), labels, step)
        if added is not None:
            loss = loss + share.mean(added)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parallel.sum_gradients(self.model)
        self.optimizer.step()
        return loss.item()

    @property
    def _epochs(self) -> int:
        """How many epochs are begun."""
        if self.options.max_steps is None:
            return self.options.epochs
        return min(self.options.epochs, math.ceil(self.options.max_steps / len(self.starts)))

    def _rate(self, step: int) -> float:
        """The share of the base learning rate at this step."""
        done = step / (self.options.epochs * len(self.starts))
        if self.options.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        if self.options.schedule == "step":
            return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
        return 1.0

    def _out_of_patience(self, state: TrainingState) -> bool:
        patience = self.options.patience
        waited = state.epoch - max(state.best_epoch, self.selects_after)
        return self.validate is not None and patience is not None and waited >= patience

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
        # Fused, a step goes through the weights once and not ten times. It takes memory as it lies, so that gradients
        # (autograd sees to it) and moments must lie as their parameter does.
        parameters = [parameter for group in groups for parameter in group["params"]]
        lie_usually = all(parameter.is_contiguous() for parameter in parameters)
        fused = lie_usually and model.device.type in ("cpu", "cuda")
        if options.optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=0.9, weight_decay=options.weight_decay, fused=fused)
        return torch.optim.Adam(groups, weight_decay=options.weight_decay, fused=fused)

    def _record(self, state: TrainingState, loss: float, score: float | None) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        row: dict[str, Any] = {
            "epoch": state.epoch,
            "loss": loss,
            self.score: score,
            "learning_rate": rate,
        }
        state.history.append(row)
        if rule_of(self.model) != "bp":
            state.alignment.extend({"epoch": state.epoch, **asdict(layer)} for layer in alignment(self.model))
        name = self.score.replace("_map", " mAP").replace("_", " ")
        said = "" if score is None else f", {name} {100 * score:.2f}%"
        self.progress.say(f"epoch {state.epoch}: loss {loss:.4f}{said}")

    def _tensors(self, best: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
        if self.staged:  # what was drawn may depend on the weights at the switch
            tensors |= {f"feedback.{name}": tensor for name, tensor in feedback_state(self.model).items()}
        if isinstance(self.loss, nn.Module):
            tensors |= {f"objective.{name}": tensor for name, tensor in self.loss.state_dict().items()}
        for index, entries in self.optimizer.state_dict()["state"].items():
            for name, tensor in entries.items():
                if isinstance(tensor, Tensor):
                    tensors[f"optimizer.{index}.{name}"] = tensor
        return tensors

    def _restore(self, state: TrainingState) -> None:
        self.model.load_state_dict(_under("model.", state.tensors))
        if self.staged:
            self.staged.convert(self.model, self.staged.at(state.epoch))
            load_feedback_state(self.model, _under("feedback.", state.tensors))
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict(_under("objective.", state.tensors))
        entries: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _under("optimizer.", state.tensors).items():
            index, name = key.split(".", 1)
            entries.setdefault(int(index), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        with training_layout(self.model):
            self._lay_out_optimizer()
        redraw_feedback(self.model, state.epoch * len(self.starts) - 1)  # that of the last step made

    def _lay_out_optimizer(self) -> None:
        """As a training that was not interrupted has it: what belongs to a parameter lies as the parameter does."""
        for parameter, entries in self.optimizer.state.items():
            for name, tensor in entries.items():
                if tensor.shape == parameter.shape:
                    entries[name] = torch.empty_like(parameter).copy_(tensor)

    def _best(self, state: TrainingState) -> dict[str, Tensor]:
        """The best epoch's weights so far; those at the start before there is one."""
        best = _under("best.", state.tensors) or self.model.state_dict()
        return {name: tensor.clone() for name, tensor in best.items()}

    def _diverged(self, what: str, epoch: int, step: int) -> TrainingError:
        kept = f"the last good epoch is {epoch - 1}" if epoch > 1 else "no epoch was finished"
        unmatched = takes_scale(rule_of(self.model)) and feedback_scale(self.model) != "matched"
        mend = " or choose --feedback-scale matched" if unmatched else ""
        return TrainingError(f"{what} at epoch {epoch}, step {step}; {kept}: lower --learning-rate{mend}")


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
