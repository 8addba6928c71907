"""Attacks on classifiers: against torchattacks, on a small network that has learned the digits, and by rule."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from hashrobust.attacks import AttackContext, build_attack

CONTEXT = AttackContext(task="classification")
EPSILON = 0.1


@dataclass
class Digits:
    model: nn.Module
    images: Tensor
    labels: Tensor

    def right(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(images).argmax(dim=1) == self.labels

    def attack(self, name: str, **params: Any) -> Tensor:
        return build_attack(name, **params)(self.model, self.images, labels=self.labels, context=CONTEXT)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def precise(trained: Digits) -> Digits:
    """The same in float64, where the common formula of cross-entropy has a gradient for all of these digits."""
    return Digits(copy.deepcopy(trained.model).double(), trained.images.double(), trained.labels)


@pytest.mark.parametrize("epsilon", [0.03, EPSILON])
def test_fgsm_is_that_of_torchattacks(precise: Digits, epsilon: float) -> None:
    theirs = pytest.importorskip("torchattacks").FGSM(precise.model, epsilon)
    found, wanted = precise.attack("fgsm", epsilon=epsilon), theirs(precise.images, precise.labels)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    assert torch.equal(precise.right(found), precise.right(wanted))
    assert precise.right(found).sum() < precise.right(precise.images).sum()


@pytest.mark.parametrize("epsilon", [0.03, EPSILON])
def test_pgd_is_that_of_torchattacks(precise: Digits, epsilon: float) -> None:
    size, steps = epsilon / 4, 20
    theirs = pytest.importorskip("torchattacks").PGD(precise.model, epsilon, size, steps, random_start=False)
    found = precise.attack(
        "pgd", epsilon=epsilon, step_size=size, steps=steps, random_start=False, keep="last"
    )
    wanted = theirs(precise.images, precise.labels)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    assert torch.equal(precise.right(found), precise.right(wanted))
