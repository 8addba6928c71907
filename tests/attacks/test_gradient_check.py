"""The check of gradients: right ones pass, also on kinks; wrong ones fail and are not taken for kinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hashrobust.attacks import check_gradient
from hashrobust.errors import InputError


def smooth() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 8)).double()


def pooling() -> nn.Module:
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 8)),
    )
    return net.double()


def constant_background() -> Tensor:
    """Something in the midst of black, on which a maximum over a window is a maximum of equals."""
    images = torch.zeros(6, 1, 8, 8)
    images[:, :, 3:5, 3:5] = torch.rand(6, 1, 2, 2)
    return images


def with_backward(
    backward: Callable[[Tensor], Tensor], forward: Callable[[Tensor], Tensor] = torch.clone
) -> Any:
    """A layer with the derivative that it is given."""

    class Layer(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return forward(x)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return backward(gradient)

    return Layer.apply


def test_true_gradients_pass() -> None:
    check = check_gradient(smooth(), torch.rand(10, 1, 8, 8))
    assert check.passed and check.cosine > 1 - 1e-9 and check.kink_share == 0
    for place in (check.clean, check.start):
        assert place.pairs == 160 and place.kinks == 0 and place.relative_error < 1e-5


def test_true_gradients_of_images_on_kinks_pass_and_the_kinks_are_counted() -> None:
    check = check_gradient(pooling(), constant_background())
    assert check.clean.kink_share > 0.5
    assert check.start.kinks < 10 and check.kink_share == check.start.kink_share
    assert check.passed and check.cosine > 0.99999


@pytest.mark.parametrize("seed", [12, 20, 30])
def test_the_few_pairs_that_kinks_leave_do_not_decide(seed: int) -> None:
    """One pair is left, whose derivative is smaller than the bend that counts as none."""
    torch.manual_seed(seed)
    model, images = pooling(), constant_background()
    own = model(images.double()).sign().detach()
    check = check_gradient(model, images, lambda z: (torch.tanh(z) * own).mean(dim=1))
    assert 0.95 < check.clean.kink_share < 1 and check.clean.cosine is None and check.passed


def test_a_clean_image_on_kinks_throughout_leaves_the_verdict_to_the_start() -> None:
    check = check_gradient(lambda x: (x - 0.5).abs().flatten(1), torch.full((2, 1, 2, 2), 0.5), torch_sum)
    assert check.clean.kinks == check.clean.pairs and check.clean.cosine is None
    assert check.passed and check.cosine == check.start.cosine


def torch_sum(z: Tensor) -> Tensor:
    return z.sum(dim=1)


SLOPES = torch.linspace(0.2, 2, 8, dtype=torch.float64)
WRONG = {
    "flipped": with_backward(lambda gradient: -gradient),
    "scaled by pixel": with_backward(lambda gradient: gradient * SLOPES),
    "zeroed": with_backward(torch.zeros_like),
    "some detached": lambda x: torch.cat([x[..., :6], x[..., 6:].detach()], dim=-1),
    "rounded to levels": with_backward(torch.clone, lambda x: (x * 255).round() / 255),
    "rounded finely": with_backward(torch.clone, lambda x: (x * 2**20).round() / 2**20),
    "rounded more finely": with_backward(torch.clone, lambda x: (x * 2**26).round() / 2**26),
}


@pytest.mark.parametrize("build", [smooth, pooling])
@pytest.mark.parametrize("images", ["random", "on kinks"])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_gradients_fail(wrong: str, images: str, build: Callable[[], nn.Module]) -> None:
    model = build()
    given = torch.rand(6, 1, 8, 8) if images == "random" else constant_background()
    assert check_gradient(model, given).passed
    assert not check_gradient(lambda x: model(WRONG[wrong](x)), given).passed


def test_a_wrong_gradient_is_not_discarded_as_a_kink() -> None:
    model = smooth()
    check = check_gradient(lambda x: model(WRONG["scaled by pixel"](x)), torch.rand(4, 1, 8, 8))
    assert check.cosine < 0.999 and check.kink_share == 0
    zeroed = check_gradient(lambda x: model(WRONG["zeroed"](x)), torch.rand(4, 1, 8, 8))
    assert zeroed.cosine == 0.0


def test_a_gradient_that_is_wrong_off_the_clean_images_alone_fails() -> None:
    images, model = torch.rand(4, 1, 8, 8), smooth()

    def mended(x: Tensor) -> Tensor:
        moved = (x - images).flatten(1).abs().amax(dim=1)[:, None] > 1e-3
        z = model(x)
        return torch.where(moved, WRONG["flipped"](z), z)

    check = check_gradient(mended, images)
    assert check.clean.cosine == pytest.approx(1) and check.start.cosine == pytest.approx(-1)
    assert not check.passed


def test_a_gradient_that_is_wrong_at_the_clean_images_alone_fails() -> None:
    images, model = torch.rand(4, 1, 8, 8), smooth()

    def broken(x: Tensor) -> Tensor:
        still = (x - images).flatten(1).abs().amax(dim=1)[:, None] < 1e-3
        z = model(x)
        return torch.where(still, WRONG["flipped"](z), z)

    check = check_gradient(broken, images)
    assert check.start.cosine == pytest.approx(1) and not check.passed


def test_a_function_that_is_constant_has_a_right_gradient_of_zero() -> None:
    check = check_gradient(lambda x: x.flatten(1) * 0 + 1, torch.rand(2, 1, 4, 4))
    assert check.passed and check.cosine == 1.0 and check.kink_share == 0


def test_saturated_outputs_are_no_kinks() -> None:
    """tanh of large numbers: what rounding makes of a slope of zero is not a kink."""
    check = check_gradient(
        lambda x: 30 + x.flatten(1), torch.rand(2, 1, 4, 4), lambda z: torch.tanh(z).mean(dim=1)
    )
    assert check.passed and check.kink_share == 0


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("wrong", WRONG)
def test_no_scale_of_outputs_hides_a_wrong_gradient(wrong: str, scale: float) -> None:
    """Where tanh is flat any gradient would be right."""
    model, images = smooth(), torch.rand(6, 1, 8, 8)
    assert check_gradient(lambda x: scale * model(x), images).passed
    assert not check_gradient(lambda x: scale * model(WRONG[wrong](x)), images).passed


def test_more_than_a_fifth_of_kinks_where_the_attack_works_fails() -> None:
    def model(x: Tensor) -> Tensor:
        # So many teeth that every step of a finite difference goes over some.
        return (x.flatten(1) * 1e7).sin().abs()

    check = check_gradient(model, torch.rand(4, 1, 4, 4), torch_sum)
    assert check.kink_share > 0.2 and not check.passed


def test_kinks_between_the_two_step_sizes_are_seen() -> None:
    offset = torch.linspace(-2e-6, 2e-6, 16).double()

    def model(x: Tensor) -> Tensor:
        return torch.relu(1000 * (x.flatten(1) - 0.5 + offset))

    check = check_gradient(model, torch.full((4, 1, 4, 4), 0.5), torch_sum)
    assert check.clean.kink_share > 0.5


def test_the_start_lies_in_the_ball_and_depends_on_the_seed_alone() -> None:
    images = torch.cat([torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)]).double()

    def places(**own: Any) -> list[Tensor]:
        """Where the gradient is asked for."""
        seen: list[Tensor] = []

        def model(x: Tensor) -> Tensor:
            if x.requires_grad:
                seen.append(x.detach().clone())
            return x.flatten(1)

        check_gradient(model, images, **own)
        return seen

    clean, start = places(epsilon=0.1)
    assert torch.equal(clean, images)
    moved = (start - images).abs()
    assert 0.05 < moved.max() <= 0.1 and start.min() >= 0 and start.max() <= 1
    # Off the edges of [0, 1], where a network's kinks may lie.
    assert (moved > 0).all()
    assert torch.equal(places(epsilon=0.1)[1], start)
    assert not torch.equal(places(epsilon=0.1, seed=1)[1], start)
    assert (places(epsilon=0.01)[1] - images).abs().max() <= 0.01


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(InputError, match="float64"):
        check_gradient(lambda x: x.float().flatten(1), torch.rand(2, 1, 4, 4))
    with pytest.raises(InputError, match="no images"):
        check_gradient(lambda x: x.flatten(1), torch.rand(0, 1, 4, 4))
