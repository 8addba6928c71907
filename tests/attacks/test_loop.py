"""The one loop: what it reaches, what it keeps, and the mistakes that it must not make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hashrobust.attacks import AttackContext, GradientAttack, attacks, build_attack, inside_ball
from hashrobust.attacks._optimizers import OPTIMIZERS
from hashrobust.models import frozen
from hashrobust.rules import convert

Build = Callable[[Tensor, Tensor], nn.Module]


def recorded(model: nn.Module) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """The model, and the list of all images that it is going to be given."""
    seen: list[Tensor] = []

    def call(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return model(x)

    return call, seen


def separable(linear: Build, bits: int = 16) -> tuple[nn.Module, Tensor, Tensor]:
    """Each bit sees four pixels of its own: (model, images, bits that some image in the ball flips)."""
    weight = torch.zeros(bits, 4 * bits)
    for bit in range(bits):
        weight[bit, 4 * bit : 4 * bit + 4] = torch.randn(4)
    images = torch.rand(5, 1, 8, 8)
    bias = -(images.flatten(1) @ weight.T).mean(dim=0)
    model = linear(weight, bias)
    z = model(images).detach()
    h = torch.where(z >= 0, 1.0, -1.0)
    x = images.flatten(1)
    lowest = torch.empty_like(z)
    for bit in range(bits):
        down = (x - 8 / 255).clamp(min=0), (x + 8 / 255).clamp(max=1)
        signed = h[:, bit, None] * weight[bit]
        lowest[:, bit] = (
            torch.where(signed > 0, down[0] * signed, down[1] * signed).sum(1) + h[:, bit] * bias[bit]
        )
    assert lowest.abs().min() > 1e-5
    return model, images, lowest < 0


@pytest.mark.parametrize(("name", "options"), [
    ("hag", {"beta": 0.0}), ("sdha", {}), ("center", {}), ("center", {"loss": "saat"}),
    ("center", {"loss": "logit"}), ("center", {"optimizer": "adam", "step_size": 0.01}),
])  # fmt: skip
def test_reaches_the_known_optimum_of_a_linear_model(name: str, options: Any, linear: Build) -> None:
    model, images, flippable = separable(linear)
    h = torch.where(model(images) >= 0, 1.0, -1.0)
    # Each image alone in its class, its own code the only relevant one: every attack must flip all it can.
    context = AttackContext(train_codes=h, train_labels=torch.arange(5))
    context = replace(
        context,
        train_codes=torch.cat([h, -h]),
        train_labels=torch.cat([torch.arange(5), torch.full((5,), 5)]),
    )
    attack = build_attack(name, steps=60, **options)
    if name == "center":
        codes = attack.theory_codes(h, torch.arange(5), context)
        assert codes is not None
        flippable = torch.where(codes == -h, flippable, False)
    images = attack(model, images, labels=torch.arange(5), context=context)
    flipped = torch.where(model(images) >= 0, 1.0, -1.0) != h
    assert torch.equal(flipped & flippable, flippable)


def test_the_last_update_is_included(linear: Build) -> None:
    model = linear(torch.ones(1, 4), torch.tensor([-2.05]))
    images = torch.full((1, 1, 2, 2), 0.5) + torch.tensor(0.0201)
    attack = build_attack("hag", steps=1, step_size=2 * 0.03, epsilon=0.03, random_start=False)
    result = attack.run(model, images)
    assert result.objective.item() == -1.0 and result.clean_objective.item() == 1.0
    assert model(result.images).item() < 0 < model(images).item()


def slow_pgd(model: nn.Module, image: Tensor, code: Tensor, epsilon: float, steps: int) -> Tensor:
    """One image by plain signed descent on tanh(z / mean |z|) . code / K, best by hard then relaxed."""
    candidates = [image]
    x = image.clone()
    for _ in range(steps):
        leaf = x.clone().requires_grad_(True)
        z = model(leaf[None])[0]
        (torch.tanh(z / z.detach().abs().mean()) * code).mean().backward()
        x = (x - 1 / 255 * leaf.grad.sign()).clamp(image - epsilon, image + epsilon).clamp(0, 1)  # type: ignore[union-attr]
        candidates.append(x)

    def score(candidate: Tensor) -> tuple[float, float]:
        z = model(candidate[None])[0].detach()
        return (torch.where(z >= 0, 1.0, -1.0) * code).mean().item(), (torch.tanh(z) * code).mean().item()

    return min(candidates, key=score)


def test_equals_a_slow_loop_over_samples(scene: Any) -> None:
    attack = build_attack("center", loss="dot", steps=20, step_size=1 / 255, random_start=False)
    got = attack(scene.model, scene.images, labels=scene.labels, context=scene.context)
    h = torch.where(scene.model(scene.images) >= 0, 1.0, -1.0)
    theory = attack.theory_codes(h, scene.labels, scene.context)
    assert theory is not None
    for row in range(len(scene.images)):
        expected = slow_pgd(scene.model, scene.images[row], -theory[row], attack.epsilon, 20)
        assert (got[row] - expected).abs().max() < 1e-5


def test_recorded_objective_is_that_of_the_returned_images(scene: Any) -> None:
    attack = build_attack("hag", steps=10, restarts=2)
    result = attack.run(scene.model, scene.images, context=scene.context)
    h0, h = (torch.where(scene.model(x) >= 0, 1.0, -1.0) for x in (scene.images, result.images))
    torch.testing.assert_close(result.objective, (h * h0).mean(dim=1))


def test_finished_samples_are_still_returned(linear: Build) -> None:
    # Both bits of the first image flip within a few steps; the second image is out of reach.
    model = linear(torch.eye(4)[:2] * 100, torch.tensor([-50.0, -50.0]))
    images = torch.full((2, 1, 2, 2), 0.501)
    images[1] = 1.0
    result = build_attack("hag", steps=20, alpha=1.0, beta=0.0).run(model, images)
    assert result.finished.tolist() == [True, False]
    assert result.objective.tolist() == [-1.0, 1.0]
    assert result.gradient_evaluations[0] < 20 == result.gradient_evaluations[1]
    assert (model(result.images)[0] < 0).all()


def test_a_restart_never_makes_it_worse(scene: Any) -> None:
    one, three = (build_attack("hag", steps=5, restarts=n).run(scene.model, scene.images) for n in (1, 3))
    assert (three.objective <= one.objective).all()
    assert (three.gradient_evaluations == 15).all()


def test_no_gradient_is_missing_where_a_loss_has_nothing_left_to_ask_for(scene: Any) -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return scene.model(x).detach() + 0 * x.flatten(1)[:, :1]

    class Satisfied(type(build_attack("hag"))):  # type: ignore[misc]
        def at_goal(self, u: Tensor, clean: Any, state: Any) -> Tensor:
            return torch.arange(len(u)) < 2

    result = Satisfied(steps=4).run(Flat(), scene.images)
    assert result.zero_gradients.tolist() == [0, 0, 4, 4, 4, 4]


def test_zero_and_nonfinite_gradients_are_counted_and_harmless(scene: Any) -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return scene.model(x).detach() + 0 * x.flatten(1)[:, :1]

    attack = build_attack("hag", steps=4)
    result = attack.run(Flat(), scene.images)
    assert (result.zero_gradients == 4).all() and (result.nonfinite_gradients == 0).all()

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            # The derivative of sqrt at 0 is infinite: infinity times zero in the third image.
            bad = (x[:, :, :1, :1] * 0).sqrt().flatten(1).sum(1, keepdim=True) * 0
            return scene.model(x) + bad * torch.tensor([0, 0, 1.0, 0, 0, 0])[:, None]

    result = attack.run(Broken(), scene.images)
    assert result.nonfinite_gradients[2] == 4
    assert inside_ball(result.images, scene.images, attack.epsilon)


OF_GRADIENT = [
    name
    for name in attacks
    if issubclass(attacks[name], GradientAttack) and "hashing" in attacks[name].tasks  # type: ignore[arg-type, attr-defined]
]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [name for name in OF_GRADIENT if name not in ("uap", "tha")])
def test_outputs_that_are_not_numbers_never_win_and_harm_no_other_sample(
    name: str, value: float, scene: Any
) -> None:
    attack: Any = build_attack(name, steps=3)
    rows, calls = torch.arange(6) % 2 == 1, 0

    def model(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        z = scene.model(x)
        return z if calls == 1 else z * torch.where(rows, value, 1.0)[:, None]

    known: dict[str, Any] = {"labels": scene.labels, "context": scene.context}
    plain, result = attack.run(scene.model, scene.images, **known), attack.run(model, scene.images, **known)
    assert torch.equal(result.images[rows], scene.images[rows])
    assert not result.finished[rows].any()
    assert (result.nonfinite_gradients[rows] == attack.gradient_steps).all() or value == float("inf")
    assert torch.equal(result.images[~rows], plain.images[~rows])
    assert (result.nonfinite_gradients[~rows] == 0).all()


def test_before_step_sees_each_restart_and_step_before_the_forward_pass(scene: Any) -> None:
    events: list[Any] = []

    def model(x: Tensor) -> Tensor:
        events.append("forward")
        return scene.model(x)

    context = AttackContext(before_step=lambda restart, step: events.append((restart, step)))
    build_attack("hag", steps=2, restarts=2).run(model, scene.images, context=context)
    once = ["forward"]
    assert events == [*once, (0, 0), *once, (0, 1), *once, *once, (1, 0), *once, (1, 1), *once, *once]


def test_random_start_is_keyed_by_sample_id(scene: Any) -> None:
    images = scene.images[:1].repeat(3, 1, 1, 1)
    attack = build_attack("noise")
    noisy = attack(scene.model, images, context=AttackContext(sample_ids=torch.tensor([7, 8, 7])))
    assert torch.equal(noisy[0], noisy[2]) and not torch.equal(noisy[0], noisy[1])


def test_works_under_no_grad_and_with_frozen_parameters(scene: Any) -> None:
    attack = build_attack("hag", steps=5)
    free = attack(scene.model, scene.images)
    scene.model.requires_grad_(False)
    with torch.no_grad():
        frozen = attack(scene.model, scene.images)
    assert torch.equal(free, frozen)


@pytest.mark.parametrize("name", ["momentum", "gradient", "adam"])
def test_step_rules_equal_those_of_torch(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(6, 2, 1, 3, 3, generator=generator)
    ours, theirs = torch.zeros(2, 1, 3, 3), nn.Parameter(torch.zeros(2, 1, 3, 3))
    optimizer: torch.optim.Optimizer
    if name == "adam":
        optimizer = torch.optim.Adam([theirs], lr=0.1)
    else:
        optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=0.9 if name == "momentum" else 0.0)
    direction = OPTIMIZERS[name]()
    for gradient in gradients:
        ours = ours - 0.1 * direction(gradient)
        theirs.grad = gradient
        optimizer.step()
    torch.testing.assert_close(ours, theirs.detach())


def test_normalized_steps_have_the_given_norm_and_survive_zero() -> None:
    gradient = torch.randn(3, 1, 4, 4)
    gradient[1] = 0
    lengths = OPTIMIZERS["normalized"]()(gradient).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 100])
def test_default_step_sizes_fall_evenly_and_cross_the_ball(steps: int) -> None:
    attack: Any = build_attack("hag", steps=steps, epsilon=0.1)
    sizes = [attack.step_size_at(step) for step in range(steps)]
    assert sum(sizes) >= 0.2 * (1 - 1e-9)
    assert all(size > 0 for size in sizes)
    assert sizes[0] == pytest.approx(0.1) if steps >= 3 else sum(sizes) == pytest.approx(0.2)
    falls = [before - after for before, after in pairwise(sizes)]
    assert falls == pytest.approx([sizes[0] / steps] * (steps - 1))


def test_a_given_step_size_stays() -> None:
    attack: Any = build_attack("hag", steps=60, step_size=1 / 255)
    assert {attack.step_size_at(step) for step in range(60)} == {1 / 255}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_default_alpha_does_not_saturate_whatever_the_scale_of_the_outputs(scale: float, scene: Any) -> None:
    plain = build_attack("center", steps=30).run(
        scene.model, scene.images, labels=scene.labels, context=scene.context
    )
    scaled = build_attack("center", steps=30).run(
        lambda x: scale * scene.model(x), scene.images, labels=scene.labels, context=scene.context
    )
    torch.testing.assert_close(scaled.objective, plain.objective)
    assert (scaled.zero_gradients == 0).all()


@pytest.mark.parametrize("scale", [1e-6, 1e-3])
def test_small_outputs_do_not_leave_hag_to_its_balance(scale: float, scene: Any) -> None:
    assert scene.model(scene.images).abs().mean(dim=1).max() < 1
    plain, scaled = (
        build_attack("hag", steps=30).run(lambda x, s=s: s * scene.model(x), scene.images)
        for s in (1.0, scale)
    )
    torch.testing.assert_close(scaled.objective, plain.objective)


def test_default_alpha_follows_outputs_that_grow_in_the_ball(linear: Build) -> None:
    """All bits of the clean image are near zero, elsewhere in the ball far from it, where tanh would be flat."""
    bits = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    images = torch.full((4, 1, 8, 8), 0.5)
    model = linear(200 * bits, -200 * 0.5 * bits.sum(dim=1) + 0.1)
    assert model(images).abs().max() < 0.2
    result = build_attack("hag", steps=30).run(model, images, context=AttackContext())
    assert (result.zero_gradients == 0).all() and (result.objective < -0.5).all()


def test_a10_runs_through_the_tenths() -> None:
    from hashrobust.attacks._alpha import alpha_at

    values = [alpha_at("A10", step, 20, torch.ones(1, 2)) for step in range(20)]
    assert values == [v for v in (0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0) for _ in range(2)]


def test_losses_are_summed_so_that_the_batch_size_does_not_scale_the_step(scene: Any) -> None:
    attack = build_attack("hag", optimizer="gradient", step_size=0.05, steps=5, random_start=False)
    alone, whole = recorded(scene.model), recorded(scene.model)
    attack(whole[0], scene.images)
    attack(alone[0], scene.images[:1])
    moved = (whole[1][-1][:1] - scene.images[:1]).abs()
    assert 1e-4 < moved.max() < attack.epsilon
    torch.testing.assert_close(alone[1][-1], whole[1][-1][:1], atol=1e-6, rtol=0)


def test_each_restart_starts_elsewhere(scene: Any) -> None:
    model, seen = recorded(scene.model)
    build_attack("hag", steps=1, restarts=3).run(model, scene.images)
    # The clean images, then for each restart its start and the result of its only step.
    starts = [seen[1], seen[3], seen[5]]
    assert len({tuple(start.flatten().tolist()) for start in starts}) == 3


def test_random_starts_fill_the_ball_evenly(linear: Build) -> None:
    model, seen = recorded(linear(torch.randn(2, 1024), torch.zeros(2)))
    images = torch.full((3, 1, 32, 32), 0.5)
    build_attack("hag", steps=1, epsilon=0.1).run(model, images)
    places = ((seen[1] - images).flatten() / 0.1).double().sort().values
    ranks = (torch.arange(len(places)) + 0.5) / len(places)
    # Kolmogorov's distance from the uniform distribution on -1 ... 1.
    assert ((places + 1) / 2 - ranks).abs().max() < 2 / len(places) ** 0.5


def easy_and_out_of_reach(easy: int, far: int) -> Tensor:
    """Images whose two bits, 100 (x - .5), flip within a few steps, and such that never flip."""
    return torch.cat([torch.full((easy, 1, 2, 2), 0.501), torch.full((far, 1, 2, 2), 1.0)])


def finishing(linear: Build) -> nn.Module:
    return linear(torch.eye(4)[:2] * 100, torch.tensor([-50.0, -50.0]))


def test_finished_samples_leave_the_batch_once_they_are_half_of_it(linear: Build) -> None:
    model, seen = recorded(finishing(linear))
    images = easy_and_out_of_reach(2, 2)
    result = build_attack("hag", steps=20, alpha=1.0, beta=0.0, restarts=2).run(model, images)
    assert result.finished.tolist() == [True, True, False, False]
    sizes = [len(x) for x in seen]
    stop = int(result.gradient_evaluations[:2].max())
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 4 and sizes[-1] == 2
    # The clean images, the steps until both are finished, the pass that finds it.
    assert sizes.count(4) <= 2 + stop + 1
    assert (result.gradient_evaluations[2:] == 40).all()
    assert (model(result.images)[:2] < 0).all()


@pytest.mark.parametrize("steps", [20, 8])
@pytest.mark.parametrize("eot", [1, 2])
def test_no_model_is_asked_of_an_empty_batch(steps: int, eot: int, linear: Build) -> None:
    model, seen = recorded(finishing(linear))
    attack = build_attack("hag", steps=steps, alpha=1.0, beta=0.0, restarts=2, eot=eot)
    result = attack.run(model, easy_and_out_of_reach(3, 0))
    assert result.finished.all() and min(len(x) for x in seen) > 0
    assert (result.gradient_evaluations < eot * steps).all()


def test_finished_samples_stay_while_most_are_at_work(linear: Build) -> None:
    model, seen = recorded(finishing(linear))
    images = easy_and_out_of_reach(1, 2)
    # Within reach of zero, but not far enough beyond it.
    images[1:] = 0.53
    attack = build_attack("hag", steps=20, alpha=1.0, beta=0.0, step_size=0.004, optimizer="adam")
    result = attack.run(model, images)
    assert result.finished.tolist() == [True, False, False]
    stop = int(result.gradient_evaluations[0]) + 1
    assert stop < len(seen) - 1 and all(len(x) == 3 for x in seen)
    assert all(torch.equal(x[0], seen[stop][0]) for x in seen[stop:])
    assert not torch.equal(seen[1][1], seen[-1][1])


@pytest.mark.parametrize("optimizer", ["sign", "momentum", "adam"])
def test_who_stays_is_attacked_as_if_alone(optimizer: str, linear: Build) -> None:
    model = finishing(linear)
    images = easy_and_out_of_reach(3, 2)
    images[3:] = 0.51 + 0.05 * torch.rand(2, 1, 2, 2)
    attack = build_attack(
        "hag", steps=30, alpha=1.0, beta=0.0, epsilon=0.02, optimizer=optimizer, step_size=0.002
    )
    ids = torch.arange(5)
    whole = attack.run(model, images, context=AttackContext(sample_ids=ids))
    part = attack.run(model, images[3:], context=AttackContext(sample_ids=ids[3:]))
    assert whole.finished[:3].all() and not whole.finished[3:].all()
    torch.testing.assert_close(whole.images[3:], part.images, atol=1e-6, rtol=0)
    assert torch.equal(whole.gradient_evaluations[3:], part.gradient_evaluations)


class WeightGradients(TorchDispatchMode):
    """Counts the gradients of weights that convolutions and their backward passes compute."""

    def __init__(self) -> None:
        super().__init__()
        self.of_weights = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.of_weights += bool(args[-1][1]) or bool(args[-1][2])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", ["bp", "frsf"])
def test_no_gradient_of_a_weight_is_computed_and_a_frozen_model_is_restored(rule: str, scene: Any) -> None:
    convert(scene.model, rule)
    scene.model[0].bias.requires_grad_(False)
    needed = [parameter.requires_grad for parameter in scene.model.parameters()]
    attack = build_attack("hag", steps=3)
    counted = WeightGradients()
    with frozen(scene.model), counted:
        outcome = attack.run(scene.model, scene.images)
        assert not any(parameter.requires_grad for parameter in scene.model.parameters())
    assert not torch.equal(outcome.images, scene.images)
    assert all(parameter.grad is None for parameter in scene.model.parameters())
    assert [parameter.requires_grad for parameter in scene.model.parameters()] == needed
    assert sum(needed) == len(needed) - 1
    assert counted.of_weights == 0


def test_a_pixel_without_a_finite_gradient_stays_while_the_others_move(scene: Any) -> None:
    def model(x: Tensor) -> Tensor:
        # The derivative of the square root at 0 is infinite, and infinity times zero is not a number.
        return scene.model(x) + 0 * (0 * x[:, 0, :1, 0]).sqrt()

    attack = build_attack("hag", steps=10, random_start=False, optimizer="adam", step_size=0.01)
    result = attack.run(model, scene.images)
    assert (result.nonfinite_gradients == 10).all() and (result.zero_gradients == 0).all()
    change = (result.images - scene.images).abs()
    assert (change[:, 0, 0, 0] == 0).all() and (change.flatten(1).amax(dim=1) > 0.01).all()
