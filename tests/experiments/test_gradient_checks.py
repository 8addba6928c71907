"""What attacks record of gradients, for outputs of any size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hashrobust.experiments.audit.model_facts import _gradient_repeats
from hashrobust.experiments.gradient_checks import difference_facts, gradient_facts
from hashrobust.models import ForeignClassifier, ForeignModel

SHAPE = (1, 8, 8)


class Wrong(torch.autograd.Function):
    """The identity, with a backward pass that keeps the gradient of some pixels and turns that of others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.linspace(-1, 1, gradient.shape[-1], dtype=gradient.dtype)


class Rescaled(nn.Module):
    """The answers of one small network, times a factor, and more by an offset."""

    def __init__(self, scale: float, offset: float, wrong: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Softplus(), nn.Linear(16, 8))
        self.scale, self.offset, self.wrong = scale, offset, wrong

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.scale * (self.net(Wrong.apply(x) if self.wrong else x) + self.offset)
        return z


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [ForeignModel, ForeignClassifier])
@pytest.mark.parametrize(("scale", "offset"), [(1e-9, 0.0), (1e9, 0.0), (1.0, 30.0)])
def test_wrong_gradients_are_found_whatever_the_size_of_outputs(
    kind: Any, scale: float, offset: float, images: Tensor
) -> None:
    right, wrong = (
        difference_facts(kind(Rescaled(scale, offset, wrong), SHAPE), images, 8 / 255)
        for wrong in (False, True)
    )
    assert right["gradient_check_passed"] and right["gradient_check_cosine"] > 0.9999
    assert not wrong["gradient_check_passed"] and wrong["gradient_check_cosine"] < 0.9


@pytest.mark.parametrize("kind", [ForeignModel, ForeignClassifier])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_agreement_of_two_gradients_does_not_depend_on_the_size_of_outputs(
    kind: Any, scale: float, images: Tensor
) -> None:
    exact, wrong = (kind(Rescaled(scale, 0.0, wrong), SHAPE) for wrong in (False, True))
    plain = [kind(Rescaled(1.0, 0.0, wrong), SHAPE) for wrong in (False, True)]
    own = gradient_facts(exact, exact, images, {})
    assert own["gradient_cosine"] == pytest.approx(1) and own["gradient_sign_agreement"] == 1
    found, expected = gradient_facts(exact, wrong, images, {}), gradient_facts(*plain, images, {})
    assert found["gradient_cosine"] == pytest.approx(expected["gradient_cosine"], abs=1e-4) and (
        abs(expected["gradient_cosine"]) < 0.9
    )


def test_a_gradient_that_does_not_repeat_is_seen_through_large_outputs(images: Tensor) -> None:
    class Random(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient + gradient.abs().mean() * torch.randn_like(gradient)

    steady = Rescaled(1e9, 0.0)
    assert _gradient_repeats(ForeignModel(steady, SHAPE), images)
    assert not _gradient_repeats(ForeignModel(lambda x: steady(Random.apply(x)), SHAPE), images)
