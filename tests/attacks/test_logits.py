"""Losses on logits against slow obvious formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hashrobust.attacks import check_gradient, classification_objective
from hashrobust.attacks._logits import (
    classes_to_leave,
    log_odds,
    logits_ratio,
    margin,
    still_right,
    true_classes,
)
from hashrobust.errors import InputError

# Whole numbers, so that ties come up.
ROWS = st.lists(st.integers(-8, 8).map(float), min_size=3, max_size=7).flatmap(
    lambda row: st.tuples(st.just(row), st.integers(0, len(row) - 1))
)


def tensors(row: list[float], y: int) -> tuple[Tensor, Tensor]:
    return torch.tensor([row], dtype=torch.float64), torch.tensor([y])


@settings(deadline=None)
@given(ROWS)
def test_losses_are_those_of_the_papers(case: tuple[list[float], int]) -> None:
    row, y = case
    z, classes = tensors(row, y)
    others = [value for place, value in enumerate(row) if place != y]
    odds = math.exp(row[y]) / sum(math.exp(value) for value in others)
    assert log_odds(z, classes).item() == pytest.approx(math.log(odds), abs=1e-9)
    assert margin(z, classes).item() == row[y] - max(others)
    first, _, third = sorted(row, reverse=True)[:3]
    if first > third:
        ratio = (row[y] - max(others)) / (first - third)
        assert logits_ratio(z, classes).item() == pytest.approx(ratio)
    if row[y] > max(others):
        assert still_right(z, classes).item() == 1
    if row[y] < max(others):
        assert still_right(z, classes).item() == 0


@settings(deadline=None)
@given(ROWS)
def test_log_odds_are_cross_entropy_to_whoever_follows_signs(case: tuple[list[float], int]) -> None:
    z, classes = tensors(*case)
    z.requires_grad_()
    loss, odds = F.cross_entropy(z, classes), log_odds(z, classes).sum()
    torch.testing.assert_close(loss, F.softplus(-odds))
    (of_loss,), (of_odds,) = torch.autograd.grad(loss, z), torch.autograd.grad(odds, z)
    torch.testing.assert_close(of_loss, (loss.exp() - 1) / loss.exp() * -of_odds)


@settings(deadline=None)
@given(ROWS, st.floats(0.1, 10), st.floats(-5, 5))
def test_the_ratio_depends_on_neither_shift_nor_scale(
    case: tuple[list[float], int], scale: float, shift: float
) -> None:
    z, classes = tensors(*case)
    largest = sorted(case[0], reverse=True)
    assume(largest[0] > largest[2])
    torch.testing.assert_close(logits_ratio(scale * z + shift, classes), logits_ratio(z, classes))


def test_a_sure_model_has_a_gradient_in_float32_too() -> None:
    z = torch.tensor([[300.0, 0.0, -1.0]], requires_grad=True)
    classes = torch.tensor([0])
    (gradient,) = torch.autograd.grad(F.cross_entropy(z, classes), z)
    assert (gradient == 0).all()
    (gradient,) = torch.autograd.grad(log_odds(z, classes).sum(), z)
    torch.testing.assert_close(gradient[0], torch.cat([torch.ones(1), -z.detach()[0, 1:].softmax(0)]))


def test_gradients_are_checked_on_logits_also_of_a_sure_model() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 5).double()

    def model(x: Tensor) -> Tensor:
        return 40 * torch.tanh(layer(x.flatten(1)))

    images = torch.rand(12, 1, 8, 8)
    predicted = model(images.double()).argmax(dim=1)
    for labels in (predicted, torch.zeros(12, dtype=torch.int64), F.one_hot(predicted, 5)):
        assert check_gradient(model, images, classification_objective(labels)).passed

    def flipped(x: Tensor) -> Tensor:
        z = model(x)
        return 2 * z.detach() - z

    assert check_gradient(flipped, images, classification_objective(predicted)).cosine == pytest.approx(-1)


def test_classes_come_from_labels_of_either_kind_or_from_the_prediction() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 0.0]])
    for labels in (torch.tensor([2, 1]), torch.tensor([[0, 0, 1], [0, 1, 0]])):
        assert classes_to_leave(labels, logits).tolist() == [2, 1]
    # Integers need not name the highest class.
    assert true_classes(torch.tensor([0, 0]), 3).tolist() == [0, 0]
    assert classes_to_leave(None, logits).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "outputs", "words"),
    [
        (torch.tensor([[1, 1, 0]]), 3, "exactly one class"),
        (torch.tensor([[0, 0, 0]]), 3, "exactly one class"),
        (torch.tensor([3]), 3, "class 3.*3 classes"),
        (torch.tensor([-1]), 3, "outside"),
        (torch.tensor([0.5]), 3, "integer"),
        (torch.tensor([0]), 1, "one output"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor, outputs: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        true_classes(labels, outputs)
