"""How well Hamming distance ranks a database: average precision and its kin, ties in expectation.

Codes are (Q, K) and (N, K) in {-1, +1}; labels are multi-hot (Q, C) and (N, C), or integer classes (Q,)
and (N,); torch tensors or numpy arrays. An item is relevant when it shares a label with the query.
Scores are fractions, one a query. Every function raises InputError where these do not fit together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashrobust._arrays import as_whole
from hashrobust.errors import InputError
from hashrobust.metrics import _kernel, _ties
from hashrobust.metrics._inputs import check_choice, check_top, pack_labels, pack_pairs

Counts = NDArray[np.int64]
Scores = NDArray[np.float64]

NORMALIZERS = ("all", "retrieved")
TIES = ("expected", "best", "worst", "position")


class PrecisionRecallCurve(NamedTuple):
    """Means over queries for each Hamming radius 0..K: precision is 0 where nothing is in the radius."""

    radius: Counts
    precision: Scores
    recall: Scores


class Ranking:
    """Queries ranked against a database: distances are counted once, every score is read from the counts.

    Attributes:
        counts, relevant: database items, and relevant ones, at each Hamming distance, (Q, K + 1) int64.

    Raises:
        InputError: codes or labels that do not fit together.
    """

    def __init__(
        self, query_codes: Any, database_codes: Any, query_labels: Any, database_labels: Any
    ) -> None:
        self._pairs = pack_pairs(query_codes, database_codes, query_labels, database_labels)
        self.counts, self.relevant = _kernel.count(self._pairs)
        self.queries, self.database = len(self.counts), self._pairs.database_codes.shape[1]

    def average_precision(
        self, *, k: int | None = None, normalizer: str = "all", ties: str = "expected"
    ) -> Scores:
        """See the function `average_precision`."""
        check_choice(normalizer, NORMALIZERS, "normalizer")
        check_choice(ties, TIES, "ties")
        top = check_top(k, self.database)
        if ties != "position":
            return _ties.average_precision(self.counts, self.relevant, top, normalizer, ties)
        sums, hits = _kernel.rank(self._pairs, self.counts, self.relevant, top)
        if normalizer == "all":
            hits = np.minimum(top, self.relevant.sum(axis=1))
        scores: Scores = sums / np.maximum(hits, 1)
        return scores

    def chance(self, *, k: int | None = None, normalizer: str = "all") -> Scores:
        """See the function `chance_average_precision`."""
        return _chance(self.relevant.sum(axis=1), self.database, k, normalizer)

    def hits_at_k(self, k: int) -> Scores:
        """Expected number of relevant items among the first k."""
        groups = _ties.Groups.of(self.counts, self.relevant, check_top(k, self.database))
        expected: Scores = (groups.t * groups.r / np.maximum(groups.n, 1)).sum(axis=1)
        return expected

    def precision_at_k(self, k: int) -> Scores:
        """See the function `precision_at_k`."""
        return self.hits_at_k(k) / check_top(k, self.database)

    def recall_at_k(self, k: int) -> Scores:
        """See the function `recall_at_k`."""
        recall: Scores = self.hits_at_k(k) / np.maximum(self.relevant.sum(axis=1), 1)
        return recall

    def precision_within_radius(self, radius: int = 2) -> Scores:
        """See the function `precision_within_radius`."""
        inside = slice(0, as_whole("radius", radius, least=0) + 1)
        found, hits = self.counts[:, inside].sum(axis=1), self.relevant[:, inside].sum(axis=1)
        precision: Scores = hits / np.maximum(found, 1)
        return precision

    def precision_recall_curve(self) -> PrecisionRecallCurve:
        """See the function `precision_recall_curve`."""
        found, hits = self.counts.cumsum(axis=1), self.relevant.cumsum(axis=1)
        return PrecisionRecallCurve(
            radius=np.arange(found.shape[1]),
            precision=(hits / np.maximum(found, 1)).mean(axis=0),
            recall=(hits / np.maximum(hits[:, -1:], 1)).mean(axis=0),
        )

    def has_labels(self) -> NDArray[np.bool_]:
        """Whether each query has a label at all, (Q,), and so would match itself."""
        labelled: NDArray[np.bool_] = (self._pairs.query_labels != 0).any(axis=1)
        return labelled | self._pairs.classes

    def empty_queries(self) -> float:
        """Share of queries with no relevant item in the database; their average precision is 0."""
        return float((self.relevant.sum(axis=1) == 0).mean())


def _chance(relevant: Counts, database: int, k: int | None, normalizer: str) -> Scores:
    check_choice(normalizer, NORMALIZERS, "normalizer")
    different, which = np.unique(relevant, return_inverse=True)
    counts = np.full((len(different), 1), database)
    top = check_top(k, database)
    return _ties.average_precision(counts, different[:, None], top, normalizer, "expected")[which]


def distance_histograms(
    query_codes: Any, database_codes: Any, query_labels: Any, database_labels: Any
) -> tuple[Counts, Counts]:
    """Database items, and relevant ones, at each Hamming distance 0..K: two (Q, K + 1) int64 arrays."""
    return _kernel.count(pack_pairs(query_codes, database_codes, query_labels, database_labels))


def average_precision(
    query_codes: Any,
    database_codes: Any,
    query_labels: Any,
    database_labels: Any,
    *,
    k: int | None = None,
    normalizer: str = "all",
    ties: str = "expected",
) -> Scores:
    """Average precision (Q,) of each query's first k database items by Hamming distance.

    Args:
        query_codes, database_codes, query_labels, database_labels: see the module.
        k: how many positions count; None for the full ranking.
        normalizer: "all" divides by min(k, relevant items in the database), "retrieved" by the relevant
            items among the first k, as the deep hashing literature does.
        ties: among items at equal distance, "expected" averages over all orders (McSherry and Najork,
            ECIR 2008), "best" and "worst" are the extremes over all orders, "position" is the order of
            the database. A query with no relevant item scores 0.

    Raises:
        InputError: inputs that do not fit together, k < 1, or an unknown name.
    """
    ranking = Ranking(query_codes, database_codes, query_labels, database_labels)
    return ranking.average_precision(k=k, normalizer=normalizer, ties=ties)


def leave_one_out_average_precision(
    codes: Any, labels: Any, *, k: int | None = None, normalizer: str = "all"
) -> Scores:
    """Tie-aware average precision (N,) of each image against all others of the same set.

    Raises:
        InputError: see `average_precision`; fewer than two images.
    """
    check_choice(normalizer, NORMALIZERS, "normalizer")
    ranking = Ranking(codes, codes, labels, labels)
    if ranking.database < 2:
        raise InputError("one image has no others to be ranked against: give at least two")
    ranking.counts[:, 0] -= 1
    ranking.relevant[:, 0] -= ranking.has_labels()
    return _ties.average_precision(
        ranking.counts, ranking.relevant, check_top(k, ranking.database - 1), normalizer, "expected"
    )


def chance_average_precision(
    query_labels: Any, database_labels: Any, *, k: int | None = None, normalizer: str = "all"
) -> Scores:
    """Expected average precision (Q,) of a random ranking: the whole database as one tied group."""
    _, relevant = _kernel.count(pack_labels(query_labels, database_labels))
    return _chance(relevant[:, 0], len(database_labels), k, normalizer)


def chance(
    query_labels: Any, database_labels: Any, *, k: int | None = None, normalizer: str = "all"
) -> float:
    """Mean over queries of `chance_average_precision`: what stands beside every mAP."""
    return float(chance_average_precision(query_labels, database_labels, k=k, normalizer=normalizer).mean())


def precision_at_k(
    query_codes: Any, database_codes: Any, query_labels: Any, database_labels: Any, *, k: int
) -> Scores:
    """Expected share of relevant items among the first min(k, N), (Q,)."""
    return Ranking(query_codes, database_codes, query_labels, database_labels).precision_at_k(k)


def recall_at_k(
    query_codes: Any, database_codes: Any, query_labels: Any, database_labels: Any, *, k: int
) -> Scores:
    """Expected share of all relevant items that are among the first k, (Q,); 0 if nothing is relevant."""
    return Ranking(query_codes, database_codes, query_labels, database_labels).recall_at_k(k)


def precision_within_radius(
    query_codes: Any, database_codes: Any, query_labels: Any, database_labels: Any, *, radius: int = 2
) -> Scores:
    """Share of relevant items at Hamming distance up to `radius`, (Q,); 0 if there are no items."""
    ranking = Ranking(query_codes, database_codes, query_labels, database_labels)
    return ranking.precision_within_radius(radius)


def precision_recall_curve(
    query_codes: Any, database_codes: Any, query_labels: Any, database_labels: Any
) -> PrecisionRecallCurve:
    """Mean precision and recall over queries within each Hamming radius 0..K."""
    return Ranking(query_codes, database_codes, query_labels, database_labels).precision_recall_curve()
