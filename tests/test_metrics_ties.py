"""Average precision against all orders of tied items, enumerated or sampled."""

from __future__ import annotations

from itertools import chain, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from hashrobust.metrics import average_precision, chance, chance_average_precision


def codes_at(distances, bits):
    """Database codes at given distances from a query of ones."""
    return np.where(np.arange(bits) < np.asarray(distances)[:, None], -1, 1)


def score(distances, relevant, bits=None, **options):
    bits = max(max(distances), 1) if bits is None else bits
    database = codes_at(distances, bits)
    labels = np.asarray(relevant, np.uint8)[:, None]
    return average_precision(np.ones((1, bits)), database, [[1]], labels, **options)[0]


def ap_of_order(relevant, k, normalizer):
    top = relevant[:k]
    total = sum(top) if normalizer == "retrieved" else min(k, sum(relevant))
    hits = sum(sum(top[: i + 1]) / (i + 1) for i in range(len(top)) if top[i])
    return hits / total if total else 0.0


def all_orders(distances, relevant):
    groups = [[r for d, r in zip(distances, relevant, strict=True) if d == g] for g in sorted(set(distances))]
    for order in product(*(permutations(group) for group in groups)):
        yield list(chain.from_iterable(order))


rankings = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(rankings)
def test_equals_all_orders_enumerated(items):
    distances, relevant = (list(side) for side in zip(*items, strict=True))
    for normalizer in ("all", "retrieved"):
        for k in [*range(1, len(items) + 2), None]:
            top = len(items) if k is None else k
            orders = [ap_of_order(order, top, normalizer) for order in all_orders(distances, relevant)]
            wanted = {"expected": np.mean(orders), "best": max(orders), "worst": min(orders)}
            for ties, value in wanted.items():
                found = score(distances, relevant, k=k, normalizer=normalizer, ties=ties)
                assert found == pytest.approx(value, abs=1e-12), (k, normalizer, ties)


@settings(max_examples=60, deadline=None)
@given(rankings)
def test_position_is_the_stable_order(items):
    distances, relevant = (list(side) for side in zip(*items, strict=True))
    order = [relevant[i] for i in np.argsort(distances, kind="stable")]
    for normalizer in ("all", "retrieved"):
        for k in range(1, len(items) + 2):
            found = score(distances, relevant, k=k, normalizer=normalizer, ties="position")
            assert found == pytest.approx(ap_of_order(order, k, normalizer), abs=1e-12)


@pytest.mark.parametrize("normalizer", ["all", "retrieved"])
@pytest.mark.parametrize("k", [7, 60, 150, None])
def test_equals_the_mean_of_random_orders(normalizer, k):
    generator = np.random.default_rng(0)
    distances = generator.integers(0, 4, 150)
    relevant = generator.random(150) < 0.2
    samples = []
    for _ in range(2000):
        shuffled = generator.permutation(150)
        order = shuffled[np.argsort(distances[shuffled], kind="stable")]
        top = relevant[order][:k]
        found = top.cumsum()
        total = found[-1] if normalizer == "retrieved" else min(len(top), relevant.sum())
        samples.append((top * found / np.arange(1, len(top) + 1)).sum() / max(total, 1))
    error = np.std(samples) / np.sqrt(len(samples))
    found = score(distances, relevant, k=k, normalizer=normalizer)
    assert abs(found - np.mean(samples)) < 4 * error
    low, high = (score(distances, relevant, k=k, normalizer=normalizer, ties=t) for t in ("worst", "best"))
    assert low <= min(samples)
    assert max(samples) <= high


@pytest.mark.parametrize("ties", ["expected", "best", "worst", "position"])
def test_a_ranking_without_a_mistake_scores_exactly_one(ties):
    """Not 1 and some rounding: whatever takes a score for a share relies on it."""
    generator = np.random.default_rng(4)
    for _ in range(300):
        distances = np.sort(generator.integers(0, 6, generator.integers(1, 200)))
        relevant = distances <= generator.integers(0, 6)
        k = int(generator.integers(1, len(distances) + 1))
        if relevant.any():
            assert score(distances, relevant, bits=6, ties=ties) == 1
        if relevant[:k].all():
            assert score(distances, relevant, bits=6, ties=ties, k=k, normalizer="retrieved") == 1


def test_bounds_look_at_every_number_of_hits():
    """One relevant item, then {+,-,-,-} cut at 3: both extreme orders give 1, [+,-,+] gives 5/6."""
    distances, relevant = [0, 1, 1, 1, 1], [1, 1, 0, 0, 0]
    options = {"k": 3, "normalizer": "retrieved"}
    assert score(distances, relevant, ties="best", **options) == pytest.approx(1)
    assert score(distances, relevant, ties="worst", **options) == pytest.approx(5 / 6)


@pytest.mark.parametrize("ties", ["expected", "best", "worst", "position"])
def test_equals_scikit_learn_without_ties(ties):
    generator = np.random.default_rng(1)
    distances = generator.permutation(90)
    relevant = generator.random(90) < 0.3
    reference = average_precision_score(relevant, -distances)
    assert score(distances, relevant, ties=ties) == pytest.approx(reference)


def test_policies_agree_at_a_cut_without_ties():
    generator = np.random.default_rng(2)
    distances, relevant = generator.permutation(40), generator.random(40) < 0.4
    for normalizer in ("all", "retrieved"):
        scores = [
            score(distances, relevant, k=13, normalizer=normalizer, ties=ties)
            for ties in ("expected", "best", "worst", "position")
        ]
        assert scores == pytest.approx([scores[0]] * 4)


@pytest.mark.parametrize("normalizer", ["all", "retrieved"])
def test_nothing_relevant_scores_zero(normalizer):
    for ties in ("expected", "best", "worst", "position"):
        assert score([0, 1, 1], [0, 0, 0], k=2, normalizer=normalizer, ties=ties) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 6), st.integers(1, 7), st.sampled_from(["all", "retrieved"]))
def test_chance_is_the_mean_over_all_orders(size, hits, k, normalizer):
    relevant = [1] * min(hits, size) + [0] * (size - min(hits, size))
    orders = [ap_of_order(order, k, normalizer) for order in permutations(relevant)]
    found = chance_average_precision(
        [[1]], np.asarray(relevant, np.uint8)[:, None], k=k, normalizer=normalizer
    )
    assert found == pytest.approx([np.mean(orders)], abs=1e-12)


@pytest.mark.parametrize("normalizer", ["all", "retrieved"])
def test_chance_is_what_equal_codes_score(normalizer):
    generator = np.random.default_rng(3)
    labels, queries = generator.integers(0, 5, 4000), generator.integers(0, 5, 30)
    codes = np.ones((4000, 16))
    scores = average_precision(codes[:30], codes, queries, labels, k=700, normalizer=normalizer)
    assert chance(queries, labels, k=700, normalizer=normalizer) == pytest.approx(scores.mean(), rel=1e-12)


def test_large_ties_stay_precise():
    """One group of 200,000 items against the sum over positions, term by term."""
    n, r = 200_000, 1_000
    i = np.arange(1, n + 1)
    exact = (r / n * (1 + (i - 1) * (r - 1) / (n - 1)) / i).sum() / r
    labels = (np.arange(n) < r).astype(np.uint8)[:, None]
    assert chance([[1]], labels) == pytest.approx(exact, rel=1e-10)
