from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashrobust.attacks import ball, inside_ball, project, round_to_8_bits
from hashrobust.attacks._random import uniform_noise
from hashrobust.seeding import keyed_generator

EPSILONS = st.sampled_from([1 / 255, 2 / 255, 8 / 255, 0.032, 0.1, 0.5, 1.0, 1e-4])
SEEDS = st.integers(0, 2**31)


def draw(seed: int, levels: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if levels:
        return torch.randint(0, 256, (4, 1, 8, 8), generator=generator).float() / 255
    pixels = torch.rand(4, 1, 8, 8, generator=generator)
    # Powers spread the pixels over the exponents of float32; 0 and 1 are always there.
    pixels = pixels ** torch.tensor([1.0, 3.0, 30.0, 0.1])[:, None, None, None]
    pixels[0, 0, 0, 0], pixels[0, 0, 0, 1] = 0.0, 1.0
    return pixels


@settings(max_examples=60, deadline=None)
@given(SEEDS, EPSILONS, st.booleans())
def test_projection_never_leaves_the_ball_by_a_single_rounding(
    seed: int, epsilon: float, levels: bool
) -> None:
    clean = draw(seed, levels)
    wild = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + 1))
    inside = project(wild, *ball(clean, epsilon))
    assert inside.min() >= 0 and inside.max() <= 1
    # Exactly (float32 differences are exact in float64), and in float32 against the float64 epsilon.
    assert (inside.double() - clean.double()).abs().max() <= epsilon
    assert (inside - clean).abs().double().max() <= epsilon
    assert inside_ball(inside, clean, epsilon)


@settings(max_examples=30, deadline=None)
@given(SEEDS, EPSILONS)
def test_ball_is_as_large_as_float_allows(seed: int, epsilon: float) -> None:
    clean = draw(seed, levels=False)
    lower, upper = ball(clean, epsilon)
    ideal_lower = (clean.double() - epsilon).clamp(min=0)
    ideal_upper = (clean.double() + epsilon).clamp(max=1)
    assert (lower.double() - ideal_lower).abs().max() < 2e-7
    assert (upper.double() - ideal_upper).abs().max() < 2e-7


def test_inside_ball_sees_each_way_out() -> None:
    clean = torch.full((1, 1, 2, 2), 0.5)
    assert inside_ball(clean, clean, 0.1)
    assert not inside_ball(clean + 0.2, clean, 0.1)
    assert not inside_ball(clean + float("nan"), clean, 0.1)
    assert not inside_ball(clean + 0.7, clean, 1.0)
    assert not inside_ball(clean - 0.7, clean, 1.0)


def slow_round(pixel: float, clean: float, epsilon: float) -> float:
    tolerance = 2.0**-23
    inside = [level for level in range(256) if abs(level / 255 - clean) <= epsilon + tolerance]
    return min(inside, key=lambda level: abs(level / 255 - pixel)) / 255 if inside else pixel


@settings(max_examples=25, deadline=None)
@given(SEEDS, EPSILONS, st.booleans())
def test_rounding_takes_the_nearest_level_inside(seed: int, epsilon: float, levels: bool) -> None:
    clean = draw(seed, levels)
    noise = torch.rand(clean.shape, generator=torch.Generator().manual_seed(seed + 1)) * 2 - 1
    images = project(clean + epsilon * noise, *ball(clean, epsilon))
    rounded = round_to_8_bits(images, clean, epsilon).flatten()
    for got, pixel, origin in zip(
        rounded.tolist(), images.flatten().tolist(), clean.flatten().tolist(), strict=True
    ):
        expected = slow_round(pixel, origin, epsilon)
        # Equally near levels are both right.
        assert abs(abs(got - pixel) - abs(expected - pixel)) < 1e-6
        assert abs(got - origin) <= epsilon + 2e-7


def test_rounding_keeps_a_pixel_without_a_level_in_reach() -> None:
    clean = torch.full((1, 1, 1, 2), 0.5 / 255)
    images = clean + 1e-4
    assert torch.equal(round_to_8_bits(images, clean, 2e-4), images)


def test_rounding_reaches_the_full_epsilon_in_levels() -> None:
    clean = (torch.arange(256).float() / 255).view(1, 1, 16, 16)
    _, upper = ball(clean, 8 / 255)
    levels = (round_to_8_bits(upper, clean, 8 / 255) * 255).round().flatten().int()
    assert levels.tolist() == [min(level + 8, 255) for level in range(256)]


def test_rounding_goes_to_the_level_that_is_nearest_exactly() -> None:
    """Pixels at the floats around the middle between two levels, where single precision would turn some of them."""
    middle = ((torch.arange(255).double() + 0.5) / 255).float()
    pixels = [middle]
    for _ in range(3):
        pixels.append(torch.nextafter(pixels[-1], torch.ones(())))
    for _ in range(3):
        pixels.insert(0, torch.nextafter(pixels[0], torch.zeros(())))
    for row in pixels:
        images = row.view(1, 1, 5, 51)
        rounded = round_to_8_bits(images, images, 0.1)
        assert rounded.dtype == torch.float32
        levels = (row.double() * 255).round()
        assert torch.equal(rounded.flatten(), (levels / 255).float())


def test_rounded_levels_are_those_that_a_file_holds() -> None:
    levels = torch.arange(256).float() / 255
    images = levels.view(1, 1, 16, 16)
    assert torch.equal(round_to_8_bits(images.clone(), images, 8 / 255), images)


def test_a_ball_in_double_precision_has_the_radius_in_double_precision() -> None:
    clean = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    lower, upper = ball(clean, 8 / 255)
    assert upper.dtype == lower.dtype == torch.float64
    assert 0.5 - lower.item() == pytest.approx(8 / 255, rel=1e-14)
    assert upper.item() - 0.5 == pytest.approx(8 / 255, rel=1e-14)


def test_one_pixel_outside_is_outside() -> None:
    clean = torch.full((2, 1, 3, 3), 0.5)
    for value, epsilon in ((0.61, 0.1), (0.39, 0.1), (1.01, 0.9), (-0.01, 0.9), (float("nan"), 0.9)):
        images = clean.clone()
        images[1, 0, 2, 1] = value
        assert not inside_ball(images, clean, epsilon)
        assert not inside_ball(images, clean, epsilon, tolerance=0.009)
    images = clean.clone()
    images[1, 0, 2, 1] = 0.61
    assert inside_ball(images, clean, 0.1, tolerance=0.011)


def test_noise_is_shaped_and_typed_like_the_images() -> None:
    images = torch.rand(3, 2, 4, 5, dtype=torch.float64)
    noise = uniform_noise(images, torch.tensor([7, 8, 7]), "start", 0)
    assert noise.dtype == torch.float64 and noise.shape == images.shape
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    assert -1 <= noise.min() < -0.9 and 0.9 < noise.max() < 1


def test_noise_of_a_sample_is_the_first_draw_of_its_generator() -> None:
    noise = uniform_noise(torch.zeros(2, 1, 2, 3), torch.tensor([7, 100]), "start", 3, 1)
    for row, sample in zip(noise, (7, 100), strict=True):
        assert torch.equal(row, 2 * torch.rand(1, 2, 3, generator=keyed_generator("start", 3, 1, sample)) - 1)


def test_bounds_that_floats_hold_are_exact() -> None:
    clean = torch.tensor([0.5, 0.25, 0.875]).view(3, 1, 1, 1)
    lower, upper = ball(clean, 0.25)
    assert lower.flatten().tolist() == [0.25, 0.0, 0.625] and upper.flatten().tolist() == [0.75, 0.5, 1.0]
