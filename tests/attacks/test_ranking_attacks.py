"""Attacks on the ranking itself, `ap` and `center-multi`, against slow formulas and the scores of the package."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hashrobust.attacks import AttackContext, build_attack, center_codes
from hashrobust.attacks._average_precision import (
    smooth_average_precision,
    training_average_precision,
    training_counts,
)
from hashrobust.attacks._center import other_centers
from hashrobust.errors import InputError
from hashrobust.metrics import average_precision


def draw(seed: int, rows: int, bits: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.where(torch.rand(rows, bits, generator=generator) > 0.5, 1.0, -1.0).to(dtype)


def draw_labels(seed: int, rows: int, classes: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(rows, classes, generator=generator) > 0.65).to(torch.uint8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 200), st.sampled_from([1, 2, 5, 12, 64]), st.booleans())
def test_hard_objective_is_the_tie_aware_average_precision(
    seed: int, rows: int, bits: int, single: bool
) -> None:
    codes, queries = draw(seed, rows, bits, torch.float32), draw(seed + 1, 7, bits, torch.float32)
    labels, query_labels = draw_labels(seed, rows), draw_labels(seed + 1, 7)
    context = AttackContext(train_codes=codes.to(torch.int8), train_labels=labels)
    got = training_average_precision(queries, training_counts(queries, query_labels, context))
    assert got.dtype == torch.float64
    expected = average_precision(queries, codes, query_labels, labels)
    assert abs(got.numpy() - expected).max() < 1e-9


def test_hard_objective_of_large_tables() -> None:
    codes, queries = draw(0, 20_000, 8, torch.float32), draw(1, 3, 8, torch.float32)
    labels, query_labels = draw_labels(0, 20_000), torch.eye(3, 5, dtype=torch.uint8)
    counts = training_counts(queries, query_labels, AttackContext(train_codes=codes, train_labels=labels))
    assert len(counts["codes"]) == 256
    expected = average_precision(queries, codes, query_labels, labels)
    assert abs(training_average_precision(queries, counts).numpy() - expected).max() < 1e-9


def slow_surrogate(u: Tensor, codes: Tensor, relevant: Tensor, temperature: float) -> Tensor:
    """One query: each training image split over the two whole distances around its own."""
    bits = len(u)
    pieces = []
    for code, is_relevant in zip(codes, relevant.tolist(), strict=True):
        d = (bits - u @ code) / 2
        below = min(math.floor(d.item()), bits - 1)
        pieces += [(below, 1 - (d - below), is_relevant), (below + 1, d - below, is_relevant)]
    total = torch.zeros((), dtype=u.dtype)
    for level, weight, is_relevant in pieces:
        if not is_relevant:
            continue
        p, f = torch.zeros((), dtype=u.dtype), torch.zeros((), dtype=u.dtype)
        for other, mass, other_relevant in pieces:
            before = mass / (1 + math.exp(-(level - other) / temperature))
            p, f = (p + before, f) if other_relevant else (p, f + before)
        total = total + weight * p / (p + f)
    return total / sum(relevant.tolist())


@pytest.mark.parametrize("temperature", [0.1, 2.0, 10.0])
def test_surrogate_and_its_gradient(temperature: float) -> None:
    codes = draw(0, 12, 9).repeat(2, 1)
    labels, query_labels = draw_labels(0, 24), torch.eye(4, 5, dtype=torch.uint8)
    u = torch.tanh(torch.randn(4, 9, dtype=torch.float64)).requires_grad_(True)
    counts = training_counts(u.detach(), query_labels, AttackContext(train_codes=codes, train_labels=labels))
    got = smooth_average_precision(u, counts, temperature)
    relevant = (query_labels.double() @ labels.double().T) > 0
    slow = torch.stack([slow_surrogate(u[b], codes, relevant[b], temperature) for b in range(4)])
    torch.testing.assert_close(got, slow)
    ours, theirs = (torch.autograd.grad(value.sum(), u, retain_graph=True)[0] for value in (got, slow))
    torch.testing.assert_close(ours, theirs)


def test_a_cold_surrogate_of_codes_is_average_precision_with_ties_counted_half() -> None:
    codes, queries = draw(0, 40, 12), draw(1, 3, 12)
    labels = draw_labels(0, 40, 2)
    labels[:, 1] = 1 - labels[:, 0]
    query_labels = torch.tensor([[1, 0], [0, 1], [1, 0]], dtype=torch.uint8)
    counts = training_counts(queries, query_labels, AttackContext(train_codes=codes, train_labels=labels))
    cold = smooth_average_precision(queries, counts, 1e-3)
    relevant = (query_labels.double() @ labels.double().T) > 0
    distance = (12 - queries @ codes.T) / 2
    for b in range(3):
        terms = []
        for d in distance[b][relevant[b]]:
            ahead = (distance[b] < d).double() + 0.5 * (distance[b] == d).double()
            terms.append((ahead * relevant[b]).sum() / ahead.sum())
        torch.testing.assert_close(cold[b], torch.stack(terms).mean())


def test_surrogate_has_a_gradient_where_the_ranking_is_perfect() -> None:
    # 64 bits, the relevant images all at distance 0, the others all at 64, in single precision.
    own = draw(0, 1, 64, torch.float32)
    codes, labels = torch.cat([own.repeat(20, 1), -own.repeat(20, 1)]), torch.eye(2)[torch.arange(40) // 20]
    context = AttackContext(train_codes=codes, train_labels=labels)
    counts = training_counts(own, torch.tensor([[1, 0]]), context)
    u = (0.9 * own).requires_grad_(True)
    gradient = torch.autograd.grad(smooth_average_precision(u, counts, 2.0).sum(), u)[0]
    # Downhill is away from the own code, in every bit.
    assert (gradient * own > 0).all()


def clustered(bits: int = 16) -> tuple[Tensor, AttackContext]:
    """Labels of four images and the training codes of four classes around codes of their own."""
    centers = draw(3, 4, bits, torch.float32)
    flips = torch.rand(80, bits, generator=torch.Generator().manual_seed(4)) < 0.1
    labels = torch.arange(80) % 4
    return torch.arange(4), AttackContext(
        train_codes=torch.where(flips, -1.0, 1.0) * centers[labels], train_labels=labels
    )


@pytest.mark.parametrize("name", ["ap", "center-multi"])
def test_lowers_average_precision_at_least_as_far_as_any_known_code_of_a_free_model(
    name: str, linear: Callable[[Tensor, Tensor], nn.Module]
) -> None:
    # Each bit is a pixel of its own that the ball can flip: any code is in reach.
    labels, context = clustered()
    model = linear(torch.eye(16) * 10, torch.full((16,), -5.0))
    own = context.train_codes[:4]  # type: ignore[index]
    images = (0.5 + 0.02 * own).view(4, 1, 4, 4)
    attack = build_attack(name, steps=60)
    result = attack.run(model, images, labels=labels, context=context)
    theory = attack.theory_codes(own, labels, context)
    assert theory is not None
    ideal, clean, found = (
        average_precision(codes, context.train_codes, labels, context.train_labels)
        for codes in (theory, own, torch.where(model(result.images) >= 0, 1.0, -1.0))
    )
    assert clean.min() > 0.85 and (ideal < 0.4).all()
    assert (found <= ideal + 1e-6).all() if name == "center-multi" else (found <= ideal + 0.02).all()
    assert abs(result.objective.numpy() - found).max() < 1e-6
    assert abs(result.clean_objective.numpy() - clean).max() < 1e-6


def test_ap_leaves_the_own_code_where_nothing_is_relevant(scene: Any) -> None:
    labels = torch.zeros(6, 4, dtype=torch.uint8)
    labels[3, 0] = labels[4, 3] = 1
    seen = scene.context.train_labels != 3
    context = AttackContext(
        train_codes=scene.context.train_codes[seen],
        train_labels=torch.eye(4, dtype=torch.uint8)[scene.context.train_labels[seen]],
    )
    attack = build_attack("ap", steps=12)
    result = attack.run(scene.model, scene.images, labels=labels, context=context)
    own = torch.where(scene.model(scene.images) >= 0, 1.0, -1.0)
    alone = [0, 1, 2, 4, 5]
    theory = attack.theory_codes(own, labels, context)
    assert theory is not None and torch.equal(theory[alone], -own[alone])
    assert result.clean_objective[alone].tolist() == [1.0] * 5
    assert 0 < result.clean_objective[3] < 1
    assert (result.objective[alone] < 1).all()


@pytest.mark.parametrize("name", ["ap", "center-multi"])
def test_theory_codes_are_the_lowest_of_the_candidates(name: str) -> None:
    labels, context = clustered()
    codes, train_labels = context.train_codes, torch.eye(4)[context.train_labels]
    assert codes is not None
    hot = torch.eye(4)[labels]
    own = center_codes(hot, codes, train_labels, fallback=codes[:4])
    candidates = list(other_centers(own, hot, replace(context, train_labels=train_labels), 3).unbind(dim=1))
    if name == "ap":
        candidates.append(-own)
    scores = [average_precision(each, codes, labels, context.train_labels) for each in candidates]
    assert (np.max(scores, axis=0) > np.min(scores, axis=0)).all()
    theory = build_attack(name).theory_codes(codes[:4], labels, context)
    found = average_precision(theory, codes, labels, context.train_labels)
    assert abs(found - np.min(scores, axis=0)).max() < 1e-9


def slow_others(label: Tensor, own: Tensor, context: AttackContext, count: int) -> list[Tensor]:
    vectors = sorted({tuple(row) for row in context.train_labels.tolist() if any(row)})  # type: ignore[union-attr]
    disjoint = [torch.tensor(v) for v in vectors if not (torch.tensor(v) * label).any()]
    centers = [
        center_codes(v[None], context.train_codes, context.train_labels, fallback=own[None])[0]  # type: ignore[arg-type]
        for v in disjoint
    ]
    centers.sort(key=lambda center: int((center != own).sum()))
    return [centers[place % len(centers)] for place in range(count)] if centers else [-own] * count


@pytest.mark.parametrize("count", [1, 3, 40])
def test_other_centers(count: int) -> None:
    codes, labels = draw(5, 60, 11), draw_labels(5, 60)
    labels[:3] = 0
    context = AttackContext(train_codes=codes, train_labels=labels)
    query_labels = torch.tensor(
        [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 1]]
    )
    own = draw(6, 5, 11)
    got = other_centers(own, query_labels, context, count)
    assert got.shape == (5, count, 11)
    for b in range(5):
        expected = torch.stack(slow_others(query_labels[b], own[b], context, count))
        # Equally near centers may come in either order.
        assert torch.equal((got[b] != own[b]).sum(dim=1), (expected != own[b]).sum(dim=1))
        assert {tuple(row) for row in got[b].tolist()} <= {
            tuple(row.tolist()) for row in slow_others(query_labels[b], own[b], context, 99)
        }
    assert torch.equal(got[3], -own[3].expand(count, -1))


def test_center_multi_goes_toward_each_center_in_turn(scene: Any) -> None:
    events: list[tuple[int, int]] = []
    context = replace(scene.context, before_step=lambda *place: events.append(place))
    attack = build_attack("center-multi", steps=9, others=2, restarts=2)
    result = attack.run(scene.model, scene.images, labels=scene.labels, context=context)
    assert events == [(descent, step) for descent in range(4) for step in range(9)]
    assert (result.gradient_evaluations == 36).all() and attack.gradient_steps == 36  # type: ignore[attr-defined]
    fewer = build_attack("center-multi", steps=9, others=1).run(
        scene.model, scene.images, labels=scene.labels, context=scene.context
    )
    more = build_attack("center-multi", steps=9, others=3).run(
        scene.model, scene.images, labels=scene.labels, context=scene.context
    )
    assert (more.objective <= fewer.objective).all() and (more.objective < fewer.objective).any()


def test_center_multi_with_one_center_is_the_targeted_attack_judged_by_average_precision(scene: Any) -> None:
    """With two classes the only other center is that of the other class."""
    train_labels, labels = scene.context.train_labels % 2, scene.labels % 2
    context = AttackContext(
        train_codes=scene.context.train_codes, train_labels=train_labels, targets=1 - labels
    )
    seen: dict[str, list[Tensor]] = {}

    def recorded(name: str) -> Callable[[Tensor], Tensor]:
        seen[name] = []

        def model(x: Tensor) -> Tensor:
            seen[name].append(x.detach().clone())
            return scene.model(x)

        return model

    multi, single = (
        build_attack("center-multi", steps=9, others=1),
        build_attack("center", steps=9, targeted=True),
    )
    result = multi.run(recorded("multi"), scene.images, labels=labels, context=context)
    single.run(recorded("single"), scene.images, labels=labels, context=context)
    assert all(torch.equal(a, b) for a, b in zip(seen["multi"], seen["single"], strict=True))
    codes = [torch.where(scene.model(x) >= 0, 1.0, -1.0) for x in seen["multi"]]
    scores = [average_precision(each, context.train_codes, labels, train_labels) for each in codes]
    lowest = torch.from_numpy(np.min(scores, axis=0))
    torch.testing.assert_close(result.objective.double(), lowest, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "params", "words"), [
    ("ap", {"temperature": 0.0}, "temperature"), ("center-multi", {"others": 0}, "others"),
    ("center-multi", {"loss": "sat"}, "saat"), ("center-multi", {"targeted": True}, "targeted"),
    ("square", {"budget": 1}, "budget"), ("square", {"budget": 2.5}, "budget"), ("square", {"share": 0.0}, "share"),
    ("square", {"share": 1.5}, "share"), ("random-search", {"oracle": "label"}, "codes"),
    ("uap", {"restarts": 2}, "restarts"), ("uap", {"fit_batch": 0}, "fit_batch"),
])  # fmt: skip
def test_wrong_settings_are_refused(name: str, params: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_attack(name, **params)
