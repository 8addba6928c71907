"""Compiled loops over query-database pairs; none stores anything of size queries x database.

The loops release the interpreter lock and run on plain threads over slices of the queries, so that
they need no numba threading layer and give the same numbers on any number of threads. They are compiled
for each number of words in a code and in a label, so that a pair costs a few instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numba.extending import intrinsic
from numba.np.unsafe.ndarray import to_fixed_tuple
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Words = NDArray[np.uint64]
Counts = NDArray[np.int64]
Scores = NDArray[np.float64]

NONE = np.uint64(0)


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

    return word(word), generate


_popcount: Callable[[Any], Any] = intrinsic(_generate_popcount)  # type: ignore[assignment]
_tuple: Callable[[Any, int], Any] = to_fixed_tuple  # type: ignore[assignment]  # held in registers, unlike an array


@_compiled
def _take_margins(table: Any, together: bool, histogram: Counts, other_histogram: Counts) -> None:
    """Add what a table of `_counter` counted to the histograms of its two queries, and empty it."""
    keys = table.shape[1]
    for row in range(len(table)):
        total = 0
        for key in range(keys):
            total += table[row, key]
        if together and total:
            histogram[row] += total
            for key in range(keys):
                other_histogram[key] += table[row, key]
        elif not together:
            counted = other_histogram if row else histogram
            for key in range(keys):
                counted[key] += table[row, key]
        for key in range(keys):
            table[row, key] = 0


@cache
def _counter(words: int, label_words: int) -> Callable[..., None]:
    """The loop that counts items by distance, for two queries at a time.

    One table counts pairs of distances, an item's to the first and to the second query: half the writes, spread over
    so many places that hardly one waits for the one before. Its margins are the two histograms. Where it would be
    larger than the database, each query has a row of its own.

    Labels of no words mean that the database is sorted by class, and that a query matches its items from `begins` to
    `ends`. Otherwise what is counted is twice the distance, and one more where labels intersect.
    """

    def count(  # pragma: no cover - runs as machine code
        query_codes: Words,
        query_labels: Words,
        begins: Counts,
        ends: Counts,
        both: Counts,
        codes: Words,
        labels: Words,
    ) -> None:
        """Add to `both` (Q, 2 * (bits + 1)), Q even: items that do not match and that do, by distance."""
        size = codes.shape[1]
        stride = 1 if label_words else 2
        keys = both.shape[1] // stride
        together = keys * keys <= size
        table = np.zeros((keys if together else 2, keys), np.uint32)
        for first in range(0, len(query_codes), 2):
            second = first + 1
            code = _tuple(query_codes[first], words)
            other_code = _tuple(query_codes[second], words)
            label = _tuple(query_labels[first], label_words)
            other_label = _tuple(query_labels[second], label_words)
            # What the two match is the same or has nothing in common.
            begin, end = min(begins[first], begins[second]), min(ends[first], ends[second])
            cuts = (
                0,
                begin,
                end,
                max(begins[first], begins[second], end),
                max(ends[first], ends[second]),
                size,
            )
            for part in range(5):
                start, stop = cuts[part], cuts[part + 1]
                if start == stop:
                    continue
                # Unsigned, so that no index counts from the end.
                for item in range(np.uint64(start), np.uint64(stop)):
                    key = other_key = NONE
                    for word in range(words):
                        key += _popcount(code[word] ^ codes[word, item])
                        other_key += _popcount(other_code[word] ^ codes[word, item])
                    if label_words:
                        common = other_common = NONE
                        for word in range(label_words):
                            common |= label[word] & labels[word, item]
                            other_common |= other_label[word] & labels[word, item]
                        key = key + key + np.uint64(common != 0)
                        other_key = other_key + other_key + np.uint64(other_common != 0)
                    if together:
                        table[key, other_key] += 1
                    else:
                        table[0, key] += 1
                        table[1, other_key] += 1
                _take_margins(
                    table,
                    together,
                    both[first, int(begins[first] <= start < ends[first]) :: stride],
                    both[second, int(begins[second] <= start < ends[second]) :: stride],
                )

    return _compiled(count)


@cache
def _ranker(words: int, label_words: int, classes: bool) -> Callable[..., None]:
    """The loop that sums precisions over a stable ranking.

    `position` and `found` (Q, bits + 1) are the items, and the matching ones, at smaller distances, so that one pass
    in database order meets every item at its final position: a counting sort of which nothing is stored.
    """

    def rank(  # pragma: no cover - runs as machine code
        query_codes: Words,
        query_labels: Words,
        position: Counts,
        found: Counts,
        sums: Scores,
        hits: Counts,
        codes: Words,
        labels: Words,
        top: int,
    ) -> None:
        """Fill `sums` with the precisions at, and `hits` with the number of, matches among the first `top`."""
        for query in range(len(query_codes)):
            code = _tuple(query_codes[query], words)
            label = _tuple(query_labels[query], label_words)
            total, hit = 0.0, 0
            for item in range(codes.shape[1]):
                distance = NONE
                for word in range(words):
                    distance += _popcount(code[word] ^ codes[word, item])
                position[query, distance] += 1
                common = NONE
                for word in range(label_words):
                    common |= label[word] & labels[word, item]
                matches = label[0] == labels[0, item] if classes else common != 0
                if matches and position[query, distance] <= top:
                    found[query, distance] += 1
                    total += found[query, distance] / position[query, distance]
                    hit += 1
            sums[query], hits[query] = total, hit

    return _compiled(rank)


def _over_queries(loop: Callable[..., None], by_query: tuple[Any, ...], whole: tuple[Any, ...]) -> None:
    """Run a loop on slices of the queries: parts of `by_query`, which have a row a query, and all of `whole`."""
    total = len(by_query[0])
    threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    step = 2 * max(1, -(-total // (8 * threads)))

    def run(first: int) -> None:
        loop(*(rows[first : first + step] for rows in by_query), *whole)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(0, total, step)))


def count(pairs: Pairs) -> tuple[Counts, Counts]:
    """Database items, and matching ones, at each Hamming distance: both (Q, bits + 1)."""
    queries = len(pairs.query_codes)
    in_twos = np.minimum(np.arange(queries + queries % 2), queries - 1)
    query_codes, query_labels = pairs.query_codes[in_twos], pairs.query_labels[in_twos]
    codes, labels, label_words = pairs.database_codes, pairs.database_labels, len(pairs.database_labels)
    begins = ends = np.zeros(len(in_twos), np.int64)
    if pairs.classes:
        order = np.argsort(labels[0].astype(np.min_scalar_type(labels.max())), kind="stable")
        codes, labels, label_words = codes[:, order], labels[:, order], 0
        begins, ends = (np.searchsorted(labels[0], query_labels[:, 0], side) for side in ("left", "right"))
    both = np.zeros((len(in_twos), 2 * (pairs.bits + 1)), np.int64)
    loop = _counter(len(codes), label_words)
    _over_queries(loop, (query_codes, query_labels, begins, ends, both), (codes, labels))
    relevant = both[:queries, 1::2].copy()
    return both[:queries, ::2] + relevant, relevant


def rank(pairs: Pairs, counts: Counts, relevant: Counts, top: int) -> tuple[Scores, Counts]:
    """Sum of precisions at the matching items among the first `top`, ties by database position; their number.

    `counts` and `relevant` are the histograms that `count` gives for the same pairs.
    """
    queries = len(pairs.query_codes)
    sums, hits = np.empty(queries), np.empty(queries, np.int64)
    loop = _ranker(len(pairs.database_codes), len(pairs.database_labels), pairs.classes)
    position, found = (histogram.cumsum(axis=1) - histogram for histogram in (counts, relevant))
    by_query = (pairs.query_codes, pairs.query_labels, position, found, sums, hits)
    _over_queries(loop, by_query, (pairs.database_codes, pairs.database_labels, top))
    return sums, hits
