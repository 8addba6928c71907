"""What is recorded of codes and of a retrieval run, as flat tables of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from hashrobust._arrays import as_codes, pack
from hashrobust.errors import InputError
from hashrobust.metrics._inputs import check_top
from hashrobust.metrics.bootstrap import bootstrap_interval
from hashrobust.metrics.ranking import Ranking
from hashrobust.metrics.styles import FEATURE_STYLE, STYLES, style_score

AT_ONCE = 1 << 14  # codes that become floating point numbers together, of what may be millions


def code_statistics(codes: Any) -> dict[str, float]:
    """How well codes (N, K) use their bits.

    `bit_balance`: 1 - mean over bits of abs(mean over images); 1 when each bit is +1 for half of them.
    `bit_correlation`: mean absolute Pearson correlation over pairs of bits, constant bits left out; 0
    where no pair is left. `distinct_codes`: how many different codes there are.

    Raises:
        InputError: values other than -1 and +1, or no codes.
    """
    array = as_codes(codes)
    if len(array) == 0:
        raise InputError("there are no codes: give at least one")
    bits = array.shape[1]
    sums, products = np.zeros(bits), np.zeros((bits, bits))
    for start in range(0, len(array), AT_ONCE):
        part = array[start : start + AT_ONCE].astype(np.float64)
        sums += part.sum(axis=0)
        products += part.T @ part
    means = sums / len(array)
    varying = np.abs(sums) < len(array)
    covariance = (products / len(array) - np.outer(means, means))[np.ix_(varying, varying)]
    spreads = np.sqrt(np.diag(covariance))
    absolute = np.abs(covariance / np.outer(spreads, spreads))
    pairs = len(absolute) * (len(absolute) - 1)
    return {
        "bit_balance": float(1 - np.abs(means).mean()),
        "bit_correlation": float((absolute.sum() - np.trace(absolute)) / pairs) if pairs else 0.0,
        "distinct_codes": float(len(np.unique(pack(array), axis=0))),
    }


def retrieval_metrics(
    query_codes: Any, database_codes: Any, query_labels: Any, database_labels: Any, *, k: int | None = None
) -> dict[str, float]:
    """Every number that a run records of its codes, by name; scores are fractions.

    `map` is tie-aware over the full ranking, `map_at_k` tie-aware at k divided by the relevant items
    retrieved; `_low` and `_high` are 95% bootstrap bounds over queries. `map_best_ties` and
    `map_worst_ties` bound `map` over all orders of ties. `k=None` stands for the full ranking. Bit
    statistics are those of the database codes.

    Raises:
        InputError: see `average_precision`.
    """
    ranking = Ranking(query_codes, database_codes, query_labels, database_labels)
    top = check_top(k, ranking.database)
    full = ranking.average_precision()
    cut = ranking.average_precision(k=top, normalizer="retrieved")
    (low, high), (cut_low, cut_high) = bootstrap_interval(full), bootstrap_interval(cut)
    metrics = {
        "map": full.mean(),
        "map_low": low,
        "map_high": high,
        "map_at_k": cut.mean(),
        "map_at_k_low": cut_low,
        "map_at_k_high": cut_high,
        "map_best_ties": ranking.average_precision(ties="best").mean(),
        "map_worst_ties": ranking.average_precision(ties="worst").mean(),
        "chance_map": ranking.chance().mean(),
        "chance_map_at_k": ranking.chance(k=top, normalizer="retrieved").mean(),
        "precision_at_k": ranking.precision_at_k(top).mean(),
        "recall_at_k": ranking.recall_at_k(top).mean(),
        "precision_radius_2": ranking.precision_within_radius(2).mean(),
        "empty_queries": ranking.empty_queries(),
        **code_statistics(database_codes),
        "queries": ranking.queries,
        "database": ranking.database,
        "bits": ranking.counts.shape[1] - 1,
        "k": top,
    }
    styles = (style for style in STYLES if style != FEATURE_STYLE)
    metrics.update({f"map_style_{style}": style_score(ranking, style, top) for style in styles})
    return {name: float(value) for name, value in metrics.items()}
