from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from hashrobust.attacks import AttackContext, build_attack, draw_targets

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


@dataclass
class Digits:
    model: nn.Module
    images: Tensor
    labels: Tensor

    def right(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(images).argmax(dim=1) == self.labels

    def attack(self, name: str, **params: Any) -> Tensor:
        context = AttackContext(task="classification")
        return build_attack(name, **params)(self.model, self.images, labels=self.labels, context=context)


@pytest.fixture(scope="session")
def trained() -> Digits:
    """97% right on 200 digits of 8 by 8; half of them at 0.1."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        known = load_digits()
        images = torch.tensor(known.images, dtype=torch.float32)[:, None] / 16
        labels = torch.tensor(known.target)
        model = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10)),
        )
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(15):
            for batch in torch.arange(1200).split(60):
                optimizer.zero_grad()
                F.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
    return Digits(model.eval().requires_grad_(False), images[1200:1400], labels[1200:1400])


@pytest.fixture(scope="session")
def precise(trained: Digits) -> Digits:
    """The same in float64, where the common formula of cross-entropy has a gradient for all of these digits."""
    return Digits(copy.deepcopy(trained.model).double(), trained.images.double(), trained.labels)
