"""Average precision of rankings with ties, from histograms alone.

Items at one distance form a group: n items, r of them relevant, after N items of which R are relevant
in earlier groups. Only the first t items of a group count; t < n in the one group that the cut at k
goes through, t = 0 after it. All arrays are (Q, groups) or broadcast with each other.

Sources: McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the
Presence of Tied Scores", ECIR 2008; He, Cakir, Bargal and Sclaroff, "Hashing as Tie-Aware Learning to
Rank", CVPR 2018.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Scores = NDArray[np.float64]


class Groups(NamedTuple):
    """What a group of equal distance contributes from: see the module's letters."""

    n: Counts
    r: Counts
    t: Counts
    before: Counts
    hits_before: Counts

    @classmethod
    def of(cls, counts: Counts, relevant: Counts, top: int) -> Groups:
        """Groups of a ranking by distance of which the first `top` positions count."""
        before = counts.cumsum(axis=1) - counts
        return cls(
            n=counts,
            r=relevant,
            t=np.clip(top - before, 0, counts),
            before=before,
            hits_before=relevant.cumsum(axis=1) - relevant,
        )


def harmonic_numbers(count: int) -> Scores:
    """H(0), ..., H(count), where H(i) = 1 + 1/2 + ... + 1/i."""
    return np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, count + 1))))


def expected(g: Groups, harmonic: Scores) -> Scores:
    """Expected sum of precisions at the relevant items among a group's first t, over all orders of it.

    sum over i = 1..t of r/n (R + 1 + s (i - 1)) / (N + i) with s = (r - 1)/(n - 1). The sum of 1/(N + i) is
    h = H(N + t) - H(N), that of (i - 1)/(N + i) is t - (N + 1) h, and both together are s t + (R + 1 - s (N + 1)) h:
    so written, a ranking without a mistake scores exactly 1.
    """
    inverse = harmonic[g.before + g.t] - harmonic[g.before]
    share = g.r / np.maximum(g.n, 1)
    slope = np.where(g.n > 1, (g.r - 1) / np.maximum(g.n - 1, 1), 1.0)  # any for one item, whose i - 1 is 0
    sums: Scores = share * (slope * g.t + (g.hits_before + 1 - slope * (g.before + 1)) * inverse)
    return sums


def run_of_hits(first: Any, length: Any, hits_before: Any, harmonic: Scores) -> Scores:
    """Sum of precisions at `length` relevant items in a row that follow `first` items.

    sum over j = 1..length of (R + j)/(first + j) = length + (R - first)(H(first + length) - H(first)).
    """
    scores: Scores = length + (hits_before - first) * (harmonic[first + length] - harmonic[first])
    return scores


def best(g: Groups, harmonic: Scores) -> Scores:
    """Sum of precisions with the relevant items of each group first."""
    return run_of_hits(g.before, np.minimum(g.r, g.t), g.hits_before, harmonic)


def worst(g: Groups, harmonic: Scores) -> Scores:
    """Sum of precisions with the relevant items of each group last."""
    counted = np.maximum(g.t - (g.n - g.r), 0)
    return run_of_hits(g.before + g.t - counted, counted, g.hits_before, harmonic)


def hypergeometric(n: int, r: int, t: int) -> tuple[Counts, Scores]:
    """Each possible number of relevant items among t drawn from n of which r are; its probability.

    By the ratio of neighbours, normalised at the end: precise at any size.
    """
    m = np.arange(max(0, t - (n - r)), min(r, t) + 1)
    low = m[:-1]
    ratios = (r - low) * (t - low) / ((low + 1) * (n - r - t + low + 1))
    logs = np.concatenate(([0.0], np.cumsum(np.log(ratios))))
    weights = np.exp(logs - logs.max())
    return m, weights / weights.sum()


SUMS = {"expected": expected, "best": best, "worst": worst}


def average_precision(counts: Counts, relevant: Counts, top: int, normalizer: str, ties: str) -> Scores:
    """Average precision (Q,) from histograms (Q, groups); 0 where nothing is relevant.

    `normalizer` "all" divides by min(top, all relevant items), "retrieved" by those among the first
    `top`; `ties` is "expected", "best" or "worst".
    """
    groups = Groups.of(counts, relevant, top)
    harmonic = harmonic_numbers(int(counts.sum(axis=1).max(initial=0)))
    sums = SUMS[ties](groups, harmonic)
    scores: Scores
    if normalizer == "all":
        scores = sums.sum(axis=1) / np.maximum(np.minimum(top, relevant.sum(axis=1)), 1)
        return scores

    whole = groups.t == groups.n
    sure_sum = np.where(whole, sums, 0.0).sum(axis=1)
    sure_hits = np.where(whole, relevant, 0).sum(axis=1)
    scores = sure_sum / np.maximum(sure_hits, 1)
    cut = (groups.t > 0) & ~whole
    for query in np.flatnonzero(cut.any(axis=1)):
        last = int(cut[query].argmax())
        group = Groups(*(values[query, last] for values in groups))
        scores[query] = _cut_group(group, sure_sum[query], ties, harmonic)
    return scores


def _cut_group(g: Groups, sure_sum: float, ties: str, harmonic: Scores) -> float:
    """AP by retrieved items when the cut at k goes through group `g` (scalars), `sure_sum` before it.

    How many relevant items are retrieved depends on the order within the group: the quotient is taken
    for each such number m and averaged (expected) or its extreme taken (best, worst).
    """
    m, probability = hypergeometric(int(g.n), int(g.r), int(g.t))
    drawn = Groups(n=g.t, r=m, t=g.t, before=g.before, hits_before=g.hits_before)
    quotients = (sure_sum + SUMS[ties](drawn, harmonic)) / np.maximum(g.hits_before + m, 1)
    if ties == "expected":
        return float(probability @ quotients)
    return float(quotients.max() if ties == "best" else quotients.min())
