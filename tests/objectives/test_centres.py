"""Hash centres of CSQ, DPN and OrthoHash."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import hadamard as scipy_hadamard

from hashrobust.errors import InputError
from hashrobust.objectives import build_objective
from hashrobust.objectives._centres import hadamard


def centres(bits: int, classes: int, seed: int = 0) -> torch.Tensor:
    return build_objective("csq", bits=bits, num_classes=classes, similar_share=0.1, seed=seed).centres


def smallest_distance(codes: torch.Tensor) -> int:
    distances = (codes.shape[1] - codes @ codes.T) / 2
    return int(distances[~torch.eye(len(codes), dtype=torch.bool)].min())


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_hadamard_matrix_is_that_of_scipy(size):
    assert (hadamard(size).numpy() == scipy_hadamard(size)).all()


@pytest.mark.parametrize(("bits", "classes"), [(16, 10), (16, 32), (32, 21), (64, 100), (64, 128)])
def test_hadamard_centres_are_half_the_bits_apart(bits, classes):
    codes = centres(bits, classes)
    assert codes.shape == (classes, bits)
    assert codes.abs().eq(1).all()
    assert smallest_distance(codes) == bits // 2


@pytest.mark.parametrize(
    ("bits", "classes", "least"), [(12, 10, 4), (24, 10, 10), (36, 21, 13), (48, 100, 16), (16, 100, 4)]
)
def test_random_centres_are_far_apart(bits, classes, least):
    codes = centres(bits, classes)
    assert codes.shape == (classes, bits)
    assert codes.abs().eq(1).all()
    assert smallest_distance(codes) >= least


@pytest.mark.parametrize(("bits", "classes"), [(3, 8), (4, 16), (10, 1024)])
def test_as_many_classes_as_codes_all_differ(bits, classes):
    assert len(centres(bits, classes).unique(dim=0)) == classes


def test_more_classes_than_codes_are_refused():
    with pytest.raises(InputError, match="more bits"):
        centres(3, 9)


def test_random_centres_follow_the_seed_alone():
    torch.manual_seed(1)
    first = centres(24, 10)
    torch.manual_seed(2)
    assert torch.equal(centres(24, 10), first)
    assert not torch.equal(centres(24, 10, seed=1), first)


def test_targets_are_the_majority_of_centres():
    objective = build_objective("csq", bits=16, num_classes=5, similar_share=0.1)
    labels = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 1], [1, 1, 0, 0, 0]]).float()
    targets = objective.targets(labels)
    assert torch.equal(targets[0], objective.centres[:3].sum(dim=0).sign())
    assert torch.equal(targets[1], objective.centres[4])
    votes = objective.centres[:2].sum(dim=0)
    assert torch.equal(targets[2][votes != 0], votes[votes != 0].sign())
    assert torch.equal(targets[2][votes == 0], objective.tie_bits[votes == 0])
    assert (votes == 0).sum() == 8
