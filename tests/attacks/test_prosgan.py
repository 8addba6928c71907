"""`prosgan`: one generator for all targets, trained once, one pass a query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hashrobust.attacks import AttackContext, AttackResult, build_attack, inside_ball
from hashrobust.errors import InputError

Build = Callable[[Tensor, Tensor], nn.Module]

BITS = 8
SHORT: dict[str, Any] = {"prototype_steps": 5, "epochs": 1, "decay_epochs": 0}
TRAINED: dict[str, Any] = {
    "prototype_steps": 10,
    "epsilon": 0.15,
    "epochs": 4,
    "decay_epochs": 3,
    "learning_rate": 3e-3,
    "batch": 20,
}


@pytest.fixture
def trained(linear: Build) -> tuple[nn.Module, AttackContext, Tensor]:
    """A linear model on 10 by 10 images of two classes with opposite codes, its context, and queries."""
    code = torch.tensor([1.0, -1.0] * (BITS // 2))
    direction = torch.where(torch.randn(100) > 0, 1.0, -1.0)
    sign = torch.where(torch.arange(80) % 2 == 0, 1.0, -1.0)
    images = (0.5 + 0.1 * sign[:, None] * direction + 0.1 * torch.randn(80, 100)).clamp(0, 1)
    model = linear(code[:, None] * direction + 0.3 * torch.randn(BITS, 100), torch.zeros(BITS))
    with torch.no_grad():
        model[1].bias.copy_(-model[1].weight.sum(dim=1) / 2)
    images = images.view(80, 1, 10, 10)
    context = AttackContext(
        train_codes=torch.where(model(images) >= 0, 1.0, -1.0),
        train_labels=torch.arange(80) % 2,
        train_images=images,
        targets=1 - torch.arange(20) % 2,
    )
    queries = (0.5 + 0.1 * sign[:20, None] * direction + 0.1 * torch.randn(20, 100)).clamp(0, 1)
    return model, context, queries.view(20, 1, 10, 10)


def agreement(model: nn.Module, images: Tensor, goal: Tensor) -> float:
    return float((torch.where(model(images) >= 0, 1.0, -1.0) * goal).mean())


def test_it_learns_to_reach_both_targets(trained: tuple[nn.Module, AttackContext, Tensor]) -> None:
    model, context, queries = trained
    attack = build_attack("prosgan", **TRAINED)
    fitted = attack.fit(model, context)
    known = replace(context, fitted=fitted)
    result = attack.run(model, queries, context=known)
    goal = attack.theory_codes(torch.where(model(queries) >= 0, 1.0, -1.0), None, known)
    assert goal is not None and torch.equal(goal[0], goal[2]) and not torch.equal(goal[0], goal[1])
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        before = agreement(model, queries[rows], goal[rows])
        assert agreement(model, result.images[rows], goal[rows]) > before + 1
    torch.testing.assert_close(
        result.objective, -(torch.where(model(result.images) >= 0, 1.0, -1.0) * goal).mean(dim=1)
    )
    # The same images with the targets swapped stay where they are: the generator heeds its condition.
    own = replace(known, targets=1 - context.targets)  # type: ignore[operator]
    assert agreement(model, attack(model, queries, context=own), goal) < -0.8


def test_one_pass_a_query(scene: Any) -> None:
    attack = build_attack("prosgan", **SHORT)
    context = replace(scene.context, fitted=attack.fit(scene.model, scene.context))
    calls: list[bool] = []

    def model(images: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return scene.model(images)

    result = attack.run(model, scene.images, context=context)
    assert calls == [False, False]  # the clean images and the result
    assert (result.gradient_evaluations == 0).all() and (result.queries == 0).all()


def test_unbounded_only_on_request(trained: tuple[nn.Module, AttackContext, Tensor]) -> None:
    model, context, queries = trained
    context = replace(context, fitted=None)
    results: dict[bool, AttackResult] = {}
    for bounded in (True, False):
        attack = build_attack("prosgan", **{**TRAINED, "epsilon": 0.01, "bounded": bounded, "weight": 1.0})
        assert attack.bounded is bounded
        results[bounded] = attack.run(model, queries, context=context)
        assert results[bounded].bounded is bounded
    assert build_attack("prosgan").bounded
    assert inside_ball(results[True].images, queries, 0.01)
    assert inside_ball(results[False].images, queries, 1.0)
    assert not inside_ball(results[False].images, queries, 0.05)


def test_the_weight_holds_the_change_down(trained: tuple[nn.Module, AttackContext, Tensor]) -> None:
    model, context, queries = trained
    sizes = [
        float((attack(model, queries, context=context) - queries).square().mean())
        for attack in (build_attack("prosgan", **TRAINED, weight=weight) for weight in (0.0, 10_000.0))
    ]
    assert sizes[1] < sizes[0] / 3


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 7, 5), (1, 28, 28)])
def test_images_of_any_shape(shape: tuple[int, int, int], linear: Build) -> None:
    size = shape[0] * shape[1] * shape[2]
    model = linear(torch.randn(4, size), torch.zeros(4))
    train = torch.rand(10, *shape)
    context = AttackContext(
        train_codes=torch.where(model(train) >= 0, 1.0, -1.0),
        train_labels=torch.arange(10) % 2,
        train_images=train,
        targets=torch.tensor([0, 1, 1]),
    )
    images = torch.rand(3, *shape)
    attack = build_attack("prosgan", **SHORT)
    fitted = attack.fit(model, context)
    changed = attack(model, images, context=replace(context, fitted=fitted))
    assert changed.shape == images.shape and inside_ball(changed, images, 8 / 255)
    double = attack(model.double(), images.double(), context=replace(context, fitted=fitted))
    assert double.dtype == torch.float64 and (double - changed).abs().max() < 1e-5


def test_feedback_is_redrawn_before_each_training_step_and_the_model_gets_no_gradient(scene: Any) -> None:
    events: list[tuple[int, int]] = []
    context = replace(scene.context, before_step=lambda *place: events.append(place))
    attack = build_attack("prosgan", **{**SHORT, "epochs": 2, "batch": 16})
    attack.fit(scene.model, context)
    assert events == [(0, step) for step in range(6)]
    assert all(parameter.grad is None for parameter in scene.model.parameters())


def test_a_loader_and_a_tensor_of_training_images_are_the_same(scene: Any) -> None:
    attack = build_attack("prosgan", **SHORT)
    images = scene.context.train_images
    first, second = (
        attack.fit(scene.model, replace(scene.context, train_images=given))
        for given in (images, lambda rows: images[rows])
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"decay_epochs": -1}, "decay_epochs is -1"),
        ({"batch": 0}, "batch is 0"),
        ({"bounded": "no"}, "bounded of attack prosgan is 'no'"),
        ({"learning_rate": 0.0}, "learning_rate 0 learns nothing"),
        ({"weight": -1.0}, "weight -1 rewards"),
        ({"alpha": "B10"}, "alpha"),
        ({"prototype_steps": 0}, "prototype_steps is 0"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build_attack("prosgan", **wrong)


def test_what_does_not_fit_is_refused(scene: Any) -> None:
    attack = build_attack("prosgan", **SHORT)
    gray = replace(scene.context, train_images=torch.rand(40, 1, 8, 8))
    fitted = attack.fit(lambda x: scene.model(x.expand(-1, 3, -1, -1)), gray)
    with pytest.raises(InputError, match="weights 'generator' of other shapes"):
        attack(scene.model, scene.images, context=replace(scene.context, fitted=fitted))

    def broken(images: Tensor) -> Tensor:
        return scene.model(images) * torch.nan

    with pytest.raises(InputError, match="diverged"):
        attack.fit(broken, scene.context)
