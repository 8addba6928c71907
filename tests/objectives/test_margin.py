"""The margin between classes against published values (those in the code of H2Q) and exhaustive search."""

from __future__ import annotations

import itertools

import pytest

from hashrobust.errors import InputError
from hashrobust.objectives import build_objective
from hashrobust.objectives._margin import KNOWN_DISTANCES, class_margin, griesmer_distance, minimum_distance

PUBLISHED = {
    8: (0, 0.5, 0.5, 0.5, 0.75),
    12: (0, 0.3333, 0.3333, 0.3333, 0.5),
    16: (0, 0, 0.25, 0.25, 0.375),
    24: (0, 0, 0.1667, 0.1667, 0.3333),
    32: (0, 0, 0, 0.125, 0.1875),
    36: (0, 0.0556, 0.1111, 0.1111, 0.1111),
    48: (0, 0, 0, 0.0833, 0.0833),
    64: (-0.03125, 0, 0, 0, 0.09375),
    128: (-0.0625, 0, 0, 0, 0),
}
COUNTS = (10, 21, 38, 100, 200)  # ceil(log2) = 4, 5, 6, 7, 8


@pytest.mark.parametrize("bits", PUBLISHED)
def test_published_margins(bits):
    for classes, margin in zip(COUNTS, PUBLISHED[bits], strict=True):
        assert class_margin(bits, classes) == pytest.approx(margin, abs=1e-4)
        objective = build_objective("hyp2", bits=bits, num_classes=classes, similar_share=0.1)
        assert objective.margin == pytest.approx(margin, abs=1e-4)


def test_known_codes_keep_the_griesmer_bound_and_nearly_reach_it():
    for length, distances in KNOWN_DISTANCES.items():
        for dimension, distance in enumerate(distances, start=4):
            assert 0 <= griesmer_distance(length, dimension) - distance <= 2


def best_distance(length: int, dimension: int) -> int:
    """Minimum distance of the best linear code, over all choices of generator columns."""
    columns = range(1, 2**dimension)
    messages = range(1, 2**dimension)
    return max(
        min(sum((message & column).bit_count() % 2 for column in code) for message in messages)
        for code in itertools.combinations_with_replacement(columns, length)
    )


@pytest.mark.parametrize(("length", "dimension"), [(5, 1), (5, 2), (8, 2), (12, 2), (3, 3), (6, 3), (8, 3)])
def test_outside_the_table_small_codes_are_exact(length, dimension):
    assert minimum_distance(length, dimension) == best_distance(length, dimension)


@pytest.mark.parametrize(("classes", "dimension"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (17, 5)])
def test_classes_to_dimension(classes, dimension):
    assert class_margin(12, classes) == 1 - 2 * minimum_distance(12, dimension) / 12


def test_too_few_bits_are_refused_unless_the_margin_is_given():
    with pytest.raises(InputError, match="margin"):
        build_objective("hyp2", bits=3, num_classes=10, similar_share=0.1)
    assert build_objective("hyp2", bits=3, num_classes=10, similar_share=0.1, margin=0.2).margin == 0.2
