"""Networks written down as files of their own: the same answers, the same names, and no hashrobust in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hashrobust.backbones import Backbone
from hashrobust.errors import InputError
from hashrobust.models import Classifier, HashModel, plain_source
from hashrobust.rules import convert

FAMILIES = (
    *("lenet", "resnet20", "resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"),
    *("efficientnet_b0", "efficientnet-lite0"),
)
"""One small network of each kind that there is."""


def made_from(source: str, model: nn.Module) -> nn.Module:
    names: dict[str, Any] = {"__name__": "model"}
    exec(compile(source, "model.py", "exec"), names)
    made: nn.Module = names["Model"]().eval()
    made.load_state_dict(model.state_dict())
    return made


def batch(model: HashModel | Classifier, count: int) -> Tensor:
    return torch.rand(count, *model.input_shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_backbone_and_its_file_answer_alike_bit_for_bit(name: str) -> None:
    torch.manual_seed(0)
    model = HashModel(name, 12, channels=1, image_size=64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    model.eval()
    source = plain_source(model)
    assert "hashrobust." not in source and "import hashrobust" not in source
    assert ("needs torch alone" in source) == ("torchvision" not in source)
    made = made_from(source, model)
    assert made.state_dict().keys() == model.state_dict().keys()
    for count in (1, 3):
        assert torch.equal(made(batch(model, count)), model(batch(model, count)))


def test_a_rotation_is_written_down() -> None:
    torch.manual_seed(0)
    model = HashModel("lenet", 6).eval()
    model.rotate(torch.linalg.qr(torch.randn(6, 6)).Q.contiguous(), "itq")
    made = made_from(plain_source(model), model)
    assert torch.equal(made(batch(model, 3)), model(batch(model, 3)))


def test_what_a_rule_drew_is_no_part_of_it() -> None:
    model = Classifier("lenet", 10, image_size=28).eval()
    plain = plain_source(model)
    convert(model, "frsf", seed=3)
    assert plain_source(model) == plain
    images = batch(model, 2).requires_grad_()
    (exact,) = torch.autograd.grad(made_from(plain, model)(images).sum(), images)
    (ruled,) = torch.autograd.grad(model(images).sum(), images)
    assert not torch.allclose(exact, ruled)


class Attending(Backbone):
    """Attention, a parameter and a buffer of its own, and a layer called twice."""

    feature_dim = 8
    minimum_image_size = 4

    def __init__(self, channels: int = 1, image_size: int = 8) -> None:
        super().__init__(channels, image_size)
        self.patches = nn.Conv2d(channels, 8, kernel_size=4, stride=4)
        self.start = nn.Parameter(torch.randn(1, 1, 8))
        self.register_buffer("scale", torch.rand(8))
        self.register_buffer("order", torch.arange(8).flip(0))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.unused = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.start.expand(images.shape[0], -1, -1), tokens], dim=1)
        tokens = self.norm(tokens)[:, :, self.order] * self.scale
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.norm(mixed)[:, 0]


def test_attention_and_loose_parameters_are_written_down() -> None:
    torch.manual_seed(0)
    model = HashModel(Attending(), 6).eval()
    made = made_from(plain_source(model), model)
    for count in (1, 4):
        assert torch.equal(made(batch(model, count)), model(batch(model, count)))


class Deciding(Attending):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.mean() > 0 else -images)


class Constant(Attending):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.tensor(2.0)


@pytest.mark.parametrize(("kind", "reason"), [(Deciding, "cannot be traced"), (Constant, "constant")])
def test_what_cannot_be_written_down_is_refused(kind: type[Backbone], reason: str) -> None:
    with pytest.raises(
        InputError, match=f"cannot be written down as a file of its own: .*{reason}.*share its weights"
    ):
        plain_source(HashModel(kind(), 6))
