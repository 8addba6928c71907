"""Wrong settings and inputs are refused, each with a way out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hashrobust.attacks import AttackContext, build_attack, outward
from hashrobust.attacks._alpha import alpha_at
from hashrobust.attacks._optimizers import OPTIMIZERS
from hashrobust.errors import InputError, UnknownNameError


@pytest.mark.parametrize(("params", "words"), [
    ({"epsilon": 8}, "8/255"), ({"epsilon": 0}, "epsilon"), ({"epsilon": -0.1}, "epsilon"),
    ({"epsilon": float("nan")}, "epsilon"), ({"steps": 0}, "steps"), ({"steps": 2.5}, "steps"),
    ({"restarts": 0}, "restarts"), ({"restarts": 2, "random_start": False}, "random_start"),
    ({"optimizer": "sing"}, "sign"), ({"alpha": 0}, "alpha"), ({"alpha": "A11"}, "A10"),
    ({"step_size": 0.0}, "step_size"), ({"steps": 10, "step_size": 1 / 255}, "cannot cross"),
    ({"step": 3}, "steps"), ({"preset": "orignal"}, "original"),
    ({"alpha": float("inf")}, "alpha is inf: give a finite number"),
    ({"step_size": float("inf")}, "step_size is inf"), ({"beta": float("nan")}, "beta is nan"),
])  # fmt: skip
def test_wrong_settings_are_refused_with_a_way_out(params: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_attack("hag", **params)


def test_unknown_attack_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="hag"):
        build_attack("hgg")
    with pytest.raises(InputError, match="none"):
        build_attack("noise", preset="saat")


def test_parameters_win_over_the_preset() -> None:
    attack: Any = build_attack("hag", preset="original", steps=50, seed=4)
    assert (attack.steps, attack.seed, attack.optimizer) == (50, 4, "gradient")


def test_wrong_inputs_are_refused(scene: Any) -> None:
    attack, model = build_attack("hag", steps=2), scene.model
    for images in (
        scene.images * 255,
        scene.images[0],
        scene.images.int(),
        scene.images - 1,
        scene.images[:0],
    ):
        with pytest.raises(InputError, match="images"):
            attack(model, images)
    with pytest.raises(InputError, match="rows"):
        attack(model, scene.images, context=AttackContext(sample_ids=torch.arange(3)))
    with pytest.raises(InputError, match="no gradient"):
        attack(lambda x: model(x).detach(), scene.images)
    with pytest.raises(InputError, match="outputs of shape"):
        attack(lambda x: x, scene.images)
    center = build_attack("center", steps=2)
    with pytest.raises(InputError, match=r"train_codes must be"):
        context = replace(scene.context, train_codes=scene.context.train_codes * 0.5)
        center(model, scene.images, labels=scene.labels, context=context)
    with pytest.raises(InputError, match=r"train_codes have \d+ bits and the model \d+ outputs"):
        context = replace(scene.context, train_codes=scene.context.train_codes[:, 1:])
        center(model, scene.images, labels=scene.labels, context=context)


def test_steps_that_cross_the_ball_but_for_rounding_are_enough() -> None:
    assert sum([0.01] * 10) < 2 * 0.05
    build_attack("hag", epsilon=0.05, steps=10, step_size=0.01)
    with pytest.raises(
        InputError, match=r"10 steps of 0.00999 cannot cross a ball of radius 0.05: take more steps"
    ):
        build_attack("hag", epsilon=0.05, steps=10, step_size=0.00999)


def test_outputs_of_zero_leave_alpha_at_1() -> None:
    outputs = torch.tensor([[0.0, 0.0], [2.0, -4.0]])
    assert torch.equal(alpha_at("auto", 0, 1, outputs), torch.tensor([[1.0], [1 / 3]]))
    assert alpha_at(3, 0, 1, outputs) == 3.0 and type(alpha_at(3, 0, 1, outputs)) is float


def test_images_are_left_as_they_are(scene: Any) -> None:
    images, before = scene.images, scene.images.clone()
    build_attack("hag", steps=2, random_start=False).run(scene.model, images)
    assert torch.equal(images, before) and not images.requires_grad


def test_theory_codes_of_codes_of_any_type(scene: Any) -> None:
    attack = build_attack("center")
    codes = torch.where(scene.model(scene.images) >= 0, 1.0, -1.0)
    found = attack.theory_codes(codes, scene.labels, scene.context)
    of_bytes = attack.theory_codes(codes.to(torch.int8), scene.labels, scene.context)
    assert found is not None and of_bytes is not None
    assert torch.equal(found, of_bytes) and found.dtype == of_bytes.dtype == torch.float32


def test_adam_of_all_but_no_gradient_equals_torch_s() -> None:
    direction, pixel = OPTIMIZERS["adam"](), torch.zeros(1, 1, 1, 1, requires_grad=True)
    adam = torch.optim.Adam([pixel], lr=1.0)
    for gradient in (1e-9, -3e-9, 1e-8):
        before = pixel.detach().clone()
        pixel.grad = torch.full_like(pixel, gradient)
        adam.step()
        torch.testing.assert_close(before - pixel.detach(), direction(pixel.grad), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("params", "words"), [
    ({"step_size": 0.0}, "step_size 0 moves nothing"), ({"step_size": -0.1}, "step_size -0.1 moves nothing"),
    ({"alpha": -1.0}, "alpha is -1.0: give a number above 0"),
    ({"steps": 10**6 + 1}, "steps is more than 1000000"), ({"eot": 10**6 + 1}, "eot is more than"),
    ({"restarts": 10**6 + 1}, "restarts is more than"),
])  # fmt: skip
def test_numbers_beyond_what_makes_sense(params: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_attack("hag", **params)


def test_the_most_steps_are_allowed() -> None:
    attack: Any = build_attack("hag", steps=10**6, step_size=0.1)
    assert attack.steps == 10**6


def test_a_smaller_ball_without_a_radius_is_refused() -> None:
    with pytest.raises(InputError, match=r"epsilon 0.1 to 0 has no ratio"):
        outward(torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2), 0.1, 0.0)


def test_defaults_are_those_of_the_field() -> None:
    attack: Any = build_attack("hag")
    assert (attack.epsilon, attack.steps, attack.restarts, attack.eot) == (8 / 255, 100, 1, 1)
    assert (attack.optimizer, attack.alpha, attack.random_start, attack.seed) == ("sign", "auto", True, 0)
