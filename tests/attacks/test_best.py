"""The keeper of the best iterates, by itself: what it keeps, what it counts, when a sample is done."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hashrobust.attacks import build_attack
from hashrobust.attacks._best import BestIterates, LastIterates
from hashrobust.attacks._context import Clean, resolve

COUNT = 4


def scores(images: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The hard objective is the first output, the relaxed one the second."""
    return outputs[:, 0], outputs[:, 1]


def clean(outputs: list[list[float]]) -> Clean:
    z = torch.tensor(outputs)
    return Clean(torch.zeros(len(z), 1, 2, 2), z, torch.where(z >= 0, 1.0, -1.0))


def offered(best: BestIterates, value: float, outputs: list[list[float]]) -> Tensor:
    z = torch.tensor(outputs)
    return best.offer(torch.full((len(z), 1, 2, 2), value), z)


def kept(best: BestIterates) -> list[float]:
    return best.result().images[:, 0, 0, 0].tolist()


def test_the_hard_objective_decides_and_the_relaxed_one_where_it_is_equal() -> None:
    best = BestIterates(clean([[1.0, 5.0]] * COUNT), scores)
    relaxed = offered(best, 0.1, [[1.0, 5.0], [1.0, 4.0], [0.0, 9.0], [2.0, 0.0]])
    assert relaxed.tolist() == [5.0, 4.0, 9.0, 0.0]
    assert kept(best) == pytest.approx([0.0, 0.1, 0.1, 0.0])
    offered(best, 0.2, [[1.0, 4.5], [1.0, 4.5], [0.0, 8.0], [1.0, 5.0]])
    assert kept(best) == pytest.approx([0.2, 0.1, 0.2, 0.0])
    result = best.result()
    assert result.objective.tolist() == [1.0, 1.0, 0.0, 1.0]
    assert result.clean_objective.tolist() == [1.0] * COUNT
    assert not result.finished.any()


def test_the_last_iterate_that_is_a_number() -> None:
    last = LastIterates(clean([[1.0, 1.0]] * 2), scores)
    offered(last, 0.1, [[5.0, 5.0], [5.0, 5.0]])
    offered(last, 0.2, [[7.0, 7.0], [float("nan"), 0.0]])
    assert kept(last) == pytest.approx([0.2, 0.1])


def test_outputs_that_are_not_numbers_are_worth_nothing() -> None:
    """Neither those of the clean image, which anything beats, nor one number of an iterate's."""
    best = BestIterates(clean([[1.0, float("nan")], [1.0, 5.0], [1.0, float("-inf")]]), scores)
    relaxed = offered(best, 0.1, [[1.0, 7.0], [0.0, float("inf")], [1.0, 100.0]])
    assert relaxed.tolist() == [7.0, float("inf"), 100.0]
    assert kept(best) == pytest.approx([0.1, 0.0, 0.1])
    offered(best, 0.2, [[1.0, 8.0], [1.0, 6.0], [1.0, 101.0]])
    assert kept(best) == pytest.approx([0.1, 0.0, 0.1])  # the second is still worth 5


def test_a_sample_at_the_optimum_is_finished() -> None:
    best = BestIterates(clean([[0.0, 3.0], [2.0, 3.0], [2.0, 3.0]]), scores, optimum=0.0)
    assert best.finished.tolist() == [True, False, False]
    offered(best, 0.1, [[-5.0, -5.0], [0.0, 1.0], [1.0, 1.0]])
    assert best.finished.tolist() == [True, True, False]
    offered(best, 0.2, [[-5.0, -5.0], [-1.0, -1.0], [0.5, 1.0]])
    assert kept(best) == pytest.approx([0.0, 0.1, 0.2])  # who is finished stays
    assert best.result().finished.tolist() == [True, True, False]


def test_a_clean_image_below_the_optimum_is_finished() -> None:
    assert BestIterates(clean([[-1.0, 0.0], [0.5, 0.0]]), scores, optimum=0.0).finished.tolist() == [
        True,
        False,
    ]


def test_an_optimum_whose_outputs_are_not_numbers_finishes_nobody() -> None:
    best = BestIterates(clean([[0.0, float("nan")]]), scores, optimum=0.0)
    assert best.finished.tolist() == [False]
    offered(best, 0.1, [[0.0, float("nan")]])
    assert best.finished.tolist() == [False]


def test_what_went_wrong_is_counted_for_each_sample() -> None:
    best = BestIterates(clean([[1.0, 1.0]] * COUNT), scores)
    gradient = torch.ones(COUNT, 1, 2, 2)
    gradient[1] = 0
    gradient[2, 0, 0, 0] = float("nan")
    gradient[3] = float("inf")
    usable = best.usable(gradient)
    assert usable[2].flatten().tolist() == [0.0, 1.0, 1.0, 1.0]
    assert torch.equal(usable[3], torch.zeros(1, 2, 2)) and torch.equal(usable[0], gradient[0])
    best.finished[1:] = True
    best.usable(torch.zeros(COUNT, 1, 2, 2), passes=3)
    best.usable(torch.full((COUNT, 1, 2, 2), float("nan")), passes=3)
    result = best.result()
    assert result.gradient_evaluations.tolist() == [7, 1, 1, 1]
    assert result.zero_gradients.tolist() == [2, 1, 0, 1]
    assert result.nonfinite_gradients.tolist() == [1, 0, 1, 1]
    assert result.queries.tolist() == [0] * COUNT
    assert best.result(torch.arange(COUNT)).queries.tolist() == [0, 1, 2, 3]


def test_what_is_kept_is_a_copy() -> None:
    start = clean([[1.0, 1.0]] * 2)
    best = BestIterates(start, scores)
    offered(best, 0.1, [[0.0, 0.0], [2.0, 2.0]])
    assert torch.equal(start.images, torch.zeros(2, 1, 2, 2))
    assert best.result().clean_objective.tolist() == [1.0, 1.0]


def test_the_batch_shrinks_once_half_of_it_is_done() -> None:
    start = clean([[1.0, float(sample)] for sample in range(COUNT)])
    best = BestIterates(start, scores)
    seen: list[int] = []

    def model(images: Tensor) -> Tensor:
        seen.append(len(images))
        return torch.full((len(images), 2), 9.0)

    images = torch.zeros(COUNT, 1, 2, 2)
    for finished in (0, 1, 2, 3, 4):
        best.finished[:finished] = True
        outputs = best.outputs(model, images)
        done = COUNT - seen[-1]
        assert torch.equal(outputs[:done], start.outputs[:done]) and (outputs[done:] == 9).all()
    assert seen == [4, 4, 2, 1, 1]  # the last to finish stays: nobody asks a model of nothing


def test_no_graph_is_kept() -> None:
    best = BestIterates(clean([[1.0, 1.0]] * 2), scores)
    z = torch.zeros(2, 2, requires_grad=True)
    relaxed = best.offer(torch.ones(2, 1, 2, 2, requires_grad=True), 2 * z)
    result = best.result()
    assert not any(kept.requires_grad for kept in (relaxed, result.images, result.objective))


def test_counts_are_whole_numbers() -> None:
    result = BestIterates(clean([[1.0, 1.0]]), scores).result()
    for counted in (
        result.gradient_evaluations,
        result.zero_gradients,
        result.nonfinite_gradients,
        result.queries,
    ):
        assert counted.dtype == torch.int64


def test_ties_are_broken_by_the_objective_at_alpha_1(scene: Any) -> None:
    attack: Any = build_attack("center")
    z = scene.model(scene.images).detach()
    start = Clean(scene.images, z, torch.where(z >= 0, 1.0, -1.0))
    labels, context = resolve("center", attack.needs, len(z), scene.labels, scene.context)
    state = attack.prepare(start.codes, labels, context)
    other = torch.randn_like(z)
    relaxed = attack.iterates(start, state, context).offer(scene.images, other)
    torch.testing.assert_close(relaxed, attack.objective(torch.tanh(other), scene.images, start, state))
