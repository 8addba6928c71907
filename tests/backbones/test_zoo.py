"""Torchvision's zoo of classifiers: all of it, each network as it is there, up to its last classifier layer."""

from __future__ import annotations

import copy
import re
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hashrobust.backbones import Backbone, backbones, build_backbone
from hashrobust.backbones._torchvision_families import FAMILIES
from hashrobust.errors import InputError, UnknownNameError
from hashrobust.models import HashModel, load_weights

ZOO = [name for family in FAMILIES for name in family.networks]
# The smallest network of each family, and the layer of it that classifies.
SMALLEST = {
    "alexnet": "classifier.6",
    "convnext_tiny": "classifier.2",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "efficientnet_v2_s": "classifier.1",
    "googlenet": "fc",
    "inception_v3": "fc",
    "maxvit_t": "classifier.5",
    "mnasnet0_5": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "regnet_x_400mf": "fc",
    "regnet_y_400mf": "fc",
    "resnext50_32x4d": "fc",
    "shufflenet_v2_x0_5": "fc",
    "squeezenet1_1": "classifier.1",
    "swin_t": "head",
    "swin_v2_t": "head",
    "vit_b_32": "heads.head",
}


def theirs(name: str, size: int = 64) -> nn.Module:
    own = {"vit_b_32": {"image_size": size}, "maxvit_t": {"input_size": (size, size)}}
    if name in ("googlenet", "inception_v3"):
        return torchvision.models.get_model(name, weights=None, init_weights=True)
    return torchvision.models.get_model(name, weights=None, **own.get(name, {}))


def images(channels: int, size: int) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_the_names_are_torchvisions():
    assert sorted(ZOO) == torchvision.models.list_models(module=torchvision.models)
    assert set(ZOO) <= set(backbones)


def test_every_family_is_tried():
    tried = {family.source for family in FAMILIES for name in family.networks if name in SMALLEST}
    assert {family.source for family in FAMILIES} - tried <= {
        "He et al., arXiv 1512.03385",  # in test_backbones.py
        "Simonyan and Zisserman, arXiv 1409.1556",  # likewise; the smallest has 133 million parameters
        "Zagoruyko and Komodakis, arXiv 1605.07146",  # the class of ResNet
    }


@pytest.mark.parametrize("name", ZOO)
def test_every_network_has_weights_with_a_file(name):
    assert re.fullmatch(r".+-[0-9a-f]{8,10}\.pth", backbones[name].imagenet_file().name)


def test_listing_the_names_needs_no_torchvision():
    code = (
        "import sys\nfrom hashrobust.backbones import backbones\n"
        "assert 'vit_b_16' in backbones and backbones.describe('vit_b_16')\n"
        "assert not {'torchvision', 'timm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SMALLEST)
def test_features_are_the_input_of_the_last_classifier_layer(name):
    torch.manual_seed(0)
    size = max(backbones[name].minimum_image_size, 64)
    network = theirs(name, size).eval()
    backbone = build_backbone(name, channels=3, image_size=size).eval()
    backbone.load_imagenet(network.state_dict())
    seen: list[Tensor] = []
    network.get_submodule(SMALLEST[name]).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(images(3, size))
        features = backbone(images(3, size))
    expected = (
        seen[0].mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]
    )  # SqueezeNet pools after its classifier
    torch.testing.assert_close(features, expected)
    assert features.shape == (2, backbone.feature_dim)
    skipped = (f"{SMALLEST[name]}.", "aux1.", "aux2.", "AuxLogits.")
    assert list(backbone.state_dict()) == [key for key in network.state_dict() if not key.startswith(skipped)]
    assert isinstance(backbone, Backbone) and (backbone.channels, backbone.image_size) == (3, size)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "swin_t"])
@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_start_with_outputs_as_large(name, channels):
    torch.manual_seed(0)
    scales = {}
    for count in (3, channels):
        backbone = build_backbone(name, channels=count, image_size=64)
        first = next(layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d))
        assert first.in_channels == first.weight.shape[1] == count
        scales[count] = float(first(torch.randn(8, count, 64, 64)).detach().std())
        assert backbone(images(count, 64)).shape == (2, backbone.feature_dim)
    assert scales[channels] == pytest.approx(scales[3], rel=0.35)


def test_copies_are_independent_and_the_same():
    torch.manual_seed(0)
    backbone = build_backbone("squeezenet1_1", channels=3, image_size=64).eval()
    copied = copy.deepcopy(backbone)
    assert torch.equal(copied(images(3, 64)), backbone(images(3, 64)))
    nn.init.zeros_(next(copied.parameters()))
    assert not torch.equal(copied(images(3, 64)), backbone(images(3, 64)))


def test_googlenets_weights_take_images_normalised_as_it_does_within():
    """Torchvision normalises by ImageNet's statistics and lets the network undo it; here the model does the sum."""
    torch.manual_seed(0)
    network = torchvision.models.googlenet(weights=None, init_weights=True, transform_input=True).eval()
    model = HashModel("googlenet", 8, channels=3, image_size=64).eval()
    model.backbone.load_imagenet(network.state_dict())
    network.fc = nn.Identity()
    pixels = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    own_mean, own_std = (torch.tensor(v).view(3, 1, 1) for v in model.backbone.imagenet_normalization)
    torch.testing.assert_close(
        model.backbone((pixels - own_mean) / own_std), network((pixels - mean) / std), rtol=1e-4, atol=1e-5
    )


def test_densenets_published_names_are_understood():
    torch.manual_seed(0)
    state = theirs("densenet121").state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): v for name, v in state.items()}
    assert old.keys() != state.keys()
    backbone = build_backbone("densenet121", channels=3, image_size=64)
    backbone.load_imagenet(old)
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


def test_position_embeddings_are_interpolated_to_the_image_size():
    torch.manual_seed(0)
    published = theirs("vit_b_32", 224).state_dict()
    ramp = torch.linspace(0, 1, 7).view(7, 1).expand(7, 7).reshape(1, 49, 1)
    published["encoder.pos_embedding"] = torch.cat(
        [torch.full((1, 1, 768), 5.0), ramp.expand(-1, -1, 768)], 1
    )
    backbone = build_backbone("vit_b_32", channels=3, image_size=96)
    backbone.load_imagenet(published)
    found = backbone.state_dict()["encoder.pos_embedding"][0, :, 0]
    assert found[0] == 5.0
    rows = found[1:].view(3, 3)
    assert torch.allclose(rows, rows[:, :1]) and rows[:, 0].tolist() == pytest.approx([0, 0.5, 1], abs=1e-5)


def test_mnasnet_takes_weights_that_tell_no_version(tmp_path):
    from safetensors.torch import save_file

    network = theirs("mnasnet0_5")
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    model = HashModel("mnasnet0_5", 8, channels=3, image_size=64)
    unused = load_weights(model, tmp_path / "weights.safetensors")
    assert unused == ("classifier.1.bias", "classifier.1.weight")
    assert torch.equal(model.backbone.get_parameter("layers.0.weight"), network.layers[0].weight)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_b_16", 65, "vit_b_16 cannot see images of 65 pixels"),
        ("vit_h_14", 64, "vit_h_14 cannot see images of 64 pixels"),
        ("maxvit_t", 256, "maxvit_t cannot see images of 256 pixels"),
        ("inception_v3", 74, "inception_v3 needs at least 75 pixels"),
    ],
)
def test_sizes_that_a_network_cannot_see_are_refused(name, size, message):
    with pytest.raises(InputError, match=message):
        build_backbone(name, channels=3, image_size=size)


def test_of_many_names_the_nearest_are_told():
    with pytest.raises(UnknownNameError, match=r"did you mean 'efficientnet_b0'\? known: .* and \d+ more$"):
        build_backbone("efficientnet-b0", channels=3, image_size=64)
