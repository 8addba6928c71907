from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from hashrobust.attacks import AttackContext, draw_targets

BITS = 12


@dataclass
class Scene:
    model: nn.Module
    images: Tensor
    labels: Tensor
    context: AttackContext


@pytest.fixture(autouse=True)
def _one_seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def conv_net() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 9, BITS, bias=True)
    )
    return net.eval()


@pytest.fixture
def scene() -> Scene:
    """A random network whose codes follow the labels a little, six images of 8 by 8."""
    model, images = conv_net(), torch.rand(6, 3, 8, 8)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    train_labels, database_labels = torch.arange(40) % 4, torch.arange(60) % 4
    context = AttackContext(
        train_codes=torch.where(torch.randn(40, BITS) > 0, 1.0, -1.0),
        train_labels=train_labels,
        train_images=torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
        database_codes=torch.where(torch.randn(60, BITS) > 0, 1, -1).to(torch.int8),
        database_labels=database_labels,
        targets=draw_targets(labels, database_labels),
        sample_ids=torch.arange(100, 106),
    )
    return Scene(model, images, labels, context)


@pytest.fixture
def classifier(scene: Scene) -> Scene:
    """The same network and images, the outputs being logits: the last two are misclassified."""
    predicted = scene.model(scene.images).argmax(dim=1)
    labels = torch.where(torch.arange(6) < 4, predicted, (predicted + 1) % BITS)
    context = AttackContext(task="classification", sample_ids=scene.context.sample_ids)
    return Scene(scene.model, scene.images, labels, context)


@pytest.fixture
def linear() -> Callable[[Tensor, Tensor], nn.Module]:
    """A model z = W x + b of flattened images."""

    def build(weight: Tensor, bias: Tensor) -> nn.Module:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        return nn.Sequential(nn.Flatten(), layer).eval()

    return build
