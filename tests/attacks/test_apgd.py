"""Auto-PGD against a slow version of the published algorithm."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.attacks import AttackContext, ball, build_attack, project
from hashrobust.attacks._apgd import checkpoints
from hashrobust.errors import InputError

CONTEXT = AttackContext(task="classification")
EPSILON = 0.1


def slow_apgd(digits: Any, row: int, steps: int, epsilon: float) -> Tensor:
    """Algorithm 1 of arXiv 2003.01690 for one image, from the clean image, as a list of all it goes through."""
    clean, y = digits.images[row : row + 1], digits.labels[row : row + 1]
    windows = [max(int(0.22 * steps), 1)]
    while sum(windows) < steps:
        windows.append(max(windows[-1] - max(int(0.03 * steps), 1), int(0.06 * steps), 1))
    ends = [sum(windows[: place + 1]) for place in range(len(windows))]

    def loss_and_gradient(x: Tensor) -> tuple[float, Tensor]:
        x = x.clone().requires_grad_()
        loss = F.cross_entropy(digits.model(x), y)
        return loss.item(), torch.autograd.grad(loss, x)[0]

    def inside(x: Tensor) -> Tensor:
        return project(x, *ball(clean, epsilon))

    step, halvings = 2 * epsilon, [True]
    visited, losses, present, previous = [clean], [], clean, clean
    best_losses: list[float] = []
    for k in range(steps):
        losses.append(loss_and_gradient(visited[k])[0])
        best = max(range(k + 1), key=lambda i: losses[i])
        present = visited[k]
        if k in ends:
            window = windows[ends.index(k)]
            up = sum(losses[i] > losses[i - 1] for i in range(k - window + 1, k + 1))
            before = best_losses[-1] if best_losses else losses[0]
            halve = up <= 0.75 * window or (not halvings[-1] and losses[best] <= before)
            halvings.append(halve)
            best_losses.append(losses[best])
            if halve:
                step, present = step / 2, visited[best]
        moved = inside(present + step * loss_and_gradient(present)[1].sign())
        if k:
            moved = inside(present + 0.75 * (moved - present) + 0.25 * (present - previous))
        previous = present
        visited.append(moved)
    return torch.cat(visited)


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_apgd_is_the_published_algorithm(precise: Any, steps: int) -> None:
    """Each image that is asked about, of samples that halve at different checkpoints."""
    rows = slice(0, 12)
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return precise.model(x)

    attack = build_attack("apgd-ce", epsilon=EPSILON, steps=steps, random_start=False)
    context = replace(CONTEXT, transfer=True)
    attack(model, precise.images[rows], labels=precise.labels[rows], context=context)
    asked = torch.stack(seen[1:], dim=1)
    for row in range(12):
        torch.testing.assert_close(
            asked[row], slow_apgd(precise, row, steps, EPSILON), atol=1e-9, rtol=0, msg=f"image {row}"
        )


@pytest.mark.parametrize("steps", [1, 2, 10, 50, 100, 1000])
def test_checkpoints_are_the_published_ones(steps: int) -> None:
    found = checkpoints(steps)
    assert list(found) == sorted(found) and all(0 < place < steps for place in found)
    if steps == 100:
        assert list(found)[:5] == [22, 41, 57, 70, 80]
    assert [b - a for a, b in pairwise([0, *found])] == list(found.values())


def test_two_classes_have_no_ratio_of_logits(linear: Any) -> None:
    model, images = linear(torch.randn(2, 16), torch.zeros(2)), torch.rand(3, 1, 4, 4)
    labels = model(images).argmax(dim=1)
    with pytest.raises(InputError, match=r"third largest logit.*apgd-ce"):
        build_attack("apgd-dlr")(model, images, labels=labels, context=CONTEXT)
    found = build_attack("apgd-ce", epsilon=0.5, steps=20)(model, images, labels=labels, context=CONTEXT)
    assert (model(found).argmax(dim=1) != labels).any()
