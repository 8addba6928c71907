"""Whole networks: the error that reaches every layer against two slow references of other construction."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.rules import convert, exact_gradient, feedback_state

FEEDBACK_RULES = ["fa", "usf", "brsf", "frsf"]


class Tangle(nn.Module):
    """Residual, grouped, depthwise and shared layers, and normalisation between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding="same", bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, stride=2, groups=4, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 2, groups=8, dilation=2)
        self.hidden = nn.Linear(8 * 4, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.stem(x)))
        x = x + torch.tanh(self.shared(x))
        x = x + torch.tanh(self.shared(x))
        x = torch.relu(self.depthwise(self.grouped(x)))
        return self.head(torch.sigmoid(self.hidden(x.flatten(1))))


class Twin(nn.Module):
    """A layer with W for the value and V for the derivative, by arithmetic alone."""

    def __init__(self, plain: nn.Module, v: Tensor) -> None:
        super().__init__()
        self.own = plain
        self.carrier = copy.deepcopy(plain).requires_grad_(False)
        self.carrier.weight.copy_(v)

    def forward(self, x: Tensor) -> Tensor:
        carried = self.carrier(x)
        return self.own(x.detach()) + (carried - carried.detach())


def twin_of(model: nn.Module, feedback: dict[str, Tensor], rule: str) -> nn.Module:
    twin = copy.deepcopy(model)
    for name, stored in feedback.items():
        layer = twin.get_submodule(name)
        v = stored if rule == "fa" else stored * torch.sign(layer.weight.detach())
        setattr(twin, name, Twin(layer, v))
    return twin


def input_and_parameter_gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    model(x).pow(3).sum().backward()
    found = {name.replace(".own", ""): p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"input": x.grad, **found}


@pytest.mark.parametrize("rule", FEEDBACK_RULES)
@pytest.mark.parametrize("scale", ["xavier", "matched"])
def test_a_network_against_its_twin(rule: str, scale: str) -> None:
    torch.manual_seed(0)
    plain = Tangle().double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    model = copy.deepcopy(plain)
    report = convert(model, rule, seed=5, scale=scale)
    assert report.converted == ("stem", "shared", "grouped", "depthwise", "hidden", "head")
    state = {name: v for name, v in feedback_state(model).items() if not name.endswith(".norm")}
    found = input_and_parameter_gradients(model, x)
    expected = input_and_parameter_gradients(twin_of(plain, state, rule), x)
    exact = input_and_parameter_gradients(plain, x)
    assert set(found) == set(expected) == set(exact)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
        if not name.startswith("head"):  # the error has passed a feedback weight
            assert not torch.allclose(gradient, exact[name], rtol=1e-2), name
    with exact_gradient(model):
        for name, gradient in input_and_parameter_gradients(model, x).items():
            torch.testing.assert_close(gradient, exact[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("rule", FEEDBACK_RULES)
def test_a_perceptron_against_numpy(rule: str) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    convert(model, rule, seed=1)
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    model(x).square().sum().backward()

    layers = [model[i] for i in (0, 2, 4)]
    weights = [layer.weight.detach().numpy() for layer in layers]
    stored = [feedback_state(model)[name].numpy() for name in "024"]
    feedback = [m if rule == "fa" else m * np.sign(w) for m, w in zip(stored, weights, strict=True)]
    values = [x.detach().numpy()]
    for i, layer in enumerate(layers):
        y = values[-1] @ weights[i].T + layer.bias.detach().numpy()
        values.append(np.tanh(y) if i < 2 else y)
    delta = 2 * values[-1]
    for i in (2, 1, 0):
        np.testing.assert_allclose(layers[i].weight.grad.numpy(), delta.T @ values[i], rtol=1e-10)
        np.testing.assert_allclose(layers[i].bias.grad.numpy(), delta.sum(0), rtol=1e-10)
        delta = delta @ feedback[i]
        if i:
            delta = delta * (1 - values[i] ** 2)
    np.testing.assert_allclose(x.grad.numpy(), delta, rtol=1e-10)


def test_training_goes_on_through_optimizers_and_in_place_activations() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 36, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)  # made before the conversion, on purpose
    convert(model, "frsf")
    x, labels = torch.randn(32, 1, 8, 8), torch.arange(32) % 2
    x[labels == 1] += 0.5
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
