"""Faults planted in models and attacks: the audit, told nothing, must see each; without the fault it passes.

The models go through the public `audit` as foreign callables, the attacks as plug-ins.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashrobust as hr
from hashrobust.attacks import Attack, AttackResult, attacks
from hashrobust.attacks.center import Center
from hashrobust.experiments.audit import AuditReport

from .conftest import trained

Function = Callable[[Tensor], Tensor]


class Wrapped(nn.Module):
    """The model with something before it."""

    def __init__(self, model: nn.Module, before: Function) -> None:
        super().__init__()
        self.model, self.before = model, before

    def forward(self, images: Tensor) -> Tensor:
        z: Tensor = self.model(self.before(images))
        return z


class _Backward(torch.autograd.Function):
    """The identity with another backward pass."""

    @staticmethod
    def forward(context: Any, images: Tensor, backward: Function) -> Tensor:
        context.change = backward
        return images.clone()

    @staticmethod
    def backward(context: Any, error: Tensor) -> Any:
        return context.change(error), None


class _StraightThrough(torch.autograd.Function):
    """Rounds; pretends that it did not, and twice over for every other pixel."""

    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:
        return (4 * images).round() / 4

    @staticmethod
    def backward(context: Any, error: Tensor) -> Any:
        factor = torch.ones_like(error)
        factor[..., ::2] = -2
        return error * factor


class _Dropping(nn.Dropout):
    """Never hears of eval mode."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(images, 0.2, training=True)


def _saturated(model: nn.Module) -> nn.Module:
    class Saturated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> Tensor:
            return torch.tanh(1e4 * self.model(images))

    return Saturated()


def _half_detached(model: nn.Module) -> nn.Module:
    def before(images: Tensor) -> Tensor:
        return torch.cat([images[..., :4].detach(), images[..., 4:]], dim=-1)

    return Wrapped(model, before)


def _resized(images: Tensor) -> Tensor:
    size = int(torch.randint(6, 9, ()))
    small = nn.functional.interpolate(images, size=(size, size))
    return nn.functional.interpolate(small, size=(8, 8))


# Each with the check that must catch it.
MODELS: dict[str, tuple[Callable[[nn.Module], Function], str]] = {
    "sign-flipped backward": (
        lambda m: Wrapped(m, lambda x: _Backward.apply(x, torch.neg)), "finite differences"
    ),
    "backward zeroed": (
        lambda m: Wrapped(m, lambda x: _Backward.apply(x, torch.zeros_like)), "zero or non-finite gradients"
    ),
    "saturation": (_saturated, "zero or non-finite gradients"),
    "rounding": (lambda m: Wrapped(m, lambda x: (4 * x).round() / 4), "zero or non-finite gradients"),
    "random noise": (lambda m: Wrapped(m, lambda x: x + 0.2 * torch.randn_like(x)), "determinism"),
    "random resize": (lambda m: Wrapped(m, _resized), "determinism"),
    "dropout left on": (lambda m: Wrapped(m, _Dropping()), "determinism"),
    "wrong straight-through": (
        lambda m: Wrapped(m, lambda x: _StraightThrough.apply(x)), "finite differences"
    ),
    "detached path": (_half_detached, "finite differences"),
    "no path": (lambda m: lambda x: m(x.detach()), "attacks"),
    "no graph": (lambda m: lambda x: m(x).detach(), "attacks"),
}  # fmt: skip


@pytest.mark.parametrize("fault", MODELS)
def test_a_planted_fault_of_a_model_is_caught(
    fault: str, plain: hr.HashModel, audited: Callable[..., AuditReport]
) -> None:
    plant, check = MODELS[fault]
    report = audited(plant(deepcopy(plain)))
    assert report.status(check) == "FAIL", str(report)
    assert report.verdict == "FAIL"


def test_the_model_without_a_fault_passes(plain: hr.HashModel, audited: Callable[..., AuditReport]) -> None:
    models = {"itself": plain, "wrapped": Wrapped(deepcopy(plain), nn.Identity())}
    for name, model in models.items():  # models of equal answers under one name would be one run
        report = audited(model, name=name)
        assert report.verdict == "PASS", str(report)


def test_random_feedback_is_caught_and_passes_by_backpropagation(
    data: Any, plain: hr.HashModel, audited: Callable[..., AuditReport]
) -> None:
    model = trained(data, rule="fa")
    report = audited(model, control=plain)
    assert report.status("masking") == "FAIL" and report.verdict == "FAIL", str(report)
    assert report.headline["rule_map"] > report.headline["exact_map"] + 0.1
    hr.convert(model, "bp")
    healed = audited(model, control=plain, restarts=8)  # its attack converges later, as the audit tells
    assert healed.status("masking") == "PASS" and healed.verdict == "PASS", str(healed)


def test_a_surrogate_that_answers_from_a_cache_is_caught(
    plain: hr.HashModel, twin: hr.HashModel, audited: Callable[..., AuditReport]
) -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.answers = deepcopy(twin), {}

        def forward(self, images: Tensor) -> Tensor:
            if len(images) not in self.answers:
                self.answers[len(images)] = self.model(images).detach()
            return self.answers[len(images)] + 0 * images.sum()

    report = audited(plain, control=Cached())
    assert report.status("control answers") == "FAIL" and report.verdict == "FAIL", str(report)


@dataclass(frozen=True, kw_only=True)
class SignError(Center):
    """Goes up instead of down."""

    def objective(self, u: Tensor, images: Tensor, clean: Any, state: Any) -> Tensor:
        return -super().objective(u, images, clean, state)

    def hard_objective(self, codes: Tensor, clean: Any, state: Any) -> Tensor:
        return -super().hard_objective(codes, clean, state)


@dataclass(frozen=True, kw_only=True)
class FirstIterate(Center):
    """Throws away what it found."""

    def perturb(self, model: Any, clean: Any, labels: Any, context: Any) -> AttackResult:
        from dataclasses import replace

        from hashrobust.attacks import ball, project, uniform_noise

        found = super().perturb(model, clean, labels, context)
        noise = uniform_noise(clean.images, context.ids, "start", self.seed, 0)
        first = project(clean.images + self.epsilon * noise, *ball(clean.images, self.epsilon))
        return replace(found, images=first)


@dataclass(frozen=True, kw_only=True)
class LeavesTheBall(Center):
    """Takes twice what it may, and no check."""

    def run(self, model: Any, images: Tensor, *, labels: Any = None, context: Any = None) -> AttackResult:
        from dataclasses import replace

        found = super().run(model, images, labels=labels, context=context)
        return replace(found, images=(images + 2 * (found.images - images)).clamp(0, 1))


PLUGINS: dict[str, tuple[type[Attack], tuple[str, ...]]] = {
    "planted-sign-error": (SignError, ("control", "black box vs white box", "epsilon 0.5")),
    "planted-first-iterate": (FirstIterate, ("control", "black box vs white box", "epsilon 0.5")),
    "planted-out-of-ball": (LeavesTheBall, ("attacks",)),
}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_planted_fault_of_an_attack_is_caught(
    name: str, plain: hr.HashModel, audited: Callable[..., AuditReport]
) -> None:
    kind, checks = PLUGINS[name]
    if name not in attacks:
        attacks.register(name)(kind)
    report = audited(plain, attack=name)
    assert [report.status(check) for check in checks] == ["FAIL"] * len(checks), str(report)
    assert report.verdict == "FAIL"
