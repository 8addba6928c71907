"""Layers chosen by name."""

from __future__ import annotations

import pytest
import torch

from hashrobust import HashModel
from hashrobust.errors import InputError
from hashrobust.rules import convert, exact_gradient

LENET = ("backbone.conv1", "backbone.conv2", "backbone.conv3", "backbone.fc1", "head")


def lenet() -> HashModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HashModel("lenet", 8, image_size=16)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("*", LENET),
        ("backbone.*", LENET[:4]),
        ("backbone", LENET[:4]),
        ("head", LENET[4:]),
        ("head, backbone.conv[12]", (LENET[0], LENET[1], LENET[4])),
        ("conv?", LENET[:3]),  # names below the first part, where no whole name fits
        ("*1", (LENET[0], LENET[3])),
    ],
)
def test_patterns(patterns: str, expected: tuple[str, ...]) -> None:
    report = convert(lenet(), "frsf", layers=patterns)
    assert report.converted == expected
    assert set(report.left) == set(LENET) - set(expected)
    assert all(patterns in reason for reason in report.left.values())


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ("backbon.*", "near are backbone"),
        ("backbone.conv4", "near are backbone.conv"),
        ("head,hed", "'hed'.*near are head"),
        ("normalize", "no layer that the rule could convert"),
        ("zzz", "there are backbone.conv1"),
        ("", "fit no module"),
        ("head,", "fit no module"),
    ],
)
def test_a_pattern_that_fits_nothing_is_refused(patterns: str, said: str) -> None:
    model = lenet()
    with pytest.raises(InputError, match=said):
        convert(model, "frsf", layers=patterns)
    assert convert(model, "bp").converted == ()


def test_backpropagation_has_no_layers_to_choose() -> None:
    with pytest.raises(InputError, match="leave layers out"):
        convert(lenet(), "bp", layers="head")


@pytest.mark.parametrize("by_rule", ["head", "backbone.*"])
def test_the_error_is_exact_where_it_should_be(by_rule: str) -> None:
    """A head by the rule leaves the head's own gradient and spoils all before it; a backbone by it spares the head."""
    model = lenet()
    images = torch.rand(4, 1, 16, 16)
    convert(model, "frsf", layers=by_rule)

    def gradients() -> dict[str, torch.Tensor]:
        parameters = dict(model.named_parameters())
        found = torch.autograd.grad(model(images).square().sum(), list(parameters.values()))
        return dict(zip(parameters, found, strict=True))

    own = gradients()
    with exact_gradient(model):
        exact = gradients()
    kept = {name for name in own if torch.allclose(own[name], exact[name], rtol=1e-4)}
    last = {"head.weight", "head.bias"}
    assert kept == (last if by_rule == "head" else last | {"backbone.fc1.weight", "backbone.fc1.bias"})


def test_a_layer_that_two_patterns_fit_is_chosen() -> None:
    assert convert(lenet(), "frsf", layers="head,*").converted == LENET


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("h.*", "near are head$"),  # dot and star count for nothing
        ("hat", "near are head$"),
        ("bckbn", "near are backbone, backbone.fc1, backbone.conv3$"),
    ],
)
def test_hints(pattern: str, said: str) -> None:
    with pytest.raises(InputError, match=f"fit no module of the network: {said}"):
        convert(lenet(), "frsf", layers=pattern)


def test_backpropagation_takes_no_empty_pattern_either() -> None:
    with pytest.raises(InputError, match="leave layers out"):
        convert(lenet(), "bp", layers="")
