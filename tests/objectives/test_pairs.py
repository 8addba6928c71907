"""Pairs of a batch and their weights."""

from __future__ import annotations

import pytest
import torch

from hashrobust.objectives import build_objective
from hashrobust.objectives._pairs import pair_mean, pair_weights, similarity


def test_images_are_similar_if_they_share_a_label():
    labels = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]]).float()
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]).float()
    assert torch.equal(similarity(labels), expected)


def test_an_image_is_no_pair_with_itself():
    values = torch.tensor([[100.0, 1.0, 2.0], [3.0, 100.0, 4.0], [5.0, 6.0, 100.0]])
    assert pair_mean(values) == 3.5
    assert pair_mean(torch.tensor([[100.0]])) == 0


def test_the_loss_of_two_orthogonal_dissimilar_images_is_ln_2():
    """Self-pairs, with their large inner products, would lower it."""
    objective = build_objective("dpsh", bits=4, num_classes=2, similar_share=0.5, quantization_weight=0.0)
    z = torch.tensor([[20.0, 20.0, 20.0, 20.0], [20.0, 20.0, -20.0, -20.0]])
    assert float(objective(z, torch.tensor([0, 1]))) == pytest.approx(0.6931472)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_weights_balance_the_two_kinds_of_pairs(share):
    similar, dissimilar = pair_weights(torch.tensor([1.0, 0.0]), share).tolist()
    assert share * similar == pytest.approx(1)
    assert (1 - share) * dissimilar == pytest.approx(1)
