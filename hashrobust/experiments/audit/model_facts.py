"""What an audit measures besides attacks: do answers repeat, and what becomes of the gradient with depth?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hashrobust.experiments.bench import choose_queries
from hashrobust.experiments.opened import Model
from hashrobust.experiments.scaled_gradient import scaled_gradient
from hashrobust.experiments.subject import Subject
from hashrobust.models import ClassifyingModel, frozen, sign
from hashrobust.rules import redraw_feedback, rule_of, signal_agreement

IMAGES = 64
ALONE = 8
DEPTH_IMAGES = 16

# Batches of other shapes round differently: a bit whose output is all but zero may turn.
_ROUNDING = 1e-3


def determinism_facts(subject: Subject) -> dict[str, Any]:
    """Whether answers and gradients of the same images are the same again.

    `differing_bits` is the largest share of bits (of a classifier, of classes) that differ over: asking twice,
    asking in another order, asking one by one. `gradient_repeats` says whether the exact input gradient is
    bit for bit the same.
    """
    model, images = subject.model, _images(subject, IMAGES)
    first = model.outputs(images)
    alone = min(ALONE, len(images))
    again = {
        "when asked again": (model.outputs(images), first),
        "in another order": (model.outputs(images.flip(0)).flip(0), first),
        "when asked one by one": (model.outputs(images[:alone], batch_size=1), first[:alone]),
    }
    differing = _differing_classes if isinstance(model, ClassifyingModel) else _differing_bits
    shares = {how: differing(now, before) for how, (now, before) in again.items()}
    how = max(shares, key=lambda name: shares[name])
    return {
        "differing_bits": shares[how],
        "differing_how": how,
        "gradient_repeats": _gradient_repeats(model, images[:ALONE]),
        "rule_redraws": _redraws(model),
    }


def depth_facts(subject: Subject) -> list[dict[str, Any]]:
    """The rule's error signal against the exact one at the input of each layer, from the last to the first.

    Empty for models whose own gradient is the exact one.
    """
    model = subject.model
    if rule_of(model) == "bp":
        return []
    images = _images(subject, DEPTH_IMAGES).to(model.device)
    with frozen(model):
        return [vars(layer) for layer in signal_agreement(model, images)]


def _images(subject: Subject, count: int) -> Tensor:
    total = len(subject.data.validation)
    return subject.data.validation.load(choose_queries(total, min(count, total), 0))


def _differing_bits(now: Tensor, before: Tensor) -> float:
    """Share of bits that differ, but for those whose output is zero up to rounding."""
    sure = before.abs() > _ROUNDING * before.abs().mean()
    return float(((sign(now) != sign(before)) & sure).double().mean())


def _differing_classes(now: Tensor, before: Tensor) -> float:
    """Share of images that get another class, but for those whose two largest logits are equal up to rounding."""
    largest = before.topk(2, dim=1).values
    sure = largest[:, 0] - largest[:, 1] > _ROUNDING * before.abs().mean()
    return float(((now.argmax(dim=1) != before.argmax(dim=1)) & sure).double().mean())


def _gradient_repeats(model: Model, images: Tensor) -> bool:
    def gradient() -> Tensor:
        """Zeros where there is none; whether it is a number is another check's question."""
        found = scaled_gradient(model, images)
        return torch.zeros_like(images) if found is None else found.nan_to_num()

    return torch.equal(gradient(), gradient())


def _redraws(model: Model) -> bool:
    """Whether the rule's own feedback changes with the step."""
    if rule_of(model) == "bp":
        return False
    x = torch.full((1, *model.input_shape), 0.5, device=model.device)
    found = []
    for step in (0, 1):
        redraw_feedback(model, 0, 0, step)
        x.requires_grad_(True)
        with frozen(model), torch.enable_grad():
            found.append(torch.autograd.grad(model(x).sum(), x)[0])
    return not torch.equal(*found)
