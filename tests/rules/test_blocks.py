"""The gradient to images in blocks of pixels is that of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hashrobust.rules import convert, exact_gradient, fix_weights
from hashrobust.rules._blocks import Geometry, block_size, gradient_in_blocks


def check_gradient(
    channels: int,
    kernel: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
    size: tuple[int, int],
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, channels, *size, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(3, channels, *kernel, dtype=torch.float64, generator=generator)
    output = torch.nn.functional.conv2d(images, weight, stride=stride, padding=padding)
    delta = torch.randn(output.shape, dtype=torch.float64, generator=generator)
    (expected,) = torch.autograd.grad(output, images, delta)
    geometry = Geometry((stride, stride), padding, (1, 1), 1)
    block = block_size(weight, geometry)
    assert block is not None and block % stride == 0
    found = gradient_in_blocks(delta, weight, size, geometry, block)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@settings(max_examples=300, deadline=None)
@given(
    channels=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.integers(1, 5),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    more=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_the_gradient_of_torch(
    channels: int,
    kernel: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
    more: tuple[int, int],
    seed: int,
) -> None:
    height, width = (max(1, k - 2 * p) + m for k, p, m in zip(kernel, padding, more, strict=True))
    check_gradient(channels, kernel, stride, padding, (height, width), seed)


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding", "size"),
    [
        (3, (3, 3), 1, (1, 1), (6, 7)),
        (3, (7, 7), 2, (3, 3), (9, 8)),
        (4, (2, 5), 1, (0, 2), (5, 5)),
        (2, (1, 4), 2, (2, 0), (4, 9)),
        (1, (5, 1), 3, (4, 1), (7, 3)),
        (1, (2, 3), 4, (0, 3), (10, 13)),
        (3, (1, 1), 3, (0, 0), (8, 8)),
    ],
)
def test_it_is_the_gradient_of_torch_for_usual_and_odd_shapes(
    channels: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int], size: tuple[int, int]
) -> None:
    check_gradient(channels, kernel, stride, padding, size, 0)


def test_few_channels_are_at_most_four_and_on_the_processor() -> None:
    geometry = Geometry((1, 1), (0, 0), (1, 1), 1)
    blocks = [block_size(torch.ones(2, channels, 3, 3), geometry) for channels in range(1, 6)]
    assert blocks == [4, 3, 2, 2, None]
    assert block_size(torch.ones(2, 3, 3, 3, device="meta"), geometry) is None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(5, 4, 3),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.Conv2d(3, 4, 3, dilation=(2, 1)),
        nn.Conv2d(3, 4, 3, dilation=(1, 2)),
        nn.Conv2d(3, 4, 3, stride=(1, 2)),
        nn.Conv1d(3, 4, 3),
        nn.Conv3d(3, 4, 3),
    ],
)
def test_other_convolutions_go_torch_s_way(layer: nn.Conv2d) -> None:
    geometry = Geometry(layer.stride, layer.padding, layer.dilation, layer.groups)
    assert block_size(layer.weight, geometry) is None


@pytest.mark.parametrize("padding", [1, "same", "valid"])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("rule", ["bp", "frsf"])
def test_a_layer_of_fixed_weights_has_the_same_output_and_gradients(
    rule: str, mode: str, padding: int | str
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, padding=padding, padding_mode=mode)
    fixed = nn.Conv2d(3, 5, 3, padding=padding, padding_mode=mode)
    fixed.load_state_dict(layer.state_dict())
    for model in (layer, fixed):
        convert(model, rule, seed=3)
        model.requires_grad_(False)
    fix_weights(fixed)
    for images in (torch.rand(2, 3, 6, 7), torch.rand(3, 6, 7)):  # the second without a batch
        for exact in (False, True):
            outputs, gradients = [], []
            for model in (layer, fixed):
                x = images.clone().requires_grad_()
                if exact:
                    with exact_gradient(model):
                        output = model(x)
                else:
                    output = model(x)
                outputs.append(output.detach())
                gradients.append(torch.autograd.grad(output.sin().sum(), x)[0])
            assert torch.equal(*outputs)
            assert torch.allclose(*gradients, atol=1e-6)
            assert float(gradients[0].abs().max()) > 0.1


class GradientsByTorch(TorchDispatchMode):
    """Counts the backward passes of convolutions that torch computes in its own way."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.convolution_backward.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", ["bp", "frsf"])
@pytest.mark.parametrize("channels, trained, expected", [(3, False, 0), (3, True, 1), (5, False, 1)])
def test_blocks_are_for_images_and_weights_that_are_not_trained(
    channels: int, trained: bool, expected: int, rule: str
) -> None:
    layer = nn.Conv2d(channels, 2, 3).requires_grad_(trained)
    convert(layer, rule)
    fix_weights(layer)
    with GradientsByTorch() as counted:
        layer(torch.rand(1, channels, 6, 6, requires_grad=True)).sum().backward()
    assert counted.count == expected


def test_a_layer_of_fixed_weights_can_be_given_a_rule_and_made_plain_again() -> None:
    layer = nn.Sequential(nn.Conv2d(1, 2, 3))
    fix_weights(layer)
    for rule in ("frsf", "fa"):
        assert convert(layer, rule).converted == ("0",)
    convert(layer, "bp")
    assert type(layer[0]) is nn.Conv2d
