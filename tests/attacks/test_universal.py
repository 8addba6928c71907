"""`uap`: one perturbation for all images, from the training images alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hashrobust.attacks import AttackContext, build_attack
from hashrobust.errors import InputError


def change(images: Tensor, adversarial: Tensor) -> Tensor:
    """What was added, where no clipping to [0, 1] can have hidden it."""
    free = ((images > 0.1) & (images < 0.9)).all(dim=0)
    return ((adversarial - images) * free).detach()


def test_all_images_get_the_same_perturbation_whatever_the_batch(scene: Any) -> None:
    attack = build_attack("uap", steps=12, fit_batch=8)
    scene.images.mul_(0.6).add_(0.2)
    whole = change(
        scene.images, attack(scene.model, scene.images, labels=scene.labels, context=scene.context)
    )
    assert (whole != 0).any()
    torch.testing.assert_close(whole, whole[:1].expand_as(whole), atol=1e-6, rtol=0)
    context = replace(scene.context, sample_ids=torch.arange(2), targets=None)
    part = attack(scene.model, scene.images[:2], context=context)
    torch.testing.assert_close(part - scene.images[:2], whole[:2], atol=1e-6, rtol=0)


def test_targeted_it_is_the_same_for_the_same_target(scene: Any) -> None:
    attack = build_attack("uap", steps=12, targeted=True)
    scene.images.mul_(0.6).add_(0.2)
    targets = torch.tensor([2, 3, 2, 3, 3, 3])
    context = replace(scene.context, targets=targets)
    changes = change(scene.images, attack(scene.model, scene.images, labels=scene.labels, context=context))
    for target in (2, 3):
        rows = changes[targets == target]
        torch.testing.assert_close(rows, rows[:1].expand_as(rows), atol=1e-6, rtol=0)
    assert not torch.allclose(changes[0], changes[1], atol=1e-3)


def test_equals_a_slow_loop_over_training_images(scene: Any) -> None:
    steps, size, epsilon, step_size = 15, 6, 0.04, 0.01
    train, context, drawn = scene.context.train_images, scene.context, []

    def load(rows: Tensor) -> Tensor:
        drawn.append(rows)
        return train[rows]

    attack = build_attack(
        "uap",
        loss="dot",
        steps=steps,
        fit_batch=size,
        epsilon=epsilon,
        step_size=step_size,
        alpha=0.7,
        random_start=False,
    )
    got = attack(scene.model, scene.images, context=replace(context, train_images=load))
    drawn = drawn[1:]  # the first call asks for the shape of an image
    center = build_attack("center")
    total = torch.zeros_like(train[0])
    for rows in drawn:
        codes = torch.where(scene.model(train[rows]) >= 0, 1.0, -1.0)
        away = center.theory_codes(codes, context.train_labels[rows], context)
        gradient = torch.zeros_like(total)
        for row, opposite in zip(rows.tolist(), away, strict=True):  # type: ignore[arg-type]
            x = (train[row] + total).clamp(0, 1).requires_grad_(True)
            loss = -(torch.tanh(0.7 * scene.model(x[None])[0]) * opposite).mean()
            gradient += torch.autograd.grad(loss, x)[0]
        total = (total - step_size * gradient.sign()).clamp(-epsilon, epsilon)
    assert len(drawn) == steps and (total.abs() == epsilon).any() and (total.abs() < epsilon - 1e-3).any()
    expected = (scene.images + total).clamp(0, 1)
    # Where the summed gradient vanishes but for rounding, its sign is a matter of luck.
    assert ((got - expected).abs() < 1e-5).float().mean() > 0.97


def test_a_loader_and_a_tensor_of_training_images_are_the_same(scene: Any) -> None:
    attack = build_attack("uap", steps=4, fit_batch=5)
    images, asked = scene.context.train_images, []

    def load(rows: Tensor) -> Tensor:
        asked.append(rows)
        return images[rows]

    first, second = (
        attack(scene.model, scene.images, context=replace(scene.context, train_images=given))
        for given in (images, load)
    )
    assert torch.equal(first, second)
    shape, *drawn = asked
    assert len(shape) == 1 and [len(rows) for rows in drawn] == [5] * 4
    assert all(len(set(rows.tolist())) == 5 for rows in drawn)
    assert len({tuple(rows.tolist()) for rows in drawn}) == 4


@pytest.mark.parametrize("targeted", [False, True])
def test_fitted_once_it_is_what_each_call_would_fit(targeted: bool, scene: Any) -> None:
    attack = build_attack("uap", steps=6, fit_batch=8, targeted=targeted)
    fitted = attack.fit(scene.model, replace(scene.context, targets=None, sample_ids=None))
    assert attack.fits and fitted["change"].shape == (4 if targeted else 1, 3, 8, 8)
    calls: list[int] = []

    def model(images: Tensor) -> Tensor:
        calls.append(len(images))
        return scene.model(images)

    known = replace(scene.context, fitted=fitted, train_images=lambda rows: pytest.fail("fitted again"))
    reused = attack.run(model, scene.images, labels=scene.labels, context=known)
    assert calls == [6, 6]
    anew = attack.run(scene.model, scene.images, labels=scene.labels, context=scene.context)
    for field in ("images", "objective", "zero_gradients", "nonfinite_gradients", "gradient_evaluations"):
        assert torch.equal(getattr(reused, field), getattr(anew, field))
    assert (reused.gradient_evaluations == 6).all()


def test_classes_that_only_queries_have_change_nothing(scene: Any) -> None:
    attack = build_attack("uap", steps=6, targeted=True)
    wide = nn.functional.one_hot(scene.context.train_labels, 9)
    one = attack.fit(scene.model, scene.context)
    two = attack.fit(scene.model, replace(scene.context, train_labels=wide))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_multi_label_targets_get_the_perturbation_of_their_own_vector(scene: Any) -> None:
    vectors = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 0]])
    scene.images.mul_(0.6).add_(0.2)
    context = replace(
        scene.context, train_labels=vectors[torch.arange(40) % 4], targets=vectors[[2, 0, 3, 3, 2, 0]]
    )
    context = replace(context, database_labels=None, database_codes=None)
    attack = build_attack("uap", steps=6, targeted=True)
    fitted = attack.fit(scene.model, context)
    assert len(fitted["change"]) == 3
    context = replace(
        context,
        fitted={**fitted, "change": torch.tensor([0.01, 0.02, 0.03])[:, None, None, None].expand(3, 3, 8, 8)},
    )
    got = attack(scene.model, scene.images, context=context) - scene.images
    torch.testing.assert_close(
        got[:, 0, 0, 0], torch.tensor([0.02, 0.01, 0.03, 0.03, 0.02, 0.01]), atol=1e-6, rtol=0
    )


def test_what_does_not_fit_is_refused(scene: Any) -> None:
    attack = build_attack("uap", steps=4, targeted=True)
    unseen = replace(scene.context, targets=torch.full((6,), 4))
    with pytest.raises(InputError, match="no training image has"):
        attack(scene.model, scene.images, labels=scene.labels, context=unseen)
    single = build_attack("uap", steps=4).fit(scene.model, scene.context)
    with pytest.raises(InputError, match="fit the attack to this training set"):
        attack(scene.model, scene.images, context=replace(scene.context, fitted=single))
    with pytest.raises(InputError, match="holds no 'change'"):
        attack(scene.model, scene.images, context=replace(scene.context, fitted={}))
    blank = replace(scene.context, train_labels=torch.zeros(40, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match="train_labels hold no label"):
        attack.fit(scene.model, blank)


@pytest.mark.parametrize("targeted", [False, True])
def test_known_optimum_of_a_linear_model(
    targeted: bool, linear: Callable[[Tensor, Tensor], nn.Module]
) -> None:
    # All images share a center code c, and each pixel weighs on one bit: the best change of a pixel is
    # -epsilon times the sign of c o w.
    weight = torch.zeros(4, 16)
    for bit in range(4):
        weight[bit, 4 * bit : 4 * bit + 4] = torch.randn(4)
    model, code = linear(weight, torch.zeros(4)), torch.tensor([1.0, -1.0, 1.0, 1.0])
    train = 0.3 + 0.4 * torch.rand(30, 1, 4, 4)
    context = AttackContext(
        train_codes=torch.cat([code.repeat(15, 1), -code.repeat(15, 1)]),
        train_labels=torch.zeros(30, dtype=torch.int64) if not targeted else torch.arange(30) // 15,
        train_images=train,
        targets=torch.zeros(3, dtype=torch.int64) if targeted else None,
    )
    if not targeted:
        context = replace(context, train_codes=code.repeat(30, 1))
    images = 0.3 + 0.4 * torch.rand(3, 1, 4, 4)
    attack = build_attack("uap", loss="dot", steps=60, epsilon=0.1, targeted=targeted)
    result = attack.run(model, images, labels=torch.zeros(3, dtype=torch.int64), context=context)
    best = 0.1 * torch.sign(code @ weight) * (1 if targeted else -1)
    torch.testing.assert_close((result.images - images).flatten(1), best.expand(3, -1), atol=1e-6, rtol=0)
    agreement = (torch.where(model(result.images) >= 0, 1.0, -1.0) * code).mean(dim=1)
    torch.testing.assert_close(result.objective, -agreement if targeted else agreement)


def test_rule_gradients_are_redrawn_before_each_step(scene: Any) -> None:
    events: list[tuple[int, int]] = []
    context = replace(scene.context, before_step=lambda *place: events.append(place))
    result = build_attack("uap", steps=5).run(scene.model, scene.images, context=context)
    assert events == [(0, step) for step in range(5)]
    assert (result.gradient_evaluations == 5).all()


def test_zero_and_nonfinite_gradients_are_counted(scene: Any) -> None:
    def flat(x: Tensor) -> Tensor:
        return scene.model(x).detach() + 0 * x.flatten(1)[:, :1]

    result = build_attack("uap", steps=4).run(flat, scene.images, context=scene.context)
    assert (result.zero_gradients == 4).all() and (result.nonfinite_gradients == 0).all()

    def broken(x: Tensor) -> Tensor:
        return scene.model(x) + 0 * (0 * x[:, 0, :1, 0]).sqrt()

    attack = build_attack("uap", steps=4, optimizer="adam", step_size=0.02)
    result = attack.run(broken, scene.images, context=scene.context)
    assert (result.nonfinite_gradients == 4).all() and (result.zero_gradients == 0).all()
    assert result.images.isfinite().all()


def test_training_images_must_fit_the_codes(scene: Any) -> None:
    context = replace(scene.context, train_images=scene.context.train_images[:7])
    with pytest.raises(InputError, match="train_images has 7 rows for 40"):
        build_attack("uap", steps=4)(scene.model, scene.images, context=context)
