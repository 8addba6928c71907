"""Styles, bootstrap intervals, code statistics and the table a run records."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from hashrobust.errors import InputError
from hashrobust.metrics import (
    STYLES,
    average_precision,
    bootstrap_interval,
    chance,
    code_statistics,
    map_in_styles,
    mean_average_precision,
    paired_bootstrap_interval,
    precision_at_k,
    precision_within_radius,
    recall_at_k,
    retrieval_metrics,
)


@pytest.fixture(params=["classes", "multi-hot"])
def problem(request):
    generator = np.random.default_rng(4)
    features = generator.normal(size=(12, 5)), generator.normal(size=(60, 5))
    codes = [np.where(side >= 0, 1, -1).astype(np.int8) for side in features]
    if request.param == "classes":
        labels = [generator.integers(0, 8, len(side)) for side in features]
        labels[0][0] = 99  # a query with nothing relevant
    else:
        labels = [(generator.random((len(side), 6)) < 0.1).astype(np.uint8) for side in features]
        labels[0][0] = 0
    return codes, labels, features


def ranked_scores(codes, labels, order_of, k):
    """Average precision by relevant items retrieved, with the number of them, one query at a time."""
    scores = []
    for query in range(len(codes[0])):
        wanted = labels[0][query]
        relevant = labels[1] == wanted if labels[1].ndim == 1 else labels[1] @ wanted > 0
        top = relevant[order_of(query)][:k]
        at = np.flatnonzero(top) + 1
        scores.append((np.arange(1, len(at) + 1) / at).sum() / len(at) if len(at) else None)
    return scores


@pytest.mark.parametrize("k", [4, 25, None])
def test_styles_follow_their_definitions(problem, k):
    codes, labels, features = problem
    distances = (codes[0][:, None] != codes[1]).sum(axis=2)
    stable = ranked_scores(codes, labels, lambda q: np.argsort(distances[q], kind="stable"), k)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in features]
    squared = ((unit[0][:, None] - unit[1]) ** 2).sum(axis=2)
    by_feature = ranked_scores(codes, labels, lambda q: np.argsort(10 * distances[q] + squared[q]), k)
    scores = map_in_styles(*codes, *labels, k=k, query_features=features[0], database_features=features[1])
    assert set(scores) == set(STYLES)
    assert scores["deephash"] == pytest.approx(np.mean([s or 0 for s in stable]))
    assert scores["dhta"] == pytest.approx(np.mean([s for s in stable if s is not None]))
    assert scores["h2q"] == pytest.approx(np.mean([s or 0 for s in by_feature]))
    assert scores["textbook"] == pytest.approx(average_precision(*codes, *labels, k=k).mean())
    tie_aware = average_precision(*codes, *labels, k=k, normalizer="retrieved").mean()
    assert scores["default"] == pytest.approx(tie_aware)
    for style in STYLES:
        alone = mean_average_precision(
            *codes, *labels, k=k, style=style, query_features=features[0], database_features=features[1]
        )
        assert alone == scores[style]


def test_styles_that_lack_features(problem):
    codes, labels, features = problem
    assert set(map_in_styles(*codes, *labels)) == set(STYLES) - {"h2q"}
    with pytest.raises(InputError, match="features"):
        mean_average_precision(*codes, *labels, style="h2q")
    with pytest.raises(InputError, match="one row"):
        map_in_styles(*codes, *labels, query_features=features[0][1:], database_features=features[1])
    with pytest.raises(InputError, match="style 'other'"):
        mean_average_precision(*codes, *labels, style="other")


def test_features_are_ranked_one_query_like_many():
    """Queries are taken some at a time; a feature of length 0 is as far from all."""
    generator = np.random.default_rng(8)
    features = generator.normal(size=(37, 4)), generator.normal(size=(50, 4))
    features[0][20] = 0
    codes = [np.where(side >= 0, 1, -1) for side in features]
    labels = [generator.integers(0, 3, len(side)) for side in features]

    def score(part):
        return mean_average_precision(
            codes[0][part],
            codes[1],
            labels[0][part],
            labels[1],
            style="h2q",
            query_features=features[0][part],
            database_features=features[1],
        )

    assert score(slice(None)) == pytest.approx(np.mean([score([query]) for query in range(37)]))


def test_features_of_unequal_width_are_an_error(problem):
    codes, labels, features = problem
    with pytest.raises(InputError, match="4 and 5 columns"):
        map_in_styles(*codes, *labels, query_features=features[0][:, 1:], database_features=features[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_an_error(problem, value):
    """Where they would stand in a ranking is anybody's guess."""
    codes, labels, features = problem
    features[1][3, 2] = value
    with pytest.raises(InputError, match="no finite numbers"):
        map_in_styles(*codes, *labels, query_features=features[0], database_features=features[1])


def test_styles_are_zero_when_nothing_is_relevant():
    codes = np.ones((3, 8))
    scores = map_in_styles(codes, codes, [0, 0, 0], [1, 1, 1], query_features=codes, database_features=codes)
    assert set(scores.values()) == {0.0}


def test_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        low, high = bootstrap_interval(generator.normal(0.3, 1, 60), samples=400, seed=seed)
        inside += low <= 0.3 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_interval_has_the_width_of_the_normal_one():
    values = np.random.default_rng(1).random(400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)
    narrow = bootstrap_interval(values, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_interval_depends_on_values_and_seed_only():
    values = np.random.default_rng(2).random(30)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values.tolist(), seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    assert bootstrap_interval([0.25]) == (0.25, 0.25)


def test_interval_is_that_of_all_resamples_drawn_at_once():
    values = np.random.default_rng(5).random(31)
    drawn = values[np.random.default_rng(6).integers(0, 31, (1234, 31))].mean(axis=1)
    expected = np.quantile(drawn, [0.05, 0.95])
    assert bootstrap_interval(values, confidence=0.9, samples=1234, seed=6) == pytest.approx(expected)
    both = paired_bootstrap_interval(values, 0 * values, confidence=0.9, samples=1234, seed=6)
    assert both == pytest.approx(expected)


def test_pairs_are_resampled_together():
    values = np.random.default_rng(3).random(50)
    low, high = paired_bootstrap_interval(values + 0.1, values)
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.1)
    unpaired = bootstrap_interval(values)
    assert unpaired[1] - unpaired[0] > 0.05


@pytest.mark.parametrize("values", [[], [np.nan], [0.1, np.nan], [0.1, np.inf], [[0.1]], 0.1])
def test_interval_of_nothing_is_an_error(values):
    with pytest.raises(InputError, match="bootstrap values"):
        bootstrap_interval(values)


def test_interval_of_odd_requests_is_an_error():
    for odd in ({"confidence": 95}, {"confidence": 1}, {"confidence": 0}, {"samples": 0}):
        with pytest.raises(InputError, match="confidence"):
            bootstrap_interval([0.1], **odd)
    assert bootstrap_interval([0.1], samples=1) == (0.1, 0.1)
    for pair in (([0.1], [0.1, 0.2]), ([0.1, 0.2], [0.1])):
        with pytest.raises(InputError, match="same queries"):
            paired_bootstrap_interval(*pair)


def test_code_statistics_of_known_codes():
    full = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    assert code_statistics(full) == {"bit_balance": 1, "bit_correlation": 0, "distinct_codes": 4}
    copies = np.array([[1, 1, -1], [1, 1, -1], [-1, -1, 1], [-1, -1, 1]])
    assert code_statistics(copies) == pytest.approx(
        {"bit_balance": 1, "bit_correlation": 1, "distinct_codes": 2}
    )
    constant = np.ones((5, 12))
    assert code_statistics(constant) == {"bit_balance": 0, "bit_correlation": 0, "distinct_codes": 1}
    assert code_statistics(-constant) == code_statistics(constant)
    assert code_statistics([[1], [-1]])["bit_correlation"] == 0


def test_code_statistics_are_those_of_numpy_over_all_codes():
    """In several parts, with a bit that one code alone has."""
    generator = np.random.default_rng(9)
    codes = np.where(generator.normal(size=(40_000, 6)) + generator.normal(size=(40_000, 1)) > 0.5, 1, -1)
    codes[:, 4] = -1
    codes[:, 5] = np.where(np.arange(40_000) == 17, 1, -1)
    found = code_statistics(codes.astype(np.int8))
    correlations = np.abs(np.corrcoef(codes[:, [0, 1, 2, 3, 5]], rowvar=False))
    assert found["bit_correlation"] == pytest.approx((correlations.sum() - 5) / 20, rel=1e-9)
    assert found["bit_balance"] == pytest.approx(1 - np.abs(codes.mean(axis=0)).mean(), rel=1e-12)
    assert found["distinct_codes"] == len({tuple(code) for code in codes.tolist()})


def test_code_statistics_of_many_codes_take_little_memory():
    codes = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (100_000, 64))
    tracemalloc.start()
    try:
        code_statistics(codes)
        assert tracemalloc.get_traced_memory()[1] < 6 * codes.nbytes
    finally:
        tracemalloc.stop()


def test_no_codes_have_no_statistics():
    with pytest.raises(InputError, match="there are no codes"):
        code_statistics(np.empty((0, 8)))


def test_recorded_table_agrees_with_the_single_functions(problem):
    codes, labels, _ = problem
    metrics = retrieval_metrics(*codes, *labels, k=9)
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    scores = average_precision(*codes, *labels)
    assert metrics["map"] == pytest.approx(scores.mean())
    assert (metrics["map_low"], metrics["map_high"]) == bootstrap_interval(scores)
    assert metrics["map_worst_ties"] < metrics["map"] < metrics["map_best_ties"]
    for ties in ("best", "worst"):
        of_ties = average_precision(*codes, *labels, ties=ties).mean()
        assert metrics[f"map_{ties}_ties"] == pytest.approx(of_ties)
    at_k = average_precision(*codes, *labels, k=9, normalizer="retrieved")
    assert metrics["map_at_k"] == metrics["map_style_default"] == pytest.approx(at_k.mean())
    assert metrics["empty_queries"] >= 1 / 12
    assert metrics["chance_map"] == pytest.approx(chance(*labels))
    assert metrics["chance_map_at_k"] == pytest.approx(chance(*labels, k=9, normalizer="retrieved"))
    assert metrics["precision_at_k"] == pytest.approx(precision_at_k(*codes, *labels, k=9).mean())
    assert metrics["recall_at_k"] == pytest.approx(recall_at_k(*codes, *labels, k=9).mean())
    near = precision_within_radius(*codes, *labels)
    assert metrics["precision_radius_2"] == pytest.approx(near.mean())
    assert np.array_equal(near, precision_within_radius(*codes, *labels, radius=2))
    assert (metrics["map_at_k_low"], metrics["map_at_k_high"]) == bootstrap_interval(at_k)
    sizes = {"queries": 12, "database": 60, "bits": 5, "k": 9}
    assert {name: metrics[name] for name in sizes} == sizes
    whole = retrieval_metrics(*codes, *labels)
    assert whole["k"] == 60
    assert whole["map_at_k"] == pytest.approx(whole["map"])
    assert whole["chance_map_at_k"] == pytest.approx(whole["chance_map"])


def test_codes_and_features_may_be_lists_and_one_side_of_features_is_none(problem):
    codes, labels, features = problem
    lists = [side.tolist() for side in (*codes, *labels)]
    given = {"query_features": features[0].tolist(), "database_features": features[1].tolist()}
    assert map_in_styles(*lists, **given) == map_in_styles(
        *codes, *labels, query_features=features[0], database_features=features[1]
    )
    assert mean_average_precision(*lists, style="h2q", **given) == map_in_styles(*lists, **given)["h2q"]
    for side in given:
        assert "h2q" not in map_in_styles(*lists, **{side: given[side]})
        with pytest.raises(InputError, match="give query_features and database_features"):
            mean_average_precision(*lists, style="h2q", **{side: given[side]})


@pytest.mark.parametrize(("options", "said"), [
    ({"confidence": -0.5}, "confidence -0.5"), ({"confidence": 1.5}, "confidence 1.5"),
    ({"samples": 0}, "with 0 samples"), ({"samples": -1}, "with -1 samples"),
])  # fmt: skip
def test_intervals_that_are_none(options, said):
    with pytest.raises(InputError, match=said):
        bootstrap_interval([0.1, 0.2], **options)
    assert bootstrap_interval([0.3], samples=1) == (0.3, 0.3)
