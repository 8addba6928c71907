"""ImageNet weights: fetched, loaded, refused clearly."""

from __future__ import annotations

import hashlib
from urllib.error import URLError

import pytest
import torch
import torchvision
from torchvision.models import ResNet18_Weights

from hashrobust.backbones import build_backbone
from hashrobust.errors import InputError


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return torchvision.models.get_model("resnet18", weights=None).state_dict()


def resnet18(channels: int):
    return build_backbone("resnet18", channels=channels, image_size=32).eval()


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serves a file as torchvision's published weights: same download, same hash check."""

    def publish(content: bytes, name_hash: str | None = None) -> None:
        digest = name_hash or hashlib.sha256(content).hexdigest()[:8]
        file = tmp_path / f"resnet18-{digest}.pth"
        file.write_bytes(content)
        member = ResNet18_Weights.IMAGENET1K_V1
        monkeypatch.setattr(
            member, "_value_", torchvision.models.Weights(file.as_uri(), member.transforms, {})
        )

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return publish


def test_weights_are_downloaded_and_loaded(serve, published, tmp_path):
    torch.save(published, tmp_path / "weights")
    serve((tmp_path / "weights").read_bytes())
    backbone = resnet18(3)
    state = backbone.imagenet_state()
    assert state.keys() == published.keys()
    backbone.load_imagenet()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, published[name])


def test_a_download_with_a_wrong_hash_is_refused(serve):
    serve(b"not the weights", name_hash="0123abcd")
    with pytest.raises(
        InputError, match=r"hash.*fetch file://.* elsewhere and put it at .*resnet18-0123abcd.pth"
    ):
        resnet18(3).imagenet_state()


def test_a_download_that_is_no_weight_file_is_refused(serve):
    serve(b"not a weight file")
    with pytest.raises(InputError, match="elsewhere and put it at"):
        resnet18(3).imagenet_state()


def test_without_a_network_the_message_names_the_address_and_the_way_out(monkeypatch):
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(
        InputError, match=r"no route to host.*fetch https://download.* elsewhere and put it at .*resnet18-"
    ):
        resnet18(3).imagenet_state()


def test_normalization_has_a_number_per_channel():
    mean, std = resnet18(3).imagenet_normalization
    assert (mean, std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert resnet18(1).imagenet_normalization is None
    assert resnet18(4).imagenet_normalization is None


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channel_counts_have_no_imagenet_weights(published, channels):
    backbone = resnet18(channels)
    for ask in (backbone.imagenet_state, backbone.load_imagenet, lambda: backbone.load_imagenet(published)):
        with pytest.raises(InputError, match=f"colour images.*, not {channels}"):
            ask()


def test_a_state_without_the_classifier_loads_as_well(published):
    plain = {name: value for name, value in published.items() if not name.startswith("fc.")}
    backbone = resnet18(3)
    backbone.load_imagenet(plain)
    assert torch.equal(backbone.conv1.weight, published["conv1.weight"])


@pytest.mark.parametrize("damage", ["missing", "surplus", "shape"])
def test_weights_that_do_not_fit_are_refused(published, damage):
    state = dict(published)
    if damage == "missing":
        del state["layer1.0.conv1.weight"]
    elif damage == "surplus":
        state["layer9.weight"] = torch.zeros(1)
    else:
        state["layer1.0.conv1.weight"] = torch.zeros(1)
    with pytest.raises(InputError, match="do not fit resnet18"):
        resnet18(3).load_imagenet(state)


def test_loading_leaves_the_given_state_alone(published):
    state = dict(published)
    resnet18(3).load_imagenet(state)
    assert state.keys() == published.keys()


def test_the_file_that_a_download_leaves_is_known(tmp_path, monkeypatch):
    from hashrobust.backbones import backbones

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    files = {name: backbones[name].imagenet_file() for name in backbones}
    assert files["lenet"] is None and files["resnet20"] is None
    assert files["resnet18"].parent == tmp_path / "checkpoints"
    assert files["resnet18"].name.startswith("resnet18-") and files["resnet18"].suffix == ".pth"
