"""The cosine margin between classes: how far apart the codes of that many classes can be at best."""

from __future__ import annotations

import math

from hashrobust.errors import InputError

# Largest known minimum distance of a binary linear [length, dimension] code, dimensions 4 to 8
# (Grassl, codetables.de).
FIRST_DIMENSION = 4
KNOWN_DISTANCES = {
    8: (4, 2, 2, 2, 1),
    12: (6, 4, 4, 4, 3),
    16: (8, 8, 6, 6, 5),
    24: (12, 12, 10, 10, 8),
    32: (16, 16, 16, 14, 13),
    36: (18, 17, 16, 16, 16),
    48: (24, 24, 24, 22, 22),
    64: (33, 32, 32, 32, 29),
    128: (68, 64, 64, 64, 64),
}


def cosine_margin(margin: float | None, bits: int, num_classes: int) -> float:
    """The margin that was given, or else that of `class_margin`.

    Raises:
        InputError: it is no cosine, or see `class_margin`.
    """
    if margin is None:
        return class_margin(bits, num_classes)
    if not -1 <= margin <= 1:
        raise InputError(f"margin is {margin}: a cosine lies between -1 and 1")
    return margin


def class_margin(bits: int, num_classes: int) -> float:
    """Margin 1 - 2d/K: the cosine of the two nearest of 2^n codes, n = ceil(log2 C).

    d is the largest known minimum distance of a binary linear [K, n] code; outside the table the
    largest that the Griesmer bound allows, at most 2 more than known codes reach within the table.
    Source: Xu et al., "HyP2 Loss", MM 2022, arXiv 2208.06866.

    Raises:
        InputError: fewer than n bits, so that no code tells the classes apart.
    """
    dimension = max(1, math.ceil(math.log2(num_classes)))
    if bits < dimension:
        raise InputError(
            f"{bits} bits cannot tell {num_classes} classes apart: "
            f"use at least {dimension} bits or give the margin yourself"
        )
    return 1 - 2 * minimum_distance(bits, dimension) / bits


def minimum_distance(length: int, dimension: int) -> int:
    """Largest known minimum distance of a binary linear code, or what the Griesmer bound allows."""
    known = KNOWN_DISTANCES.get(length, ())
    column = dimension - FIRST_DIMENSION
    if 0 <= column < len(known):
        return known[column]
    return griesmer_distance(length, dimension)


def griesmer_distance(length: int, dimension: int) -> int:
    """Largest d with sum over i < dimension of ceil(d / 2^i) <= length (Griesmer 1960)."""
    distance = length
    while sum(math.ceil(distance / 2**i) for i in range(dimension)) > length:
        distance -= 1
    return distance
