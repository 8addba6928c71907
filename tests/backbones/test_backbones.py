"""What every backbone promises, and the networks that they must be."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hashrobust.backbones import Backbone, backbones, build_backbone
from hashrobust.errors import InputError, UnknownNameError

SMALL = ("lenet", "resnet20")
LARGE = ("alexnet", "resnet18", "resnet34", "resnet50", "vgg16")
SMALLEST = {"lenet": 8, "resnet20": 8, "alexnet": 63, "vgg16": 32, "resnet18": 32}
FEATURES = {"alexnet": 4096, "vgg16": 4096, "resnet18": 512, "resnet34": 512, "resnet50": 2048}


def images(batch: int, channels: int, size: int) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_registry_holds_these_backbones():
    assert {*SMALL, *LARGE} <= set(backbones)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_describes_itself_with_a_source(name):
    assert len(backbones.describe(name)) > 20
    assert "Source:" in (backbones[name].__doc__ or "")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [8, 9, 27, 28, 32, 33, 64])
def test_small_backbones_take_any_size(name, channels, size):
    backbone = build_backbone(name, channels=channels, image_size=size)
    features = backbone(images(2, channels, size))
    assert isinstance(backbone, Backbone)
    assert features.shape == (2, backbone.feature_dim)
    assert features.isfinite().all()


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("alexnet", 1, 63),
        ("alexnet", 3, 224),
        ("resnet18", 4, 32),
        ("resnet18", 3, 224),
        ("resnet18", 1, 97),
        ("resnet34", 3, 64),
        ("resnet50", 1, 64),
        ("vgg16", 3, 32),
    ],
)
def test_torchvision_backbones_take_any_size(name, channels, size):
    backbone = build_backbone(name, channels=channels, image_size=size).eval()
    with torch.no_grad():
        assert backbone(images(1, channels, size)).shape == (1, FEATURES[name])
    assert backbone.feature_dim == FEATURES[name]


@pytest.mark.parametrize(("name", "size"), SMALLEST.items())
def test_smaller_images_are_refused(name, size):
    with pytest.raises(InputError, match=rf"{size - 1}.* at least {size} pixels"):
        build_backbone(name, channels=3, image_size=size - 1)


@pytest.mark.parametrize("name", [*SMALL, "resnet18"])
def test_no_channels_are_refused(name):
    with pytest.raises(InputError, match="channels is 0"):
        build_backbone(name, channels=0, image_size=64)


def test_a_mistyped_name_is_suggested():
    with pytest.raises(UnknownNameError, match="did you mean 'resnet20'"):
        build_backbone("resnet-20", channels=3, image_size=32)


@pytest.mark.parametrize("name", [*SMALL, "resnet18"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_reach_every_parameter_and_the_image(name, channels):
    torch.manual_seed(0)
    backbone = build_backbone(name, channels=channels, image_size=32)
    inputs = images(4, channels, 32).requires_grad_()
    (backbone(inputs) * torch.randn(backbone.feature_dim)).sum().backward()
    for parameter in backbone.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    assert inputs.grad.abs().sum(dim=(1, 2, 3)).gt(0).all()


@pytest.mark.parametrize("name", SMALL)
def test_every_pixel_of_a_small_image_counts(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, channels=1, image_size=8)
    inputs = images(32, 1, 8).requires_grad_()
    (backbone(inputs) * torch.randn(backbone.feature_dim)).sum().backward()
    assert inputs.grad.abs().sum(dim=0).gt(0).all()


@pytest.mark.parametrize("name", SMALL)
def test_building_follows_the_global_seed(name):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_backbone(name, channels=1, image_size=16).state_dict()["conv1.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", SMALL)
def test_small_backbones_have_no_imagenet_weights(name):
    backbone = build_backbone(name, channels=3, image_size=32)
    assert backbone.imagenet_normalization is None
    for ask in (backbone.imagenet_state, backbone.load_imagenet):
        with pytest.raises(InputError, match="no ImageNet weights"):
            ask()


def test_lenet_has_the_61706_parameters_of_lenet5_with_its_classifier():
    backbone = build_backbone("lenet", channels=1, image_size=32)
    assert parameter_count(nn.Sequential(backbone, nn.Linear(backbone.feature_dim, 10))) == 61_706


def test_lenet_at_32_pixels_is_biotorchs():
    le_net = pytest.importorskip("biotorch.models.le_net")
    theirs = le_net.le_net_mnist()
    theirs.fc2 = nn.Identity()
    backbone = build_backbone("lenet", channels=1, image_size=32)
    backbone.load_state_dict(theirs.state_dict())
    inputs = images(5, 1, 32)
    torch.testing.assert_close(backbone(inputs), theirs(inputs))


@pytest.mark.parametrize("size", [8, 20, 28])
def test_lenet_sees_a_small_image_as_one_padded_to_32(size):
    small = build_backbone("lenet", channels=1, image_size=size)
    native = build_backbone("lenet", channels=1, image_size=32)
    native.load_state_dict(small.state_dict())
    inputs = images(2, 1, size)
    padded = nn.functional.pad(inputs, ((32 - size) // 2,) * 4)
    torch.testing.assert_close(small(inputs), native(padded))


def test_resnet20_has_the_269722_parameters_of_the_paper_with_its_classifier():
    backbone = build_backbone("resnet20", channels=3, image_size=32)
    assert parameter_count(nn.Sequential(backbone, nn.Linear(backbone.feature_dim, 10))) == 269_722
    layers = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert len(layers) + 1 == 20


def test_resnet20_blocks_start_from_a_parameter_free_shortcut():
    """With its residual branch at zero a block is ReLU of the subsampled maps between zero channels."""
    backbone = build_backbone("resnet20", channels=3, image_size=32)
    block = backbone.stages[1][0]
    nn.init.zeros_(block.bn2.weight)
    maps = images(2, 16, 8)
    expected = torch.zeros(2, 32, 4, 4)
    expected[:, 8:24] = maps[:, :, ::2, ::2].clamp(min=0)
    torch.testing.assert_close(block(maps), expected)


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "resnet50"])
def test_torchvision_backbone_is_torchvisions_network_without_its_classifier(name):
    theirs = torchvision.models.get_model(name, weights=None).eval()
    backbone = build_backbone(name, channels=3, image_size=64).eval()
    backbone.load_imagenet(theirs.state_dict())
    head = theirs.fc if name.startswith("resnet") else theirs.classifier[6]
    inputs = images(2, 3, 64)
    torch.testing.assert_close(head(backbone(inputs)), theirs(inputs))
    names = [key for key in theirs.state_dict() if not key.startswith(("fc.", "classifier.6."))]
    assert list(backbone.state_dict()) == names
    assert parameter_count(backbone) == parameter_count(theirs) - parameter_count(head)


PUBLISHED_COUNTS = {"alexnet": 61_100_840, "vgg16": 138_357_544, "resnet18": 11_689_512}


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_parameter_counts_are_the_published_ones(name):
    with torch.device("meta"):
        backbone = build_backbone(name, channels=3, image_size=64)
    head = 1000 * (backbone.feature_dim + 1)
    assert parameter_count(backbone) + head == PUBLISHED_COUNTS[name]
