"""Attacks that only ask the model: what they ask, how often, and what they reach."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hashrobust.attacks import AttackContext, OracleError, ball, build_attack
from hashrobust.attacks._search import share_at
from hashrobust.errors import HashRobustError, InputError

NAMES = ("random-search", "square")


def sign(z: Tensor) -> Tensor:
    return torch.where(z >= 0, 1.0, -1.0)


def recorded(model: Callable[[Tensor], Tensor]) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    seen: list[Tensor] = []

    def call(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return model(x)

    return call, seen


class Answers(torch.autograd.Function):
    """The identity, whose backward pass is refused."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise AssertionError("no gradients")


@pytest.mark.parametrize("name", NAMES)
def test_takes_no_gradient_and_keeps_no_graph(name: str, scene: Any) -> None:
    graphs: list[bool] = []

    def model(x: Tensor) -> Tensor:
        z = scene.model(Answers.apply(x))
        graphs.append(z.requires_grad)
        return z

    plain = build_attack(name, budget=30)(scene.model, scene.images)
    assert torch.equal(build_attack(name, budget=30)(model, scene.images), plain)
    assert not any(graphs)
    detached = build_attack(name, budget=30)(lambda x: scene.model(x).detach(), scene.images)
    assert torch.equal(detached, plain)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", [2, 3, 57])
def test_asks_just_as_often_as_it_says(name: str, budget: int, scene: Any) -> None:
    model, seen = recorded(scene.model)
    result = build_attack(name, budget=budget).run(model, scene.images)
    assert not result.finished.any()
    assert len(seen) == budget and (result.queries == budget).all()
    assert torch.equal(seen[0], scene.images)


@pytest.mark.parametrize("oracle", ["relaxed", "codes"])
@pytest.mark.parametrize("name", NAMES)
def test_stops_as_soon_as_all_bits_are_flipped(
    name: str, oracle: str, linear: Callable[[Tensor, Tensor], nn.Module]
) -> None:
    # The first image is flipped by any step down, the second out of reach.
    model, seen = recorded(linear(torch.eye(16)[:2] * 100, torch.tensor([-50.0, -50.0])))
    images = torch.full((2, 1, 4, 4), 0.501)
    images[1] = 1.0
    attack: Any = build_attack(name, budget=60, oracle=oracle)
    result = attack.run(model, images)
    assert result.finished.tolist() == [True, False]
    assert result.objective.tolist() == [-1.0, 1.0]
    first = next(i for i, x in enumerate(seen) if (x.flatten(1)[0, :2] < 0.5).all())
    assert result.queries.tolist() == [first + 1, 60]
    assert torch.equal(result.images[0], seen[first][0])
    both = recorded(linear(torch.eye(16)[:2] * 100, torch.tensor([-50.0, -50.0])))
    assert (attack.run(both[0], images[:1]).queries == len(both[1])).all()


def test_an_image_that_is_there_already_asks_no_more(scene: Any) -> None:
    own = sign(scene.model(scene.images)).detach()
    # The center code of the only class is the opposite of the first image's code, and not of the second's.
    context = AttackContext(train_codes=-own[:1], train_labels=torch.tensor([0]))
    labels = torch.zeros(2, dtype=torch.int64)
    assert not torch.equal(own[0], own[1])
    result = build_attack("square", budget=9).run(
        scene.model, scene.images[:2], labels=labels, context=context
    )
    assert result.finished[0] and result.queries[0] == 1 < result.queries[1]
    assert torch.equal(result.images[0], scene.images[0])


@pytest.mark.parametrize("name", NAMES)
def test_every_image_asked_about_is_in_the_corners_of_the_ball(name: str, scene: Any) -> None:
    model, seen = recorded(scene.model)
    scene.images[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    build_attack(name, budget=40, epsilon=0.1).run(model, scene.images)
    lower, upper = ball(scene.images, 0.1)
    for images in seen[1:]:
        assert ((images == lower) | (images == upper)).all()


def test_square_starts_from_stripes_and_moves_in_squares(scene: Any) -> None:
    scene.model.requires_grad_(False)
    model, seen = recorded(scene.model)
    budget, share = 202, 0.8
    scene.images.mul_(0.8).add_(0.1)
    build_attack("square", budget=budget, share=share, epsilon=0.05).run(model, scene.images)
    up = [x > scene.images for x in seen]
    assert (up[1] == up[1][:, :, :1, :]).all()
    assert 0 < up[1].float().mean() < 1
    # A proposal differs from the present image, the start or an earlier proposal, in one square at most.
    sides = [max(round(math.sqrt(share_at(share, i, budget - 2) * 64)), 1) for i in range(budget - 2)]
    assert sides[0] == 7 and sides[-1] == 1 and sorted(sides, reverse=True) == sides
    present = up[1][0]
    for proposal, side in zip(up[2:], sides, strict=True):
        changed = (proposal[0] != present).any(dim=0)
        if changed.any():
            rows, columns = changed.any(dim=1).nonzero().flatten(), changed.any(dim=0).nonzero().flatten()
            assert rows[-1] - rows[0] < side and columns[-1] - columns[0] < side
        if side > 1:
            # One sign a channel fills some square of the side.
            uniform = proposal[0].float().unfold(1, side, 1).unfold(2, side, 1).flatten(3).mean(dim=3)
            assert ((uniform == 0) | (uniform == 1)).all(dim=0).any()
        present = accepted(scene.model, scene.images, proposal, present, 0.05)


def accepted(model: nn.Module, images: Tensor, proposal: Tensor, present: Tensor, epsilon: float) -> Tensor:
    """Which of two corners of the first image's ball the search holds, by a relaxed oracle."""
    z0 = model(images)[0]

    def agreement(up: Tensor) -> float:
        lower, upper = ball(images[:1], epsilon)
        z = model(torch.where(up[None], upper, lower).expand(len(images), -1, -1, -1))[0]
        return float((torch.tanh(z / z0.abs().mean()) * sign(z0)).mean())

    return proposal[0] if agreement(proposal[0]) <= agreement(present) else present


def test_random_search_changes_the_share_of_the_pixels(scene: Any) -> None:
    attack: Any = build_attack("random-search")
    shape = torch.Size((3, 8, 8))
    numbers = torch.rand(50, attack.proposal_numbers(shape))
    for share in (0.8, 0.25, 1e-4):
        changed, up = attack.propose(numbers, share, shape)
        assert changed.shape == (50, 1, 8, 8) and up.shape == (50, 3, 8, 8)
        assert (changed.sum(dim=(1, 2, 3)) == max(round(64 * share), 1)).all()
        assert 0.4 < up.float().mean() < 0.6
        assert len(torch.unique(changed.flatten(1).int(), dim=0)) > 25
    assert changed.float().mean(dim=0).gt(0).float().mean() > 0.2


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 9), (1, 9, 4)])
def test_squares_reach_every_place_and_fit(shape: tuple[int, int, int]) -> None:
    attack: Any = build_attack("square")
    size = torch.Size(shape)
    numbers = torch.rand(2000, attack.proposal_numbers(size))
    numbers[0], numbers[1] = 0.0, 1.0 - 2.0**-24
    for share in (1.0, 0.3, 0.01):
        changed, _ = attack.propose(numbers, share, size)
        side = min(max(round(math.sqrt(share * shape[1] * shape[2])), 1), *shape[1:])
        assert (changed.sum(dim=(1, 2, 3)) == side**2).all()
        assert changed.any(dim=0).all()


def test_the_share_is_halved_where_published() -> None:
    # The published code by its table of intervals, for 10,000 proposals.
    table = {0: 1, 10: 1, 11: 2, 50: 2, 51: 4, 200: 4, 201: 8, 500: 8, 501: 16, 1000: 16, 1001: 32}
    table |= {2001: 64, 4000: 64, 4001: 128, 6001: 256, 8000: 256, 8001: 512, 9999: 512}
    for proposal, divisor in table.items():
        assert share_at(0.8, proposal, 10_000) == 0.8 / divisor
        assert share_at(0.8, proposal // 2, 5_000) == share_at(0.8, 2 * (proposal // 2), 10_000)


def flippable(images: Tensor, weight: Tensor, bias: Tensor, epsilon: float, code: Tensor) -> Tensor:
    """Which bits some image in the ball moves off the code, for z = weight x + bias."""
    lower, upper = (bound.flatten(1) for bound in ball(images, epsilon))
    signed = code[:, :, None] * weight[None]
    lowest = torch.where(signed > 0, lower[:, None] * signed, upper[:, None] * signed).sum(dim=2)
    return lowest + code * bias < 0


@pytest.mark.parametrize("oracle", ["relaxed", "codes"])
@pytest.mark.parametrize("name", NAMES)
def test_reaches_the_known_optimum_of_a_linear_model(
    name: str, oracle: str, linear: Callable[[Tensor, Tensor], nn.Module]
) -> None:
    # Each bit sees two pixels of its own, so that all that can be flipped can be flipped at once.
    weight = torch.zeros(8, 16)
    for bit in range(8):
        weight[bit, 2 * bit : 2 * bit + 2] = torch.randn(2)
    images = torch.rand(4, 1, 4, 4)
    bias = -(images.flatten(1) @ weight.T).mean(dim=0)
    model = linear(weight, bias)
    own = sign(model(images)).detach()
    can = flippable(images, weight, bias, 0.1, own)
    assert can.any() and not can.all()
    found = build_attack(name, budget=1500, epsilon=0.1, oracle=oracle)(model, images)
    assert torch.equal(sign(model(found)) != own, can)


def test_the_relaxed_oracle_tells_more_than_codes(scene: Any) -> None:
    relaxed, codes = (
        build_attack("square", budget=300, epsilon=0.03, oracle=oracle).run(scene.model, scene.images)
        for oracle in ("relaxed", "codes")
    )
    assert relaxed.objective.mean() < codes.objective.mean() < codes.clean_objective.mean()


def test_codes_are_all_that_the_strict_oracle_tells(scene: Any) -> None:
    attack = build_attack("square", budget=60, oracle="codes")
    plain = attack.run(scene.model, scene.images)
    blunt = attack.run(lambda x: sign(scene.model(x)) * 3, scene.images)
    assert torch.equal(plain.images, blunt.images)
    seeing = build_attack("square", budget=60)
    assert not torch.equal(seeing(scene.model, scene.images), plain.images)


def test_what_is_minimised_follows_from_what_is_known(scene: Any) -> None:
    own = sign(scene.model(scene.images)).detach()
    attack, targeted = build_attack("square"), build_attack("square", targeted=True)
    center, toward = build_attack("center"), build_attack("center", targeted=True)
    bare = replace(scene.context, train_codes=None)

    def theory(of: Any, labels: Tensor | None, context: AttackContext | None) -> Tensor:
        codes = of.theory_codes(own, labels, context)
        assert codes is not None
        return codes

    for context in (None, bare):
        assert torch.equal(theory(attack, scene.labels, context), -own)
    assert torch.equal(theory(attack, None, scene.context), -own)
    known = scene.labels, scene.context
    assert torch.equal(theory(attack, *known), theory(center, *known))
    assert torch.equal(theory(targeted, *known), theory(toward, *known))
    for by in (attack, targeted):
        result = replace(by, budget=80).run(
            scene.model, scene.images, labels=scene.labels, context=scene.context
        )
        wanted = theory(by, *known)
        found = -(sign(scene.model(result.images)) * wanted).mean(dim=1)
        torch.testing.assert_close(result.objective, found)
        assert result.objective.mean() < result.clean_objective.mean()


def test_an_oracle_that_refuses_leaves_the_best_so_far(scene: Any) -> None:
    model, seen = recorded(scene.model)

    def limited(x: Tensor) -> Tensor:
        if len(seen) == 20:
            raise ConnectionError("quota")
        return model(x)

    with pytest.raises(HashRobustError, match=r"after 20 of 50 queries.*quota.*budget") as caught:
        build_attack("square", budget=50)(limited, scene.images)
    assert isinstance(caught.value, OracleError)
    # As if the budget had been the 20, but for the schedule of the shares.
    result = caught.value.result
    assert (result.queries == 20).all()
    own = sign(scene.model(scene.images))
    offered = torch.stack([(sign(scene.model(x)) * own).mean(dim=1) for x in seen])
    torch.testing.assert_close(result.objective, offered.min(dim=0).values.detach())


def test_a_model_of_the_wrong_shape_is_still_an_input_error(scene: Any) -> None:
    with pytest.raises(InputError, match="outputs of shape"):
        build_attack("square", budget=5)(lambda x: x, scene.images)


def test_answers_that_are_not_numbers_change_nothing(scene: Any) -> None:
    calls = 0

    def model(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return scene.model(x) if calls == 1 else scene.model(x) * float("nan")

    result = build_attack("square", budget=9).run(model, scene.images)
    assert torch.equal(result.images, scene.images) and not result.finished.any()


def test_a_proposal_without_an_answer_is_not_built_upon(scene: Any) -> None:
    calls = 0

    def model(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.full((len(x), 4), float("nan") if calls % 3 == 0 else 1.0)

    ask, seen = recorded(model)
    build_attack("square", budget=40, share=1 / 64, oracle="codes")(ask, scene.images)
    # All other answers are equal, and so accepted: each proposal is one pixel away from the last of those.
    for number in range(3, 40):
        last = seen[number - 1 if number % 3 else number - 2] if number > 2 else seen[1]
        changed = (seen[number] != last).any(dim=1).flatten(1).sum(dim=1)
        assert (changed <= 1).all()


def test_draws_do_not_repeat(scene: Any) -> None:
    attack: Any = build_attack("random-search", budget=700)
    moves = list(attack._moves(scene.images[:2], torch.tensor([3, 4])))
    assert len(moves) == 699
    signs = torch.stack([up.flatten(1) for _, up in moves])
    assert len(torch.unique(signs.flatten(0, 1).int(), dim=0)) == 2 * 699
