"""The error by a rule beside the exact one, layer by layer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from hashrobust.rules import convert, signal_agreement


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 9), nn.Softplus(), nn.Linear(9, 7), nn.Softplus(), nn.Linear(7, 5))


def converted(scale: float = 1.0) -> nn.Sequential:
    """By frsf, with outputs times `scale`: a factor behind the last layer, so that feedback is the same."""
    return nn.Sequential(*_by_rule(network()), _Times(scale))


def _by_rule(model: nn.Sequential) -> nn.Sequential:
    convert(model, "frsf", seed=1)
    return model


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, z: Tensor) -> Tensor:
        return self.factor * z


def test_errors_are_those_of_the_two_backward_passes() -> None:
    model, images = converted(), torch.randn(6, 12)
    plain = copy.deepcopy(model)
    convert(plain, "bp")
    errors = []
    for net in (model, plain):
        x = images.clone().requires_grad_()
        z = net(x)
        own = torch.where(z >= 0, 1.0, -1.0)
        (torch.tanh(z / z.detach().abs().mean(dim=1, keepdim=True)) * own).sum().backward()
        errors.append(x.grad)
    found = signal_agreement(model, images)
    assert [(layer.layer, layer.depth) for layer in found] == [("4", 1), ("2", 2), ("0", 3)]
    by_rule, exact = errors
    assert found[-1].cosine == pytest.approx(float(torch.cosine_similarity(by_rule, exact).mean()), abs=1e-5)
    assert found[-1].norm_ratio == pytest.approx(
        float((by_rule.norm(dim=1) / exact.norm(dim=1)).mean()), rel=1e-4
    )
    assert found[-1].sign_agreement == pytest.approx(float((by_rule.sign() == exact.sign()).double().mean()))


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_scale_of_outputs_does_not_matter(scale: float) -> None:
    """tanh of large outputs has no gradient to compare."""
    images = torch.randn(6, 12)
    for one, other in zip(
        signal_agreement(converted(), images), signal_agreement(converted(scale), images), strict=True
    ):
        assert other.cosine == pytest.approx(one.cosine, abs=1e-4) and 0.1 < abs(one.cosine) < 0.9999
        assert other.norm_ratio == pytest.approx(one.norm_ratio, rel=1e-3)


def test_a_layer_that_is_called_by_keyword_is_left_out() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(12, 9), nn.Linear(9, 5)

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.last(input=self.first(x))
            return z

    model = Named()
    convert(model, "usf")
    assert [layer.layer for layer in signal_agreement(model, torch.randn(3, 12))] == ["first"]
