"""Models of timm by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hashrobust.backbones import Backbone, backbones, build_backbone
from hashrobust.errors import InputError, UnknownNameError
from hashrobust.models import HashModel, load_model, save_model
from hashrobust.rules import convert


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm, which is not installed: pip install 'hashrobust\[timm\]'"):
        build_backbone("timm:resnet18", channels=3, image_size=64)


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet10t", 64), ("mobilenetv3_small_050", 64), ("test_vit", 96), ("test_efficientnet.r160_in1k", 64)],
)
def test_features_are_timms(timm, name, size):
    torch.manual_seed(0)
    own = {"img_size": size} if "vit" in name else {}
    theirs = timm.create_model(name, num_classes=10, **own).eval()
    backbone = build_backbone(f"timm:{name}", channels=3, image_size=size).eval()
    assert isinstance(backbone, Backbone) and backbone.channels == 3 and backbone.image_size == size
    backbone.load_imagenet(theirs.state_dict())
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone(images), expected)
    assert expected.shape == (2, backbone.feature_dim)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_comes_back_by_its_name(timm, channels, tmp_path):
    torch.manual_seed(0)
    model = HashModel("timm:test_vit", 8, channels=channels, image_size=64).eval()
    save_model(model, tmp_path / "model")
    images = torch.rand(2, channels, 64, 64)
    assert torch.equal(load_model(tmp_path / "model")(images), model(images))
    twin = HashModel(model.backbone, 8)
    assert twin.spec["backbone"] == "timm:test_vit"


def test_weights_come_through_timm_with_their_normalisation(timm, monkeypatch):
    torch.manual_seed(0)
    create, asked = timm.create_model, []

    def offline(name: str, *, pretrained: bool, **own: object) -> torch.nn.Module:
        asked.append(pretrained)
        return create(name, pretrained=False, **own)

    monkeypatch.setattr(timm, "create_model", offline)
    model = HashModel("timm:test_vit", 8, channels=1, image_size=64)
    model.use_imagenet_weights()
    assert asked[-1] and model.backbone.channels == 3
    mean = timm.models.get_pretrained_cfg("test_vit").mean
    assert model.normalize.mean.flatten().tolist() == pytest.approx(mean)
    images: Tensor = torch.rand(2, 1, 64, 64)
    colour = model.backbone(model.normalize(images.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(model.backbone(model.normalize(images)), colour)


def test_an_unreachable_hub_is_no_traceback(timm, monkeypatch):
    def offline(name: str, *, pretrained: bool, **own: object) -> torch.nn.Module:
        if pretrained:
            raise ConnectionError("no route to host")
        return create(name, pretrained=False, **own)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        InputError, match=r"no route to host.*copy the folder .*models--timm--test_vit.*from there"
    ):
        build_backbone("timm:test_vit", channels=3, image_size=64).load_imagenet()


def test_cached_weights_are_found(timm, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors")
    )
    assert backbones["timm:resnet18"].imagenet_file() == Path(tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    assert not backbones["timm:resnet18"].imagenet_file().exists()
    assert backbones["timm:efficientnet_lite1"].imagenet_file() is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-18d", r"timm has no model 'resnet-18d': did you mean 'resnet18d'.* and \d+ more"),
        ("resnet18.a9_in1k", r"timm has no weights 'resnet18.a9_in1k': did you mean 'resnet18.a\d_in1k'"),
        ("hf-hub:someone/model", "timm has no model 'hf-hub:someone/model'"),
    ],
)
def test_unknown_names_suggest_the_nearest(timm, name, message):
    with pytest.raises(UnknownNameError, match=message):
        build_backbone(f"timm:{name}", channels=3, image_size=64)
    assert f"timm:{name}" not in backbones


def test_images_that_a_model_cannot_see_are_refused(timm):
    with pytest.raises(InputError, match=r"timm:inception_v3 .*64 pixels"):
        build_backbone("timm:inception_v3", channels=3, image_size=64)


def test_what_a_rule_leaves_is_reported(timm):
    model = HashModel("timm:tf_efficientnet_lite0", 8, channels=3, image_size=64)
    report = convert(model, "frsf", probe=torch.zeros(2, 3, 64, 64))
    assert len(report.left) == 5
    assert all("Conv2dSame is a subclass of Conv2d" in reason for reason in report.left.values())


def test_the_family_is_listed_and_its_members_are_not(timm):
    assert "timm:NAME" in backbones.families
    assert "timm:resnet18" in backbones and "timm:resnet18" not in list(backbones)
