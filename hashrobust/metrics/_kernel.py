"""Compiled loops over query-database pairs; none stores anything of size queries x database.

The loops release the interpreter lock and run on plain threads over slices of the queries, so that
they need no numba threading layer and give the same numbers on any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Words = NDArray[np.uint64]
Counts = NDArray[np.int64]
Scores = NDArray[np.float64]

BLOCK = 4096  # database items at a time: their distances stay in the fastest cache
SHIFT = 32  # two counts share an integer: all items below this bit, relevant ones above


class Pairs(NamedTuple):
    """Queries and database, a row a query and a column a database item.

    Codes and labels are 64-bit words. With `classes` the labels are one word, the class number, and
    two items match when it is equal; otherwise they are bit sets that match when they intersect.
    """

    query_codes: Words
    query_labels: Words
    database_codes: Words
    database_labels: Words
    classes: bool
    bits: int


def _compiled(function: F) -> F:
    """Compile without the interpreter lock; keep the result on disk where some folder is writable."""
    try:
        compiled: F = numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # no place for numba's cache
        compiled = numba.njit(function, nogil=True)
    return compiled


def _generate_popcount(typing_context: Any, word: Any) -> Any:
    """The number of ones in a 64-bit word: one processor instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


_popcount: Callable[[Any], Any] = intrinsic(_generate_popcount)  # type: ignore[assignment]


@_compiled
def _compare(
    query_codes: Words,
    query_labels: Words,
    codes: Words,
    labels: Words,
    classes: bool,
    start: int,
    distances: Counts,
    matches: Counts,
) -> None:
    """Fill `distances` and `matches` (0 or 1 << SHIFT) of one query to a block of the database."""
    size = distances.size
    distances[:] = 0
    for word in range(codes.shape[0]):
        for item in range(size):
            distances[item] += _popcount(query_codes[word] ^ codes[word, start + item])
    if classes:
        for item in range(size):
            matches[item] = np.int64(query_labels[0] == labels[0, start + item]) << SHIFT
    else:
        matches[:] = 0
        for word in range(labels.shape[0]):
            for item in range(size):
                common = query_labels[word] & labels[word, start + item]
                matches[item] |= np.int64(common != 0) << SHIFT


@_compiled
def _count(
    query_codes: Words,
    query_labels: Words,
    codes: Words,
    labels: Words,
    classes: bool,
    counts: Counts,
    relevant: Counts,
) -> None:
    """Histograms of all and of matching database items by distance, a row a query."""
    distances = np.empty(BLOCK, np.int64)
    matches = np.empty(BLOCK, np.int64)
    both = np.empty(counts.shape[1], np.int64)
    for query in range(counts.shape[0]):
        both[:] = 0
        for start in range(0, codes.shape[1], BLOCK):
            size = min(BLOCK, codes.shape[1] - start)
            _compare(
                query_codes[query], query_labels[query], codes, labels, classes, start,
                distances[:size], matches[:size],
            )  # fmt: skip
            for item in range(size):
                both[distances[item]] += 1 + matches[item]
        for distance in range(both.size):
            counts[query, distance] = both[distance] & ((1 << SHIFT) - 1)
            relevant[query, distance] = both[distance] >> SHIFT


@_compiled
def _rank(
    query_codes: Words,
    query_labels: Words,
    codes: Words,
    labels: Words,
    classes: bool,
    counts: Counts,
    relevant: Counts,
    top: int,
    sums: Scores,
    hits: Counts,
) -> None:
    """Sum of precisions at, and number of, matching items among the first `top` of a stable ranking.

    The histograms say where each distance begins, so that one pass in database order meets every item
    at its final position: a counting sort of which nothing is stored.
    """
    distances = np.empty(BLOCK, np.int64)
    matches = np.empty(BLOCK, np.int64)
    for query in range(counts.shape[0]):
        position = np.cumsum(counts[query]) - counts[query]
        found = np.cumsum(relevant[query]) - relevant[query]
        for start in range(0, codes.shape[1], BLOCK):
            size = min(BLOCK, codes.shape[1] - start)
            _compare(
                query_codes[query], query_labels[query], codes, labels, classes, start,
                distances[:size], matches[:size],
            )  # fmt: skip
            for item in range(size):
                distance = distances[item]
                position[distance] += 1
                if matches[item] and position[distance] <= top:
                    found[distance] += 1
                    sums[query] += found[distance] / position[distance]
                    hits[query] += 1


def _over_queries(loop: Callable[..., None], pairs: Pairs, *rest: Any) -> None:
    """Run a loop on slices of the queries; arrays in `rest` have a row a query, numbers are passed on."""
    total = len(pairs.query_codes)
    threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    step = max(1, -(-total // (4 * threads)))

    def run(first: int) -> None:
        part = slice(first, first + step)
        loop(
            pairs.query_codes[part],
            pairs.query_labels[part],
            pairs.database_codes,
            pairs.database_labels,
            pairs.classes,
            *(value[part] if isinstance(value, np.ndarray) else value for value in rest),
        )

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(0, total, step)))


def count(pairs: Pairs) -> tuple[Counts, Counts]:
    """Database items, and matching ones, at each Hamming distance: both (Q, bits + 1)."""
    shape = (len(pairs.query_codes), pairs.bits + 1)
    counts, relevant = np.empty(shape, np.int64), np.empty(shape, np.int64)
    _over_queries(_count, pairs, counts, relevant)
    return counts, relevant


def rank(pairs: Pairs, counts: Counts, relevant: Counts, top: int) -> tuple[Scores, Counts]:
    """Sum of precisions at the matching items among the first `top`, ties by database position; their number.

    `counts` and `relevant` are the histograms that `count` gives for the same pairs.
    """
    queries = len(pairs.query_codes)
    sums, hits = np.zeros(queries), np.zeros(queries, np.int64)
    _over_queries(_rank, pairs, counts, relevant, top, sums, hits)
    return sums, hits
