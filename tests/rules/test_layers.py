"""One layer against plain PyTorch: forward, dW and db as there, dx as in a twin layer that holds V."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hashrobust.errors import InputError
from hashrobust.rules import Rule, convert, feedback_state, load_feedback_state, rules
from hashrobust.rules._steps import _scratch

FEEDBACK_RULES = ["fa", "usf", "brsf", "frsf"]
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


class Symmetric(Rule):
    """V = W by the feedback path: everything must then be backpropagation."""

    def feedback(self, weight: Tensor, drawn: Tensor | None, out: Tensor) -> Tensor:
        return out.copy_(weight)


@pytest.fixture(autouse=True, scope="module")
def _symmetric_rule() -> Iterator[None]:
    """Known in this module only: other tests go through all registered rules."""
    rules.register("test-symmetric")(Symmetric)
    yield
    del rules._builders["test-symmetric"]


def expected_v(layer: nn.Module, rule: str) -> Tensor:
    """V from its formula and what the layer has stored."""
    weight = layer.weight.detach()
    if rule == "test-symmetric":
        return weight
    stored = feedback_state(layer)[""]
    return stored if rule == "fa" else stored * torch.sign(weight)


def gradients(layer: nn.Module, x: Tensor, delta: Tensor, autocast: bool = False) -> list[Tensor]:
    """Output, dL/dx, dL/dW and (if there is a bias) dL/db."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    y.backward(delta.to(y.dtype))
    return [y.detach(), x.grad, *[parameter.grad.clone() for parameter in layer.parameters()]]


def check_layer(plain: nn.Module, x: Tensor, rule: str, autocast: bool = False) -> None:
    converted = copy.deepcopy(plain)
    convert(converted, rule, seed=3)
    twin = copy.deepcopy(plain)
    with torch.no_grad():
        twin.weight.copy_(expected_v(converted, rule))
    with torch.no_grad():
        delta = torch.randn_like(plain(x))
    out, dx, *rest = gradients(converted, x, delta, autocast)
    plain_out, plain_dx, *plain_rest = gradients(plain, x, delta, autocast)
    close = {"rtol": 0.02, "atol": 0.02} if autocast else {}
    if x.dtype == torch.float32 and not autocast:
        close = {"rtol": 1e-4, "atol": 1e-5}
    assert torch.equal(out, plain_out)
    assert out.dtype == plain_out.dtype
    for gradient, plain_gradient in zip(rest, plain_rest, strict=True):
        torch.testing.assert_close(gradient, plain_gradient, **close)
    torch.testing.assert_close(dx, gradients(twin, x, delta, autocast)[1], **close)
    if rule == "test-symmetric":
        torch.testing.assert_close(dx, plain_dx, **close)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    dim = draw(st.sampled_from([1, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 2, 4]))  # 4 is depthwise
    stride = draw(st.integers(1, 3))
    padding = draw(st.sampled_from([0, 1, 2, "valid", "same"]))
    if padding == "same":
        stride = 1
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    layer = CONVOLUTIONS[dim](
        4,
        draw(st.sampled_from([4, 8])),
        tuple(draw(st.integers(1, 4)) for _ in range(dim)),
        stride=stride,
        padding=padding,
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "zeros", "reflect", "circular", "replicate"])),
        dtype=dtype,
    )
    batch = draw(st.sampled_from([(), (1,), (3,)]))
    if layer.padding_mode != "zeros":
        batch = batch or (2,)  # F.pad takes no unbatched input in every mode
    return layer, torch.randn(*batch, 4, *[draw(st.integers(7, 9)) for _ in range(dim)], dtype=dtype)


@settings(max_examples=60, deadline=None)
@given(case=convolutions(), rule=st.sampled_from([*FEEDBACK_RULES, "test-symmetric"]))
def test_convolution(case: tuple[nn.Module, Tensor], rule: str) -> None:
    check_layer(*case, rule)


@settings(max_examples=25, deadline=None)
@given(case=convolutions(), rule=st.sampled_from(FEEDBACK_RULES))
def test_convolution_under_autocast(case: tuple[nn.Module, Tensor], rule: str) -> None:
    check_layer(*case, rule, autocast=True)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from([(), (1,), (5,), (2, 3), (2, 1, 3)]),
    bias=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    rule=st.sampled_from([*FEEDBACK_RULES, "test-symmetric"]),
    autocast=st.booleans(),
)
def test_linear(shape: tuple[int, ...], bias: bool, dtype: torch.dtype, rule: str, autocast: bool) -> None:
    torch.manual_seed(1)
    check_layer(nn.Linear(7, 5, bias, dtype=dtype), torch.randn(*shape, 7, dtype=dtype), rule, autocast)


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
@pytest.mark.parametrize("padding", [2, "same"])
def test_padding_modes_in_two_dimensions(mode: str, padding: int | str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, (4, 3), padding=padding, padding_mode=mode, dtype=torch.float64)
    check_layer(layer, torch.randn(2, 2, 6, 5, dtype=torch.float64), "frsf")


@pytest.mark.parametrize("rule", FEEDBACK_RULES)
def test_channels_last(rule: str) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, padding=1).to(memory_format=torch.channels_last)
    check_layer(plain, torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last), rule)
    converted = nn.Conv2d(4, 6, 3)
    convert(converted, rule)
    x, delta = torch.randn(2, 4, 8, 8), torch.randn(2, 6, 6, 6)
    before = gradients(converted, x, delta)
    after = gradients(converted.to(memory_format=torch.channels_last), x, delta)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, (3, 2)), nn.Linear(8, 3)])
def test_a_batch_of_no_images(layer: nn.Module) -> None:
    check_layer(layer, torch.randn(0, 4, 8, 8), "frsf")


@pytest.mark.parametrize("rule", ["usf", "brsf", "frsf"])
def test_zero_weights_carry_no_error(rule: str) -> None:
    layer = nn.Linear(3, 1, bias=False)
    convert(layer, rule)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 1.0, -1.0]]))
    x = torch.ones(1, 3, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad[0, 0] == 0
    assert x.grad[0, 1] > 0 > x.grad[0, 2]


def test_the_sign_is_that_of_the_current_weight() -> None:
    layer = nn.Linear(6, 4, bias=False)
    convert(layer, "frsf")
    x = torch.ones(2, 6)
    before = gradients(layer, x, torch.ones(2, 4))[1]
    with torch.no_grad():
        layer.weight.neg_()
    assert torch.equal(gradients(layer, x, torch.ones(2, 4))[1], -before)


def test_a_weight_changed_between_forward_and_backward_is_refused_as_by_plain_layers() -> None:
    layer = nn.Linear(6, 4)
    convert(layer, "usf")
    y = layer(torch.ones(2, 6, requires_grad=True))
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("plain", [nn.Conv2d(3, 4, 3), nn.Linear(6, 4)])
def test_frozen_weights_get_no_gradient_and_dx_is_unchanged(plain: nn.Module) -> None:
    layer = copy.deepcopy(plain)
    convert(layer, "frsf")
    x = torch.randn(2, 3, 6, 6)
    delta = torch.randn_like(layer(x))
    dx = gradients(layer, x, delta)[1]
    layer.zero_grad()
    layer.requires_grad_(False)
    x.requires_grad_()
    layer(x).backward(delta)
    assert layer.weight.grad is None
    assert layer.bias.grad is None
    torch.testing.assert_close(x.grad, dx, rtol=1e-4, atol=1e-5)


def test_frozen_weights_are_not_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The convolution's weight gradient is not asked for, and the linear layer's input is not kept."""
    layer = nn.Linear(6, 4).requires_grad_(False)
    convert(layer, "frsf")
    saved: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        layer(torch.ones(9, 6, requires_grad=True))
    assert (9, 6) not in saved
    conv = nn.Conv2d(5, 3, 3).requires_grad_(False)
    convert(conv, "frsf")
    y = conv(torch.ones(1, 5, 5, 5, requires_grad=True))
    with torch.profiler.profile(record_shapes=True) as profile:
        y.sum().backward()
    calls = [event for event in profile.events() if event.name == "aten::convolution_backward"]
    assert len(calls) == 1
    assert list(calls[0].concrete_inputs[-1])[1:] == [False, False]


def test_an_input_without_gradient_gives_weight_gradients_alone() -> None:
    plain, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 6, 6)
    layer = copy.deepcopy(plain)
    convert(layer, "fa")
    layer(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert torch.equal(layer.weight.grad, plain.weight.grad)


def test_a_second_derivative_is_refused() -> None:
    layer = nn.Linear(3, 2)
    convert(layer, "usf")
    x = torch.ones(1, 3, requires_grad=True)
    (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_layers_of_different_sizes_and_types_share_no_feedback() -> None:
    """The memory that V is computed in is reused; results of interleaved layers must not depend on it."""
    torch.manual_seed(0)
    layers = [nn.Linear(n, n + 1, dtype=t) for n in (3, 40, 7) for t in (torch.float32, torch.float64)]
    for layer in layers:
        check_layer(layer, torch.randn(2, layer.in_features, dtype=layer.weight.dtype), "usf")
        check_layer(layer, torch.randn(2, layer.in_features, dtype=layer.weight.dtype), "frsf")


def test_loaded_feedback_is_what_travels() -> None:
    layer = nn.Linear(3, 2, bias=False)
    convert(layer, "fa")
    v = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    load_feedback_state(layer, {"": v})
    x = torch.ones(1, 3, requires_grad=True)
    layer(x).backward(torch.tensor([[1.0, 10.0]]))
    assert x.grad.tolist() == [[41.0, 52.0, 63.0]]


def test_a_matched_norm_needs_weights() -> None:
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    with pytest.raises(InputError, match="zero weights"):
        convert(layer, "frsf", scale="matched")
    assert type(layer) is nn.Linear


def test_the_memory_of_v_is_cut_to_each_layer() -> None:
    """Otherwise torch resizes it, with a warning, each time."""
    layers = [nn.Linear(9, 8), nn.Conv2d(1, 2, 3), nn.Linear(2, 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer, x in zip(
            layers, (torch.ones(2, 9), torch.ones(2, 1, 3, 3), torch.ones(2, 2)), strict=True
        ):
            convert(layer, "frsf")
            layer(x.requires_grad_()).sum().backward()


def test_the_memory_of_v_is_one_for_all_layers_and_never_the_weight() -> None:
    large, small = torch.ones(6, 5), torch.ones(3, 2)
    places = {_scratch.like(weight).data_ptr() for weight in (large, small, large)}
    assert len(places) == 1 and large.data_ptr() not in places
    elsewhere = torch.ones(2, 3, device="meta")  # as accelerators: not kept
    found = _scratch.like(elsewhere)
    assert found is not elsewhere and found.shape == (2, 3) and found.device == elsewhere.device


def test_weights_that_lie_apart_in_memory() -> None:
    layer = nn.Linear(4, 3, bias=False)
    convert(layer, "frsf")
    layer.weight = nn.Parameter(torch.randn(3, 400)[:, ::100])
    x, delta = torch.ones(2, 4), torch.randn(2, 3)
    torch.testing.assert_close(gradients(layer, x, delta)[1], delta @ expected_v(layer, "frsf"))
