"""Histograms and the scores read from them, against slow obvious references."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashrobust.errors import InputError
from hashrobust.metrics import (
    Ranking,
    average_precision,
    chance,
    chance_average_precision,
    distance_histograms,
    leave_one_out_average_precision,
    precision_at_k,
    precision_recall_curve,
    precision_within_radius,
    recall_at_k,
)


def random_codes(generator, count, bits):
    return generator.choice(np.array([-1, 1], np.int8), (count, bits))


def problem(seed, queries=7, database=40, bits=6, classes=4, multi=True):
    generator = np.random.default_rng(seed)
    codes = [random_codes(generator, n, bits) for n in (queries, database)]
    if multi:
        labels = [(generator.random((n, classes)) < 0.3).astype(np.uint8) for n in (queries, database)]
    else:
        labels = [generator.integers(0, classes, n) for n in (queries, database)]
    return (*codes, *labels)


def distances_and_relevance(query_codes, database_codes, query_labels, database_labels):
    distances = (query_codes[:, None] != database_codes[None]).sum(axis=2)
    if query_labels.ndim == 1:
        return distances, query_labels[:, None] == database_labels
    return distances, query_labels.astype(int) @ database_labels.T.astype(int) > 0


@pytest.mark.parametrize("bits", [1, 12, 36, 64, 65, 130])
@pytest.mark.parametrize(("classes", "multi"), [(3, True), (80, True), (130, True), (10, False)])
def test_histograms_count_every_pair(bits, classes, multi):
    inputs = problem(bits, queries=3, database=4200, bits=bits, classes=classes, multi=multi)
    counts, relevant = distance_histograms(*inputs)
    assert counts.dtype == relevant.dtype == np.int64
    assert counts.shape == relevant.shape == (3, bits + 1)
    check_histograms(inputs)


def test_histograms_of_codes_of_a_thousand_bits():
    check_histograms(problem(1000, queries=3, database=300, bits=1000, multi=False))


def check_histograms(inputs):
    counts, relevant = distance_histograms(*inputs)
    distances, matches = distances_and_relevance(*inputs)
    for query, distance in enumerate(distances):
        assert (counts[query] == np.bincount(distance, minlength=counts.shape[1])).all()
        hits = distance[matches[query]]
        assert (relevant[query] == np.bincount(hits, minlength=counts.shape[1])).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_histograms_of_any_codes_and_labels(data):
    """Few bits and repeated codes, small and large databases, labels of none to all, class numbers of any size."""
    generator = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    bits, queries = data.draw(st.integers(1, 128)), data.draw(st.integers(1, 9))
    database = data.draw(st.sampled_from([1, 2, 65, 1000]))
    different = random_codes(generator, data.draw(st.sampled_from([1, 5, 1000])), bits)
    codes = [different[generator.integers(0, len(different), n)] for n in (queries, database)]
    if data.draw(st.booleans()):
        share, classes = data.draw(st.sampled_from([0.0, 0.02, 0.5, 1.0])), data.draw(st.integers(1, 128))
        labels = [(generator.random((n, classes)) < share).astype(np.uint8) for n in (queries, database)]
    else:
        known = generator.integers(0, data.draw(st.sampled_from([1, 70, 2**20, 2**62])), 12)
        labels = [
            generator.choice(known[side], n) for side, n in ((slice(9), queries), (slice(3, 12), database))
        ]
    check_histograms((*codes, *labels))


seeds = st.integers(0, 10_000)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(["all", "retrieved"]), st.sampled_from([None, 1, 9, 40, 99]))
def test_what_leaves_distances_leaves_the_score(seed, normalizer, k):
    queries, database, query_labels, database_labels = problem(seed)
    generator = np.random.default_rng(seed)
    options = {"k": k, "normalizer": normalizer}
    scores = average_precision(queries, database, query_labels, database_labels, **options)
    order, bits = generator.permutation(len(database)), generator.permutation(queries.shape[1])
    flips = random_codes(generator, 1, queries.shape[1])
    shuffled = average_precision(queries, database[order], query_labels, database_labels[order], **options)
    mirrored = average_precision(
        (queries * flips)[:, bits], (database * flips)[:, bits], query_labels, database_labels, **options
    )
    longer = average_precision(
        np.pad(queries, ((0, 0), (0, 3)), constant_values=1),
        np.pad(database, ((0, 0), (0, 3)), constant_values=1),
        query_labels,
        database_labels,
        **options,
    )
    for other in (shuffled, mirrored, longer):
        np.testing.assert_allclose(other, scores, rtol=0, atol=1e-13)
    assert ((scores >= 0) & (scores <= 1)).all()
    low = average_precision(queries, database, query_labels, database_labels, ties="worst", **options)
    high = average_precision(queries, database, query_labels, database_labels, ties="best", **options)
    position = average_precision(queries, database, query_labels, database_labels, ties="position", **options)
    for middle in (scores, position):
        assert (low <= middle + 1e-12).all()
        assert (middle <= high + 1e-12).all()


def test_one_hot_labels_are_classes():
    queries, database, query_labels, database_labels = problem(5, multi=False)
    one_hot = [np.eye(4, dtype=np.uint8)[labels] for labels in (query_labels, database_labels)]
    expected = average_precision(queries, database, query_labels, database_labels)
    assert (average_precision(queries, database, *one_hot) == expected).all()


def test_torch_and_numpy_and_any_number_type_give_the_same():
    inputs = problem(6)
    expected = average_precision(*inputs, k=10)
    assert expected.dtype == np.float64
    assert (average_precision(*(torch.from_numpy(x) for x in inputs), k=10) == expected).all()
    as_float = [torch.from_numpy(x).float().requires_grad_() for x in inputs[:2]]
    assert (average_precision(*as_float, *inputs[2:], k=np.int64(10)) == expected).all()
    halves = [torch.from_numpy(x).bfloat16() for x in inputs]
    assert (average_precision(*halves, k=10) == expected).all()
    read_only = [np.asfortranarray(x)[::-1][::-1] for x in inputs]
    for side in read_only:
        side.flags.writeable = False
    assert (average_precision(*read_only, k=10) == expected).all()


def test_an_unlabelled_image_matches_nothing():
    queries, database, query_labels, database_labels = problem(7)
    query_labels[0] = 0
    database_labels[:] |= 1
    ranking = Ranking(queries, database, query_labels, database_labels)
    assert ranking.relevant[0].sum() == 0
    assert ranking.average_precision()[0] == 0
    assert ranking.empty_queries() == (query_labels.sum(axis=1) == 0).mean()


def test_as_many_labels_as_images_are_not_one_label_each():
    codes, labels = np.ones((2, 4)), [[1, 1], [0, 0]]
    assert average_precision(codes, codes, labels, labels, ties="best").tolist() == [1, 0]


def test_leave_one_out_needs_two_images():
    with pytest.raises(InputError, match="at least two"):
        leave_one_out_average_precision([[1, -1]], [0])
    assert leave_one_out_average_precision([[1, -1], [1, 1]], [0, 0]).tolist() == [1, 1]


@settings(max_examples=15, deadline=None)
@given(seeds, st.booleans(), st.sampled_from(["all", "retrieved"]), st.sampled_from([None, 1, 12]))
def test_leave_one_out_equals_removing_the_query(seed, multi, normalizer, k):
    _, codes, _, labels = problem(seed, database=20, multi=multi)
    if multi:
        labels[3] = 0
    scores = leave_one_out_average_precision(codes, labels, k=k, normalizer=normalizer)
    for i in range(len(codes)):
        others = np.arange(len(codes)) != i
        alone = average_precision(
            codes[i : i + 1], codes[others], labels[i : i + 1], labels[others], k=k, normalizer=normalizer
        )
        assert scores[i] == pytest.approx(alone[0], abs=1e-13)


def test_precision_and_recall_at_k_average_over_orders():
    inputs = problem(8, bits=3)
    distances, matches = distances_and_relevance(*inputs)
    generator = np.random.default_rng(0)
    totals = np.zeros(len(distances))
    for _ in range(3000):
        shuffled = generator.permutation(distances.shape[1])
        order = shuffled[np.argsort(distances[:, shuffled], axis=1, kind="stable")][:, :11]
        totals += np.take_along_axis(matches, order, axis=1).sum(axis=1)
    hits = totals / 3000
    np.testing.assert_allclose(precision_at_k(*inputs, k=11), hits / 11, atol=0.01)
    np.testing.assert_allclose(
        recall_at_k(*inputs, k=11), hits / np.maximum(matches.sum(axis=1), 1), atol=0.01
    )
    np.testing.assert_allclose(precision_at_k(*inputs, k=999), matches.mean(axis=1))


def test_radius_scores_count_what_is_inside():
    inputs = problem(9, bits=10)
    distances, matches = distances_and_relevance(*inputs)
    curve = precision_recall_curve(*inputs)
    assert (curve.radius == np.arange(11)).all()
    for radius in range(11):
        inside = distances <= radius
        found, hits = inside.sum(axis=1), (inside & matches).sum(axis=1)
        precision = np.divide(hits, found, out=np.zeros(len(hits)), where=found > 0)
        total = matches.sum(axis=1)
        recall = np.divide(hits, total, out=np.zeros(len(hits)), where=total > 0)
        np.testing.assert_allclose(precision_within_radius(*inputs, radius=radius), precision)
        assert curve.precision[radius] == pytest.approx(precision.mean())
        assert curve.recall[radius] == pytest.approx(recall.mean())


ONES = np.ones((2, 4))
CASES = {
    "values": ((ONES * 0, ONES, [0, 1], [0, 1]), {}, "-1 and \\+1"),
    "nan": ((ONES * np.nan, ONES, [0, 1], [0, 1]), {}, "-1 and \\+1"),
    "boolean codes": ((ONES > 0, ONES, [0, 1], [0, 1]), {}, "-1 and \\+1"),
    "bits": ((np.ones((2, 5)), ONES, [0, 1], [0, 1]), {}, "5 bits"),
    "no matrix": ((np.ones(4), ONES, [0, 1], [0, 1]), {}, "shape"),
    "query labels": ((ONES, ONES, [0], [0, 1]), {}, "query codes have 1 labels"),
    "database labels": ((ONES, ONES, [0, 1], [0]), {}, "database codes have 1 labels"),
    "class widths": ((ONES, ONES, np.eye(2), np.eye(3)[:2]), {}, "go together"),
    "label kinds": ((ONES, ONES, [0, 1], np.eye(2)), {}, "go together"),
    "label values": ((ONES, ONES, np.eye(2) * 2, np.eye(2)), {}, "multi-hot"),
    "negative class": ((ONES, ONES, [0, -1], [0, 1]), {}, "integers from 0"),
    "float classes": ((ONES, ONES, [0.5, 1], [0, 1]), {}, "integers from 0"),
    "ragged codes": (([[1, 1], [1]], ONES, [0, 1], [0, 1]), {}, "rows of equal length"),
    "no database": ((ONES, np.ones((0, 4)), [0, 1], np.zeros(0, int)), {}, "no database labels"),
    "no query": ((np.ones((0, 4)), ONES, np.zeros((0, 2)), np.eye(2)), {}, "no query labels"),
    "no classes": ((ONES, ONES, np.zeros((2, 0)), np.zeros((2, 0))), {}, "labels have shape"),
    "k": ((ONES, ONES, [0, 1], [0, 1]), {"k": 0}, "k is 0"),
    "k boolean": ((ONES, ONES, [0, 1], [0, 1]), {"k": True}, "k is True"),
    "k type": ((ONES, ONES, [0, 1], [0, 1]), {"k": 2.5}, "k is 2.5"),
    "normalizer": ((ONES, ONES, [0, 1], [0, 1]), {"normalizer": "some"}, "all, retrieved"),
    "ties": ((ONES, ONES, [0, 1], [0, 1]), {"ties": "random"}, "expected, best"),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_named(case):
    inputs, options, message = CASES[case]
    with pytest.raises(InputError, match=message):
        average_precision(*inputs, **options)


@pytest.mark.parametrize("radius", [-1, 2.0, None, True])
def test_a_radius_that_is_no_distance_is_an_error(radius):
    with pytest.raises(InputError, match=f"radius is {radius}"):
        precision_within_radius(ONES, ONES, [0, 1], [0, 1], radius=radius)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_metrics_load_neither_torch_nor_faiss():
    loaded = run_python("import sys, hashrobust.metrics; print({'torch', 'faiss'} & set(sys.modules))")
    assert loaded.strip() == "set()"


def test_works_where_nothing_can_be_cached():
    code = (
        "import numba.core.caching as c; c.CacheImpl._locator_classes = []\n"
        "import numpy as np; from hashrobust.metrics import average_precision as ap\n"
        "o = np.ones((1, 4)); print(ap(o, o, [0], [0])[0])"
    )
    assert run_python(code).strip() == "1.0"


def test_recall_of_a_single_relevant_item():
    codes, labels = [[1, 1], [1, -1], [-1, -1]], [0, 1, 2]
    assert recall_at_k(codes, codes, labels, labels, k=1).tolist() == [1, 1, 1]
    assert precision_at_k(codes, codes, labels, labels, k=3) == pytest.approx([1 / 3] * 3)
    for k in (0, -1, 1.5):
        with pytest.raises(InputError, match=f"k is {k}"):
            recall_at_k(codes, codes, labels, labels, k=k)


def test_leave_one_out_knows_the_normalizers():
    with pytest.raises(InputError, match="normalizer 'some' is unknown: choose from all, retrieved"):
        leave_one_out_average_precision([[1, -1], [1, 1]], [0, 1], normalizer="some")


@pytest.mark.parametrize("measure", [chance, chance_average_precision])
def test_chance_knows_the_normalizers(measure):
    with pytest.raises(InputError, match="normalizer"):
        measure([0], [0, 1], normalizer="none")


def test_within_a_radius_means_two_bits_unless_said():
    codes, labels = np.ones((1, 8)), [0]
    database = np.ones((4, 8))
    for row, flipped in enumerate((0, 2, 2, 3)):
        database[row, :flipped] = -1
    assert precision_within_radius(codes, database, labels, [0, 0, 1, 0]) == pytest.approx([2 / 3])


def test_a_curve_reaches_full_recall_of_a_single_relevant_item():
    curve = precision_recall_curve(np.ones((1, 2)), [[1, 1], [-1, 1]], [0], [0, 1])
    assert curve.recall.tolist() == [1, 1, 1] and curve.precision.tolist() == [1, 0.5, 0.5]
