"""Starting from given images, such as those that were found in a smaller ball."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hashrobust.attacks import (
    AttackContext,
    GradientAttack,
    attacks,
    build_attack,
    inside_ball,
    outward,
    project,
)
from hashrobust.attacks._ball import ball
from hashrobust.errors import InputError

NAMES = [
    name
    for name, attack in ((name, build_attack(name)) for name in attacks)
    # Those that are fitted are slow or have no start of their own.
    if isinstance(attack, GradientAttack)
    and "hashing" in attack.tasks
    and not getattr(attack, "fits", False)
    and name != "uap"
]


@pytest.mark.parametrize("name", NAMES)
def test_never_worse_than_the_start(name: str, scene: Any) -> None:
    given: dict[str, Any] = {"labels": scene.labels, "context": scene.context}
    start = build_attack(name, steps=40, epsilon=0.1).run(scene.model, scene.images, **given)
    given["context"] = replace(scene.context, start_images=start.images)
    # Of a learning rate that leaves the start at once and for nothing.
    hasty = {"optimizer": "gradient", "step_size": 1e9, "random_start": False, "steps": 1}
    result = build_attack(name, epsilon=0.1, **hasty).run(scene.model, scene.images, **given)
    assert (result.objective <= start.objective).all()
    assert (start.objective < start.clean_objective).any()


def recorded(attack: Any, model: Any, images: Tensor, context: AttackContext) -> list[Tensor]:
    """What the model was asked."""
    seen: list[Tensor] = []

    def call(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return model(x)

    attack.run(call, images, context=context)
    return seen


def test_the_first_descent_starts_there_and_the_others_as_ever(scene: Any) -> None:
    attack = build_attack("hag", steps=1, restarts=3, epsilon=0.1)
    start = project(scene.images + 0.05 * torch.randn_like(scene.images), *ball(scene.images, 0.1))
    cold = recorded(attack, scene.model, scene.images, AttackContext())
    warm = recorded(attack, scene.model, scene.images, AttackContext(start_images=start))
    # The clean images, then for each restart its start and the result of its only step.
    assert torch.equal(warm[1], start) and not torch.equal(cold[1], start)
    assert torch.equal(warm[3], cold[3]) and torch.equal(warm[5], cold[5])


def test_a_start_outside_the_ball_is_projected(scene: Any) -> None:
    attack = build_attack("hag", steps=1, epsilon=0.05, random_start=False)
    far = scene.images + torch.randn_like(scene.images)
    start = recorded(attack, scene.model, scene.images, AttackContext(start_images=far.double()))[1]
    assert inside_ball(start, scene.images, 0.05) and start.dtype == scene.images.dtype
    assert torch.equal(start, project(far, *ball(scene.images, 0.05)))


def test_outward_keeps_the_direction_and_fills_the_larger_ball() -> None:
    clean = torch.rand(4, 1, 6, 6)
    clean[0] = 0.5
    images = project(clean + 0.02 * torch.randn_like(clean).sign(), *ball(clean, 0.02))
    moved = outward(images, clean, 0.02, 0.08)
    assert inside_ball(moved, clean, 0.08)
    torch.testing.assert_close(moved[0] - clean[0], 4 * (images[0] - clean[0]), atol=1e-6, rtol=0)
    # Where [0, 1] cuts the ball off, that is where it ends.
    torch.testing.assert_close(moved, (clean + 4 * (images - clean)).clamp(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("old", [0.0, -0.1])
def test_outward_of_a_ball_without_a_radius_is_refused(old: float) -> None:
    with pytest.raises(InputError, match="epsilon"):
        outward(torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2), old, 0.1)


def test_starts_that_do_not_fit_are_refused(scene: Any) -> None:
    for start, message in (
        (scene.images[:2], "shape"),
        (scene.images[:, :1], "shape"),
        (scene.images * float("nan"), "not numbers"),
    ):
        with pytest.raises(InputError, match=message):
            build_attack("hag").run(scene.model, scene.images, context=AttackContext(start_images=start))
