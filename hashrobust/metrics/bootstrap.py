"""How far a mean over queries may be off for the queries that happened to be drawn.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile interval).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hashrobust._arrays import as_array
from hashrobust.errors import InputError

CHUNK = 500  # resamples drawn at a time, to bound memory


def bootstrap_interval(
    values: Any, *, confidence: float = 0.95, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` (Q,), one a query, resampled with replacement.

    It covers the choice of queries, not of training seeds.

    Raises:
        InputError: no values, values that are not finite, or a confidence outside (0, 1).
    """
    scores = as_array(values).astype(np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise InputError(f"bootstrap values have shape {scores.shape}: give finite numbers, one a query")
    if not 0 < confidence < 1 or samples < 1:
        raise InputError(
            f"confidence {confidence} with {samples} samples: give a share below 1 and samples >= 1"
        )
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            scores[generator.integers(0, scores.size, (min(CHUNK, samples - done), scores.size))].mean(axis=1)
            for done in range(0, samples, CHUNK)
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired_bootstrap_interval(
    first: Any, second: Any, *, confidence: float = 0.95, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of mean(first - second), both (Q,) over the same queries in the same order.

    Raises:
        InputError: unequal lengths; otherwise see `bootstrap_interval`.
    """
    a, b = as_array(first).astype(np.float64), as_array(second).astype(np.float64)
    if a.shape != b.shape:
        raise InputError(f"paired values have shapes {a.shape} and {b.shape}: score the same queries in both")
    return bootstrap_interval(a - b, confidence=confidence, samples=samples, seed=seed)
