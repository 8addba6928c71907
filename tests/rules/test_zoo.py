"""Rules on the networks of ImageNet: depthwise and grouped convolutions, squeeze-and-excite, attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig

from hashrobust.models import HashModel
from hashrobust.rules import convert, exact_gradient, feedback_state, rules
from hashrobust.rules._layers import FeedbackLayer


def vision_transformer() -> nn.Module:
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=8)


def swin() -> nn.Module:
    return SwinTransformer([4, 4], 16, depths=[2, 2], num_heads=[2, 2], window_size=[4, 4], num_classes=8)


def convnext() -> nn.Module:
    return ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)], num_classes=8, layer_scale=1.0)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    # ReLU6, depthwise; SiLU, squeeze-and-excite; Hardswish; groups; LayerNorm, 7x7; attention of two kinds
    **{
        name: partial(HashModel, name, 8, channels=3, image_size=32)
        for name in ("efficientnet-lite0", "efficientnet_b0", "mobilenet_v3_small", "regnet_y_400mf")
    },
    "convnext": convnext,
    "vision transformer": vision_transformer,
    "swin": swin,
}


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A network with statistics as after training, without dropout, and two images."""
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    for parameter in model.parameters():  # heads of transformers start at zero
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model, torch.rand(2, 3, 32, 32)


def gradients(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    images = images.clone().requires_grad_()
    model.zero_grad()
    model(images).square().sum().backward()
    own = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"image": images.grad, **own}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay_and_the_exact_gradient_is_autograds(name: str) -> None:
    model, images = network(name)
    before, names, autograd = model(images).detach(), list(model.state_dict()), gradients(model, images)
    for rule in rules:
        report = convert(model, rule, seed=1, probe=images)
        assert torch.equal(model(images), before)
        assert list(model.state_dict()) == names
        with exact_gradient(model):
            found = gradients(model, images)
        for key, gradient in autograd.items():
            torch.testing.assert_close(
                found[key], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())
            )
        if rule == "bp":
            continue
        layers = [n for n, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        assert set(layers) == set(report.converted) | {n for n in report.left if n in layers}
        assert not any(isinstance(model.get_submodule(n), nn.Conv2d) for n in report.left)
        by_rule, exact = gradients(model, images)["image"], autograd["image"]
        assert by_rule.isfinite().all()
        assert float((by_rule - exact).norm()) > 0.1 * float(exact.norm())


@pytest.mark.parametrize("name", ["efficientnet-lite0", "regnet_y_400mf"])
@pytest.mark.parametrize("scale", ["xavier", "matched"])
def test_feedback_of_depthwise_and_grouped_layers_has_their_shape_and_scale(name: str, scale: str) -> None:
    model, images = network(name)
    convert(model, "frsf", seed=1, scale=scale, probe=images)
    state = feedback_state(model)
    grouped = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    assert len(grouped) >= 16
    for key, layer in grouped.items():
        assert isinstance(layer, FeedbackLayer)
        v = layer.feedback_weight()
        assert state[key].shape == v.shape == layer.weight.shape
        assert torch.equal(torch.sign(v), torch.sign(layer.weight))
        fan_in, fan_out = (layer.weight.shape[i] * layer.weight[0, 0].numel() for i in (1, 0))
        bound = math.sqrt(6 / (fan_in + fan_out))
        if scale == "xavier":
            assert 0.9 * bound < float(v.abs().max()) <= bound
        else:
            assert float(v.norm()) == pytest.approx(float(layer.weight.detach().norm()), rel=1e-4)


def test_a_depthwise_layer_sends_each_map_its_own_error() -> None:
    model, images = network("efficientnet-lite0")
    convert(model, "frsf", seed=1, probe=images)
    layer = model.backbone.blocks[0].depthwise_conv
    maps = torch.randn(1, 32, 6, 6, requires_grad=True)
    delta = torch.zeros(1, 32, 6, 6)
    delta[0, 5, 2, 3] = 2.0
    (found,) = torch.autograd.grad(layer(maps), maps, delta)
    expected = torch.zeros(1, 32, 6, 6)
    expected[0, 5, 1:4, 2:5] = 2.0 * layer.feedback_weight()[5, 0]
    torch.testing.assert_close(found, expected)


def test_what_attention_never_calls_is_reported() -> None:
    model, images = network("vision transformer")
    report = convert(model, "frsf", probe=images)
    projections = [name for name in report.left if name.endswith("out_proj")]
    attentions = [name for name in report.left if name.endswith("self_attention")]
    assert len(projections) == len(attentions) == 2
    assert {"conv_proj", "encoder.layers.encoder_layer_0.mlp.0", "heads.head"} <= set(report.converted)
