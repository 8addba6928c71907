"""Convolutions over maps of very few pixels are matrices, and give what torch's give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hashrobust.rules import convert, exact_gradient, fix_weights, redraw_feedback
from hashrobust.rules._small_maps import as_matrix

PAIR = st.integers(1, 5)


@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.tuples(PAIR, PAIR),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_matrix_is_the_convolution_of_torch(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    seed: int,
) -> None:
    assume(all(s + 2 * p >= k for s, p, k in zip(size, padding, kernel, strict=True)))
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 3, *kernel, dtype=torch.float64, generator=generator)
    expected = F.conv2d(maps, weight, stride=stride, padding=padding)
    matrix = as_matrix(weight, torch.Size(size), stride, padding)
    found = maps.flatten(1) @ matrix.T
    assert torch.allclose(found.view(expected.shape), expected, rtol=0, atol=1e-12)


class Convolutions(TorchDispatchMode):
    """Counts those that torch computes."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "convolution" in str(func)
        return func(*args, **(kwargs or {}))


LAYERS = {
    "plain": ({}, (2, 2), True),
    "one pixel": ({}, (1, 1), True),
    "a row": ({"bias": False}, (1, 4), True),
    "stride": ({"stride": 2}, (2, 2), True),
    "uneven": ({"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)}, (1, 4), True),
    "tall": ({"kernel_size": (5, 1), "padding": (2, 0)}, (2, 2), True),
    "narrow": ({"kernel_size": (3, 1), "padding": (1, 0)}, (2, 2), False),
    "more pixels": ({}, (3, 3), False),
    "a long row": ({}, (1, 5), False),
    "groups": ({"groups": 3}, (2, 2), False),
    "dilation": ({"dilation": 2, "padding": 2}, (2, 2), False),
    "same": ({"padding": "same"}, (2, 2), False),
    "circular": ({"padding_mode": "circular"}, (2, 2), False),
    "one weight a pixel": ({"kernel_size": 1, "padding": 0}, (1, 1), False),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rule", ["bp", "frsf", "brsf"])
def test_a_layer_of_fixed_weights_gives_the_same_in_fewer_products(rule: str, name: str) -> None:
    torch.manual_seed(0)
    options, size, small = LAYERS[name]
    layer = nn.Conv2d(6, 9, **{"kernel_size": 3, "padding": 1} | options)
    fixed = nn.Conv2d(6, 9, **{"kernel_size": 3, "padding": 1} | options)
    fixed.load_state_dict(layer.state_dict())
    for model in (layer, fixed):
        convert(model, rule, seed=3)
        model.requires_grad_(False)
    fix_weights(fixed)
    for key in (7, 8):  # brSF draws anew
        images = torch.rand(2, 6, *size)
        for exact in (False, True):
            outputs, gradients, counts = [], [], []
            for model in (layer, fixed):
                redraw_feedback(model, key)
                x = images.clone().requires_grad_()
                with Convolutions() as counted:
                    if exact:
                        with exact_gradient(model):
                            output = model(x)
                    else:
                        output = model(x)
                    gradients.append(torch.autograd.grad(output.sin().sum(), x)[0])
                outputs.append(output.detach())
                counts.append(counted.count)
            torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
            assert float(gradients[0].abs().max()) > 0.01
            assert counts[0] > 0 and (counts[1] == 0) == (small and (exact or rule != "brsf"))
    assert torch.allclose(layer(images), fixed(images), atol=1e-6)


def test_other_maps_and_other_feedback_have_other_matrices() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 9, 3, padding=1).requires_grad_(False)
    convert(layer, "frsf")
    fix_weights(layer)
    for size in ((1, 1), (2, 2), (2, 1)):
        for seed in (0, 1):
            convert(layer, "frsf", seed=seed)
            twin = nn.Conv2d(6, 9, 3, padding=1)
            twin.load_state_dict(layer.state_dict())
            convert(twin, "frsf", seed=seed)
            fix_weights(layer)
            x = torch.rand(2, 6, *size, requires_grad=True)
            found, expected = (torch.autograd.grad(each(x).sum(), x)[0] for each in (layer, twin))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
