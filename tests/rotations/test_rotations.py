"""Rotations of outputs: orthogonal, never worse than none, and nearer to signs where that can be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from hashrobust.errors import UnknownNameError
from hashrobust.rotations import quantization_error, rotation_fit, rotations

every_rotation = pytest.mark.parametrize("name", list(rotations))


def orthogonal_matrix(size: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.linalg.qr(rng.normal(size=(size, size)))[0]).float()


def turned_codes(bits: int = 12, images: int = 300, noise: float = 0.2, seed: int = 0) -> Tensor:
    """Outputs near the codes of eight classes, turned away from them."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randint(2, (8, bits), generator=generator).float() - 1
    z = centres[torch.randint(8, (images,), generator=generator)]
    z = z + noise * torch.randn(images, bits, generator=generator)
    return z @ orthogonal_matrix(bits, seed)


def fit(name: str, z: Tensor, seed: int = 0) -> Tensor:
    found = rotation_fit(name)
    assert found is not None
    return found(z, seed=seed)


def assert_orthogonal(matrix: Tensor, bits: int) -> None:
    assert matrix.shape == (bits, bits) and matrix.dtype == torch.float32 and not matrix.requires_grad
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(bits), atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 5), st.floats(0.01, 100))
def test_quantization_error_is_the_formula(seed, images, bits, factor):
    z = np.random.default_rng(seed).normal(size=(images, bits))
    size = (sum(x * x for x in z.ravel()) / z.size) ** 0.5
    expected = sum((abs(x) / size - 1) ** 2 for x in z.ravel()) / z.size
    assert quantization_error(torch.from_numpy(factor * z)) == pytest.approx(expected, abs=1e-9)
    assert 0 <= expected < 2


def test_codes_have_no_quantization_error():
    assert quantization_error(torch.tensor([[3.0, -3.0], [-3.0, -3.0]])) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(1, 20), st.floats(1e-3, 30))
def test_itq_is_orthogonal_and_never_raises_the_error(seed, images, bits, factor):
    z = factor * torch.randn(images, bits, generator=torch.Generator().manual_seed(seed))
    matrix = fit("itq", z)
    assert_orthogonal(matrix, bits)
    assert quantization_error(z @ matrix) <= quantization_error(z) + 1e-6


@pytest.mark.parametrize(("images", "bits"), [(200, 12), (50, 1), (7, 20), (130, 5)])
def test_h2q_is_orthogonal_and_never_raises_the_error(images, bits):
    z = 5 * torch.randn(images, bits, generator=torch.Generator().manual_seed(bits))
    matrix = fit("h2q", z)
    assert_orthogonal(matrix, bits)
    assert quantization_error(z @ matrix) <= quantization_error(z) + 1e-6


@every_rotation
@pytest.mark.parametrize("bits", [12, 16])
def test_outputs_that_were_turned_away_from_codes_come_nearer_to_them_again(name, bits):
    z = turned_codes(bits)
    assert quantization_error(z @ fit(name, z)) < 0.6 * quantization_error(z)


@every_rotation
def test_codes_are_left_as_they_are(name):
    z = 2.0 * torch.randint(2, (100, 8), generator=torch.Generator().manual_seed(0)) - 1
    assert torch.equal(torch.sign(z @ fit(name, z)), z)


@every_rotation
@pytest.mark.parametrize("z", [torch.zeros(4, 6), torch.full((4, 6), 0.3), torch.randn(1, 6)])
def test_outputs_without_spread_are_taken(name, z):
    assert_orthogonal(fit(name, z), 6)


@every_rotation
def test_a_rotation_follows_from_outputs_and_seed_alone(name):
    z = turned_codes()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fit(name, z, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(fit(name, z, seed=3), first)


def test_the_batches_of_h2q_follow_the_seed():
    z = turned_codes()
    assert not torch.equal(fit("h2q", z, seed=0), fit("h2q", z, seed=1))


def test_itq_is_procrustes_in_turn_with_signs():
    """Against scipy's solution of the orthogonal Procrustes problem; no round may raise the error."""
    # Noise enough for full rank, where the solution is unique.
    z = turned_codes(noise=0.8).double().numpy()
    rotation, errors = np.eye(12), []
    for _ in range(50):
        codes = np.where(z @ rotation >= 0, 1.0, -1.0)
        rotation = orthogonal_procrustes(z, codes)[0]
        errors.append(((np.where(z @ rotation >= 0, 1, -1) - z @ rotation) ** 2).sum())
    assert all(after <= before + 1e-9 for before, after in pairwise(errors))
    np.testing.assert_allclose(fit("itq", torch.from_numpy(z)).numpy(), rotation, atol=1e-8)


def test_no_rotation_and_unknown_ones():
    assert rotation_fit("none") is None
    with pytest.raises(UnknownNameError, match="unknown rotation 'ikq': did you mean 'itq'"):
        rotation_fit("ikq")
