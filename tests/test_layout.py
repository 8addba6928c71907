"""Where weights lie in memory while a network trains or is attacked, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hashrobust.backbones._base import Backbone
from hashrobust.models import HashModel
from hashrobust.models.layout import stay_channels_last, training_layout


class _Plain(Backbone):
    """Two convolutions, of one channel and of three, and buffers: one that lies as weights do, one of volumes."""

    feature_dim, minimum_image_size = 4, 8

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        self.layers = nn.Sequential(nn.Conv2d(channels, 3, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.register_buffer("shift", torch.rand(1, 3, 6, 6))
        self.register_buffer("volumes", torch.rand(1, 2, 2, 2, 2))

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.layers[0](images) + self.shift
        return self.layers[1:](maps).mean(dim=(2, 3))


class _Viewing(_Plain):
    """Takes a view of its maps, which maps that lie channels last do not have."""

    feature_dim = 4 * 4 * 4

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.layers(images)
        return maps.view(len(maps), -1)


class _Broken(_Plain):
    """A fault of its own, no matter of layout."""

    def forward(self, images: Tensor) -> Tensor:
        raise ZeroDivisionError


def model_of(kind: type[_Plain], channels: int = 1) -> HashModel:
    torch.manual_seed(0)
    return HashModel(kind(channels, 8), 6)


def strides(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: t.stride() for name, t in model.state_dict().items() if t.ndim == 4}


USUAL = {
    "backbone.shift": (108, 36, 6, 1),
    "backbone.layers.0.weight": (9, 9, 3, 1),
    "backbone.layers.1.weight": (27, 9, 3, 1),
}
LAST = {
    "backbone.shift": (108, 1, 18, 3),
    "backbone.layers.0.weight": (9, 1, 3, 1),
    "backbone.layers.1.weight": (27, 1, 9, 3),
}


def test_all_that_is_as_large_as_images_lies_channels_last_and_is_the_same() -> None:
    model = model_of(_Plain)
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items() if tensor.ndim != 4}
    assert strides(model) == USUAL
    stay_channels_last(model)
    assert strides(model) == LAST
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is before[name][0] and torch.equal(tensor, before[name][1])
    assert {name: t.data_ptr() for name, t in model.state_dict().items() if t.ndim != 4} == places
    again = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    stay_channels_last(model)
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == again


@pytest.mark.parametrize("training", [False, True])
def test_a_network_that_cannot_compute_so_stays_as_it_is(training: bool) -> None:
    model = model_of(_Viewing, 3).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    usual = strides(model)
    stay_channels_last(model)
    assert strides(model) == usual and model.training == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_faults_of_a_network_are_not_taken_for_its_layout() -> None:
    with pytest.raises(ZeroDivisionError):
        stay_channels_last(model_of(_Broken))


def test_looking_whether_a_network_computes_so_leaves_it_in_training() -> None:
    model = model_of(_Plain).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stay_channels_last(model)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    # Those of BatchNorm among them.
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("wanted", [False, True])
def test_training_lies_as_the_backbone_wants_and_the_network_as_before_then(wanted: bool) -> None:
    model = model_of(_Plain)
    model.backbone.channels_last = wanted
    with training_layout(model):
        assert strides(model) == (LAST if wanted else USUAL)
    assert strides(model) == USUAL
    with pytest.raises(KeyboardInterrupt), training_layout(model):
        raise KeyboardInterrupt
    assert strides(model) == USUAL


def test_a_backbone_of_others_trains_as_it_lies() -> None:
    class Foreign(nn.Sequential):
        feature_dim = 4

    model = HashModel(Foreign(nn.Conv2d(3, 1, 3), nn.Flatten(), nn.Linear(4, 4)), 6, channels=3, image_size=4)
    assert not hasattr(model.backbone, "channels_last")
    with training_layout(model):
        assert strides(model) == {"backbone.0.weight": (27, 9, 3, 1)}
