"""How the rule's error stands to the exact one at each layer: against both errors written out, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.rules import convert, feedback_state, signal_agreement

LAYERS = ("0", "3", "5")


def network() -> nn.Sequential:
    """Its first output is 0 for every image, where sign counts as +1."""
    torch.manual_seed(0)
    convolution, hidden, head = nn.Conv2d(1, 4, 3), nn.Linear(16, 6), nn.Linear(6, 5)
    with torch.no_grad():
        head.weight[0], head.bias[0] = 0, 0
    return nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), hidden, nn.Tanh(), head).double()


def error_at_outputs(z: Tensor) -> Tensor:
    """Of the sum of tanh(z / mean |z|) o sign(z), the mean being that of a row."""
    scale = z.abs().mean(dim=1, keepdim=True)
    return (1 - torch.tanh(z / scale) ** 2) / scale * torch.where(z >= 0, 1.0, -1.0)


def errors(model: nn.Sequential, images: Tensor, carried: dict[str, Tensor]) -> dict[str, Tensor]:
    """At the input of each layer, from what the layers carry it back through."""
    with torch.no_grad():
        maps = torch.tanh(model[0](images))
        features = torch.tanh(model[3](maps.flatten(1)))
        z = model[5](features)
        e = error_at_outputs(z)
        at_head = e @ carried["5"]
        at_hidden = ((1 - features**2) * at_head) @ carried["3"]
        at_image = F.conv_transpose2d((1 - maps**2) * at_hidden.view_as(maps), carried["0"])
    return {"5": at_head, "3": at_hidden, "0": at_image.flatten(1)}


@pytest.mark.parametrize("rule", ["fa", "frsf"])
def test_agreement_against_both_errors_written_out(rule: str) -> None:
    model = network()
    images = torch.rand(7, 1, 4, 4, dtype=torch.float64)
    weights = {name: model.get_submodule(name).weight.detach() for name in LAYERS}
    convert(model, rule, seed=2)
    stored = feedback_state(model)
    feedback = {name: stored[name] * (1 if rule == "fa" else weights[name].sign()) for name in LAYERS}
    exact, by_rule = errors(model, images, weights), errors(model, images, feedback)

    with torch.no_grad():  # as an audit may be
        found = signal_agreement(model, images)
    assert [(layer.layer, layer.depth) for layer in found] == [("5", 1), ("3", 2), ("0", 3)]
    for layer in found:
        pairs = [
            (a.numpy(), b.numpy()) for a, b in zip(by_rule[layer.layer], exact[layer.layer], strict=True)
        ]
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
        assert all(type(number) is float for number in (layer.cosine, layer.sign_agreement, layer.norm_ratio))
        assert layer.cosine == pytest.approx(np.mean(cosines), rel=1e-9)
        assert layer.sign_agreement == pytest.approx(np.mean([np.sign(a) == np.sign(b) for a, b in pairs]))
        ratios = [np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
        assert layer.norm_ratio == pytest.approx(np.mean(ratios), rel=1e-9)


def test_a_plain_model_has_no_layers_to_compare() -> None:
    assert signal_agreement(network(), torch.rand(2, 1, 4, 4, dtype=torch.float64)) == []


def test_it_leaves_the_model_and_the_images_alone() -> None:
    model = network()
    convert(model, "frsf")
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    signal_agreement(model, images)
    assert images.grad is None and all(parameter.grad is None for parameter in model.parameters())
    model.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        signal_agreement(model, images)
    assert not any(layer._forward_pre_hooks for layer in model)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(torch.tanh(self.shared(self.first(x))))


def test_a_layer_that_is_called_twice_counts_with_its_last_call() -> None:
    torch.manual_seed(0)
    model = Twice().double()
    convert(model, "fa")
    images = torch.rand(4, 3, dtype=torch.float64)
    last, first = signal_agreement(model, images)
    assert (last.layer, last.depth, first.layer, first.depth) == ("shared", 1, "first", 2)
    with torch.no_grad():
        z = model(images)
        e = error_at_outputs(z)
        by_rule, exact = e @ feedback_state(model)["shared"], e @ model.shared.weight
    assert last.cosine == pytest.approx(F.cosine_similarity(by_rule, exact).mean().item(), rel=1e-9)


def test_an_exact_error_of_0_is_nothing_to_divide_by() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    nn.init.zeros_(model[1].weight)
    convert(model, "fa")
    last, first = signal_agreement(model, torch.rand(2, 3))
    for layer in (last, first):
        assert np.isfinite([layer.cosine, layer.sign_agreement, layer.norm_ratio]).all()
        assert layer.norm_ratio > 1e6


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, z: Tensor) -> Tensor:
        return self.factor * z


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_scale_of_outputs_does_not_matter(scale: float) -> None:
    """tanh of large outputs has no gradient to compare."""
    images = torch.rand(6, 1, 4, 4, dtype=torch.float64)
    model = network()
    convert(model, "frsf", seed=1)
    scaled = nn.Sequential(*model, Times(scale))
    for one, other in zip(signal_agreement(model, images), signal_agreement(scaled, images), strict=True):
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
