"""The exact gradient of a converted model: bound at forward, nested, safe, and the model's own affair."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from hashrobust.rules import convert, exact_gradient


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))


def input_gradient(model: nn.Module) -> Tensor:
    x = torch.ones(2, 1, 4, 4, requires_grad=True)
    model(x).square().sum().backward()
    return x.grad


@pytest.fixture(name="gradients", params=["fa", "usf", "brsf", "frsf"])
def _gradients(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Tensor]:
    model = network()
    exact = input_gradient(model)
    convert(model, request.param)
    rule = input_gradient(model)
    assert not torch.allclose(exact, rule)
    return model, exact, rule


def test_inside_it_is_backpropagation(gradients: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, exact, rule = gradients
    with exact_gradient(model):
        assert torch.equal(input_gradient(model), exact)
    assert torch.equal(input_gradient(model), rule)


def test_the_graph_remembers_where_it_was_built(gradients: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, exact, rule = gradients
    x_in, x_out = (torch.ones(2, 1, 4, 4, requires_grad=True) for _ in range(2))
    outside = model(x_out).square().sum()
    with exact_gradient(model):
        inside = model(x_in).square().sum()
        outside.backward()
    inside.backward()
    assert torch.equal(x_in.grad, exact)
    assert torch.equal(x_out.grad, rule)


def test_contexts_nest_and_survive_exceptions(gradients: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, exact, rule = gradients
    with exact_gradient(model):
        with pytest.raises(ZeroDivisionError), exact_gradient(model):
            raise ZeroDivisionError
        assert torch.equal(input_gradient(model), exact)
    assert torch.equal(input_gradient(model), rule)


def test_other_models_and_copies_are_not_concerned(gradients: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, _, rule = gradients
    other = copy.deepcopy(model)
    with exact_gradient(model):
        inner = copy.deepcopy(model)
        assert torch.equal(input_gradient(other), rule)
        assert torch.equal(input_gradient(inner), rule)
    assert torch.equal(input_gradient(inner), rule)


def test_a_part_of_a_model(gradients: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, exact, rule = gradients
    with exact_gradient(model[0]):
        mixed = input_gradient(model)
    assert not torch.allclose(mixed, exact)
    assert not torch.allclose(mixed, rule)


def test_conversion_inside_the_context(gradients: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, exact, _ = gradients
    with exact_gradient(model):
        convert(model, "bp")
        convert(model, "usf", seed=1)
        assert torch.equal(input_gradient(model), exact)
    assert not torch.equal(input_gradient(model), exact)


def test_plain_models_pass_through_and_are_not_kept_alive() -> None:
    model = network()
    exact = input_gradient(model)
    with exact_gradient(model):
        assert torch.equal(input_gradient(model), exact)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_exact_gradients_allow_second_derivatives() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    convert(model, "frsf")
    with exact_gradient(model):
        assert torch.autograd.gradgradcheck(model, torch.randn(2, 3, dtype=torch.float64, requires_grad=True))
