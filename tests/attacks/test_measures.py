"""Perturbation, targets and labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hashrobust.attacks import draw_targets, perturbation
from hashrobust.errors import InputError


def slow_ssim(a: np.ndarray, b: np.ndarray, window: int) -> float:
    """One image (C, H, W), loops over windows."""
    half = window // 2
    profile = [math.exp(-(i**2) / (2 * 1.5**2)) for i in range(-half, half + 1)]
    weights = np.outer(profile, profile)
    weights /= weights.sum()
    values = []
    for channel in range(a.shape[0]):
        for i in range(half, a.shape[1] - half):
            for j in range(half, a.shape[2] - half):
                p = a[channel, i - half : i + half + 1, j - half : j + half + 1]
                q = b[channel, i - half : i + half + 1, j - half : j + half + 1]
                mp, mq = (weights * p).sum(), (weights * q).sum()
                vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                cov = (weights * (p - mp) * (q - mq)).sum()
                values.append(
                    (2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
                )
    return float(np.mean(values))


@pytest.mark.parametrize(("size", "window"), [(16, 11), (11, 11), (8, 7), (2, 1)])
def test_perturbation_against_slow_formulas(size: int, window: int) -> None:
    clean = torch.rand(3, 2, size, size)
    adversarial = (clean + 0.1 * torch.randn_like(clean)).clamp(0, 1)
    got = perturbation(clean, adversarial)
    for row in range(3):
        a, b = clean[row].double().numpy(), adversarial[row].double().numpy()
        change = b - a
        assert got["linf"][row].item() == pytest.approx(abs(change).max())
        assert got["l2"][row].item() == pytest.approx(math.sqrt((change**2).sum()))
        assert got["mse"][row].item() == pytest.approx((change**2).mean())
        assert got["psnr"][row].item() == pytest.approx(10 * math.log10(1 / (change**2).mean()))
        assert got["ssim"][row].item() == pytest.approx(slow_ssim(a, b, window), abs=1e-9)


def test_linf_is_the_largest_pixel_and_not_a_matrix_norm() -> None:
    clean = torch.full((1, 3, 32, 32), 0.5)
    assert perturbation(clean, clean + 0.031)["linf"].item() == pytest.approx(0.031, abs=1e-6)


def test_equal_images() -> None:
    same = perturbation(torch.rand(2, 1, 12, 12), torch.rand(2, 1, 12, 12) * 0)
    assert (same["ssim"] < 0.1).all()
    clean = torch.rand(2, 1, 12, 12)
    same = perturbation(clean, clean)
    assert same["psnr"].tolist() == [math.inf] * 2
    torch.testing.assert_close(same["ssim"], torch.ones(2).double())
    with pytest.raises(InputError, match="compared"):
        perturbation(clean, clean[:1])


def test_targets_exist_share_nothing_and_depend_on_the_key_alone() -> None:
    database = torch.tensor(
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]]
    )
    labels = database[torch.arange(60) % 4]
    ids = torch.arange(60)
    targets = draw_targets(labels, database, seed=3, sample_ids=ids)
    known = {tuple(row) for row in database.tolist()} - {(0, 0, 0, 0)}
    assert {tuple(row) for row in targets.tolist()} <= known
    assert (targets.sum(dim=1) > 0).all() and ((targets * labels).sum(dim=1) == 0).all()
    part = draw_targets(labels[10:20], database.flip(0), seed=3, sample_ids=ids[10:20])
    assert torch.equal(part, targets[10:20])
    assert not torch.equal(draw_targets(labels, database, seed=4, sample_ids=ids), targets)
    assert {tuple(row) for row in targets[labels[:, 0] == 1].tolist()} == {
        (0, 0, 1, 0),
        (0, 0, 0, 1),
        (0, 0, 1, 1),
    }


def test_no_possible_target_is_an_error() -> None:
    with pytest.raises(InputError, match="no possible target"):
        draw_targets(torch.tensor([0, 1]), torch.tensor([1, 1, 1]))
