"""Attacks on classifiers against torchattacks, on a small network that has learned the digits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.attacks import AttackContext, build_attack

CONTEXT = AttackContext(task="classification")
EPSILON = 0.1


@pytest.mark.parametrize("epsilon", [0.03, EPSILON])
def test_fgsm_is_that_of_torchattacks(precise: Any, epsilon: float) -> None:
    theirs = pytest.importorskip("torchattacks").FGSM(precise.model, epsilon)
    found, wanted = precise.attack("fgsm", epsilon=epsilon), theirs(precise.images, precise.labels)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    assert torch.equal(precise.right(found), precise.right(wanted))
    assert precise.right(found).sum() < precise.right(precise.images).sum()


@pytest.mark.parametrize("epsilon", [0.03, EPSILON])
def test_pgd_is_that_of_torchattacks(precise: Any, epsilon: float) -> None:
    size, steps = epsilon / 4, 20
    theirs = pytest.importorskip("torchattacks").PGD(precise.model, epsilon, size, steps, random_start=False)
    found = precise.attack(
        "pgd", epsilon=epsilon, step_size=size, steps=steps, random_start=False, keep="last"
    )
    wanted = theirs(precise.images, precise.labels)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    assert torch.equal(precise.right(found), precise.right(wanted))


@pytest.mark.parametrize(("loss", "unequal"), [("ce", 0), ("dlr", 1)])
@pytest.mark.parametrize("steps", [20, 50])
def test_apgd_from_the_same_start_breaks_the_same_digits_as_torchattacks(
    precise: Any, loss: str, unequal: int, steps: int
) -> None:
    """They compare the first loss with 0 rather than with that of the start; on DLR that may tell."""
    theirs = pytest.importorskip("torchattacks").APGD(precise.model, eps=EPSILON, steps=steps, loss=loss)
    clean, right = precise.images, precise.right(precise.images)
    with torch.random.fork_rng():
        wanted = theirs(clean, precise.labels)
        torch.manual_seed(0)
        noise = 2 * torch.rand(clean[right].shape) - 1
    start = clean.clone()
    start[right] += EPSILON * noise / noise.abs().amax(dim=(1, 2, 3), keepdim=True)
    context = replace(CONTEXT, start_images=start)
    attack = build_attack(f"apgd-{loss}", epsilon=EPSILON, steps=steps)
    found = attack(precise.model, clean, labels=precise.labels, context=context)
    assert (precise.right(found) != precise.right(wanted)).sum() <= unequal


class Scaled(nn.Module):
    """Outputs of a hundred times the size."""

    def forward(self, x: Tensor) -> Tensor:
        return 100 * x


def test_a_scale_of_the_logits_hides_nothing(trained: Any) -> None:
    """In float32 the cross-entropy of a model that is too sure has no gradient."""
    sure = replace(trained, model=nn.Sequential(trained.model, Scaled()))
    assert survivors(sure, "pgd", steps=20) < survivors(trained, "pgd", steps=20) + 5
    assert peer_survivors(sure, "PGD", steps=20, alpha=EPSILON / 8) > 150


def survivors(digits: Any, name: str, seeds: int = 4, **params: Any) -> float:
    """How many digits stay right, mean over seeds."""
    found = [digits.attack(name, epsilon=EPSILON, seed=seed, **params) for seed in range(seeds)]
    return sum(int(digits.right(images).sum()) for images in found) / seeds


def peer_survivors(digits: Any, name: str, seeds: int = 4, **params: Any) -> float:
    """The same of an attack of torchattacks."""
    peer = getattr(pytest.importorskip("torchattacks"), name)
    with torch.random.fork_rng():
        found = []
        for seed in range(seeds):
            attack = peer(digits.model, eps=EPSILON, **params)
            # Some seed the global generator by this, others leave it as it is.
            attack.seed = seed
            torch.manual_seed(seed)
            found.append(attack(digits.images, digits.labels))
    return sum(int(digits.right(images).sum()) for images in found) / seeds


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_breaks_as_many_digits_as_that_of_torchattacks(trained: Any, loss: str) -> None:
    """Of 200 digits; single seeds of either differ by up to 5."""
    theirs = peer_survivors(trained, "APGD", steps=20, loss=loss)
    assert abs(survivors(trained, f"apgd-{loss}", steps=20) - theirs) <= 3


class Cropped(nn.Module):
    """Without the last row and column."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :-1, :-1]


def test_square_breaks_as_many_digits_as_that_of_torchattacks(trained: Any) -> None:
    """Of 100 digits; single seeds of either differ by up to 4.

    Theirs never moves a square to the last row and column, so there the network sees nothing.
    """
    model = nn.Sequential(Cropped(), trained.model)
    images, labels = F.pad(trained.images[:100], (0, 1, 0, 1)), trained.labels[:100]
    padded = replace(trained, model=model, images=images, labels=labels)
    theirs = peer_survivors(padded, "Square", seeds=2, n_queries=1000, loss="margin")
    assert abs(survivors(padded, "square", seeds=2, budget=1001) - theirs) <= 4


def test_what_breaks_more(trained: Any) -> None:
    noise = survivors(trained, "noise", kind="sign")
    one, many = survivors(trained, "fgsm", seeds=1), survivors(trained, "pgd", steps=30)
    assert noise > one + 40 > many + 50
    assert survivors(trained, "apgd-ce", steps=30) < many + 2
    assert survivors(trained, "pgd", steps=30, restarts=3) < many
    # A search that asks often comes close, on a network without tricks.
    few, often = (survivors(trained, "random-search", seeds=1, budget=budget) for budget in (300, 1200))
    assert few > often and abs(often - many) < 6
