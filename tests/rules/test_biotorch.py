"""Agreement with BioTorch where it is right, and the mistakes of it that must not come back."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor, nn

from hashrobust.rules import convert, load_feedback_state

pytest.importorskip("biotorch")


def peer(rule: str, layer: nn.Module) -> nn.Module:
    """BioTorch's layer with the same weights."""
    kind = type(layer).__name__
    module = importlib.import_module(f"biotorch.layers.{rule}.{'conv' if kind == 'Conv2d' else 'linear'}")
    if isinstance(layer, nn.Conv2d):
        made = module.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
    else:
        made = module.Linear(layer.in_features, layer.out_features)
    with torch.no_grad():
        made.weight.copy_(layer.weight)
        made.bias.copy_(layer.bias)
    return made


def gradients(layer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    y = layer(x)
    y.pow(3).sum().backward()
    return y.detach(), x.grad, layer.weight.grad, layer.bias.grad


@pytest.mark.parametrize("rule", ["fa", "usf", "frsf"])
@pytest.mark.parametrize(
    "layer",
    [nn.Linear(9, 7), nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)],
    ids=["linear", "conv", "conv-grouped"],
)
def test_agreement(rule: str, layer: nn.Module) -> None:
    torch.manual_seed(0)
    other = peer(rule, layer)
    ours = type(layer)(*([9, 7] if isinstance(layer, nn.Linear) else [4, 6, 3]))
    if isinstance(layer, nn.Conv2d):
        ours = nn.Conv2d(4, 6, 3, layer.stride, layer.padding, layer.dilation, layer.groups)
    ours.load_state_dict(layer.state_dict())
    convert(ours, rule)
    if rule != "usf":
        load_feedback_state(ours, {"": other.weight_backward.detach()})
    x = torch.randn(3, 9) if isinstance(layer, nn.Linear) else torch.randn(3, 4, 9, 9)
    for found, expected in zip(gradients(ours, x), gradients(other, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_padding_mode_is_kept() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
    x = torch.randn(1, 1, 5, 5, requires_grad=True)
    plain = layer(x)
    convert(layer, "frsf")
    assert torch.equal(layer(x), plain)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kernel", [3, 4])
def test_same_padding_trains(kernel: int) -> None:
    layer = nn.Conv2d(1, 2, kernel, padding="same")
    convert(layer, "brsf")
    x = torch.randn(1, 1, 6, 6, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.shape == x.shape
    assert layer.weight.grad.abs().sum() > 0
