"""Expectation over transformation: a step follows the mean gradient of several passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.attacks import AttackContext, GradientAttack, build_attack
from hashrobust.errors import InputError
from hashrobust.seeding import keyed_generator

WEIGHT = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class RandomFeedback:
    """A linear model whose error travels back through its weight plus noise, drawn anew before a pass."""

    def __init__(self, spread: float) -> None:
        self.spread = spread
        self.keys: list[tuple[int, ...]] = []
        self.redraw(0, 0)
        self.keys.clear()

    def redraw(self, *key: int) -> None:
        self.keys.append(key)
        noise = torch.randn(WEIGHT.shape, generator=keyed_generator("feedback", *key))
        self.feedback = WEIGHT + self.spread * noise

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.flatten(1) - 0.5
        carried = rows @ self.feedback.T
        return carried + (rows @ WEIGHT.T - carried).detach()


def first_move(attack: Any, model: RandomFeedback) -> Tensor:
    """How the images change in the first step."""
    seen: list[Tensor] = []

    def recorded(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return model(x)

    attack.run(recorded, IMAGES, context=AttackContext(before_step=model.redraw))
    return (seen[-1] - IMAGES).flatten(1)


def agreement(passes: int) -> float:
    """Cosine of the first step with the one along the exact gradient."""
    options: dict[str, Any] = {"optimizer": "gradient", "step_size": 1e-3, "random_start": False}
    moves = [
        first_move(build_attack("hag", steps=1, eot=eot, **options), RandomFeedback(spread))
        for eot, spread in ((passes, 5.0), (1, 0.0))
    ]
    return float(F.cosine_similarity(*moves).min())


def test_the_mean_of_many_passes_comes_near_the_exact_direction() -> None:
    assert agreement(1) < 0.5 < 0.95 < agreement(400)


def test_two_passes_follow_the_mean_of_both() -> None:
    options: dict[str, Any] = {"optimizer": "gradient", "step_size": 1e-3, "random_start": False}
    model = RandomFeedback(5.0)
    both = first_move(build_attack("hag", steps=1, eot=2, **options), model)
    assert model.keys == [(0, 0), (0, 0, 1)]
    alone = []
    for key in model.keys:
        fixed = RandomFeedback(5.0)
        fixed.redraw(*key)
        move = build_attack("hag", steps=1, **options)
        seen: list[Tensor] = []
        move.run(lambda x, f=fixed, s=seen: s.append(x.detach()) or f(x), IMAGES)  # type: ignore[func-returns-value,misc]
        alone.append((seen[-1] - IMAGES).flatten(1))
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2, atol=1e-7, rtol=0)


def test_every_pass_is_counted_and_announced() -> None:
    model = RandomFeedback(1.0)
    attack = build_attack("hag", steps=3, restarts=2, eot=2)
    assert isinstance(attack, GradientAttack) and attack.gradient_steps == 12
    result = attack.run(model, IMAGES, context=AttackContext(before_step=model.redraw))
    assert (result.gradient_evaluations == 12).all()
    places = [(restart, step) for restart in range(2) for step in range(3)]
    assert model.keys == [key for place in places for key in (place, (*place, 1))]


def test_of_a_model_that_is_the_same_each_time_more_passes_change_nothing(scene: Any) -> None:
    one, two = (
        build_attack("center", steps=10, eot=eot).run(
            scene.model, scene.images, labels=scene.labels, context=scene.context
        )
        for eot in (1, 2)
    )
    # Half of the sum of two equal numbers is exact.
    assert torch.equal(one.images, two.images)
    assert (2 * one.gradient_evaluations == two.gradient_evaluations).all()


def test_steps_without_a_usable_gradient_are_counted_once(scene: Any) -> None:
    def flat(x: Tensor) -> Tensor:
        return scene.model(x).detach() + 0 * x.flatten(1)[:, :1]

    result = build_attack("hag", steps=4, eot=3).run(flat, scene.images)
    assert (result.zero_gradients == 4).all() and (result.gradient_evaluations == 12).all()


def test_a_single_pass_calls_before_step_as_ever(scene: Any) -> None:
    keys: list[Any] = []
    context = replace(scene.context, before_step=lambda restart, step: keys.append((restart, step)))
    build_attack("hag", steps=3).run(scene.model, scene.images, context=context)
    assert keys == [(0, 0), (0, 1), (0, 2)]


def test_an_attack_that_would_ignore_it_refuses_it() -> None:
    with pytest.raises(InputError, match="leave eot at 1"):
        build_attack("uap", eot=2)


@pytest.mark.parametrize("eot", [0, -1, 2.0])
def test_a_number_of_passes_that_is_none_is_refused(eot: Any) -> None:
    with pytest.raises(InputError, match=r"eot (of attack hag )?is"):
        build_attack("hag", eot=eot)
