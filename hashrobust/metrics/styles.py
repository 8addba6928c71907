"""Mean average precision as others compute it, each way under a name, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashrobust._arrays import as_array
from hashrobust.errors import InputError
from hashrobust.metrics._inputs import check_choice, check_top, pack_labels
from hashrobust.metrics.ranking import Ranking

STYLES = {
    "default": "divided by relevant items retrieved; ties in expectation",
    "deephash": "divided by relevant items retrieved; ties by database position (DeepHash, HashNet scripts)",
    "dhta": "as deephash, over the queries that retrieve a relevant item only (HashNet, DHTA)",
    "textbook": "divided by min(k, relevant items in the database); ties in expectation",
    "h2q": "divided by relevant items retrieved; ties by distance of unit-norm real features (H2Q)",
}
FEATURE_STYLE = "h2q"
QUERY_CHUNK = 16


def mean_average_precision(
    query_codes: Any,
    database_codes: Any,
    query_labels: Any,
    database_labels: Any,
    *,
    k: int | None = None,
    style: str = "default",
    query_features: Any = None,
    database_features: Any = None,
) -> float:
    """Mean over queries of average precision at k, in one of the `STYLES`.

    The style "h2q" needs `query_features` (Q, D) and `database_features` (N, D), the real outputs.

    Raises:
        InputError: an unknown style, features missing, or inputs that do not fit together.
    """
    check_choice(style, tuple(STYLES), "style")
    ranking = Ranking(query_codes, database_codes, query_labels, database_labels)
    if style != FEATURE_STYLE:
        return style_score(ranking, style, k)
    if query_features is None or database_features is None:
        raise InputError(
            "style 'h2q' breaks ties by real features: give query_features and database_features"
        )
    codes = (as_array(query_codes), as_array(database_codes))
    return _feature_style(codes, (query_labels, database_labels), (query_features, database_features), k)


def map_in_styles(
    query_codes: Any,
    database_codes: Any,
    query_labels: Any,
    database_labels: Any,
    *,
    k: int | None = None,
    query_features: Any = None,
    database_features: Any = None,
) -> dict[str, float]:
    """The mean average precision at k in every style; "h2q" only if features are given.

    Raises:
        InputError: inputs that do not fit together.
    """
    ranking = Ranking(query_codes, database_codes, query_labels, database_labels)
    scores = {style: style_score(ranking, style, k) for style in STYLES if style != FEATURE_STYLE}
    if query_features is not None and database_features is not None:
        codes = (as_array(query_codes), as_array(database_codes))
        labels, features = (query_labels, database_labels), (query_features, database_features)
        scores[FEATURE_STYLE] = _feature_style(codes, labels, features, k)
    return scores


def style_score(ranking: Ranking, style: str, k: int | None) -> float:
    """One style's mean average precision of a ranking; any style that needs no features."""
    if style == "textbook":
        return float(ranking.average_precision(k=k, normalizer="all").mean())
    ties = "expected" if style == "default" else "position"
    scores = ranking.average_precision(k=k, normalizer="retrieved", ties=ties)
    if style == "dhta" and scores.any():
        scores = scores[scores > 0]  # a query that retrieves a relevant item scores above 0
    return float(scores.mean())


def _feature_style(
    codes: tuple[NDArray[Any], NDArray[Any]],
    labels: tuple[Any, Any],
    features: tuple[Any, Any],
    k: int | None,
) -> float:
    """Ranking by Hamming distance, then by squared distance of unit-norm features, then by position."""
    queries, database = (_unit_norm(side, len(c)) for side, c in zip(features, codes, strict=True))
    if queries.shape[1] != database.shape[1]:
        raise InputError(
            f"features have {queries.shape[1]} and {database.shape[1]} columns: give equal widths"
        )
    pairs = pack_labels(*labels)
    top = check_top(k, len(database))
    bits = codes[0].shape[1]
    query_codes, database_codes = (side.astype(np.float32) for side in codes)
    scores = []
    for start in range(0, len(queries), QUERY_CHUNK):
        part = slice(start, start + QUERY_CHUNK)
        hamming = (bits - query_codes[part] @ database_codes.T) / 2
        similarity = queries[part] @ database.T
        order = np.lexsort((-similarity, hamming), axis=1)[:, :top]
        words = pairs.query_labels[part, :, None]
        common = words == pairs.database_labels if pairs.classes else (words & pairs.database_labels) != 0
        relevant = np.take_along_axis(common.any(axis=1), order, axis=1)
        found = relevant.cumsum(axis=1)
        sums = (relevant * found / np.arange(1, top + 1)).sum(axis=1)
        scores.append(sums / np.maximum(found[:, -1], 1))
    return float(np.concatenate(scores).mean())


def _unit_norm(features: Any, expected: int) -> NDArray[np.float64]:
    array = as_array(features)
    if array.ndim != 2 or len(array) != expected:
        raise InputError(f"features have shape {array.shape}: give one row for each of the {expected} codes")
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise InputError("features hold values that are no finite numbers: give the outputs of the model")
    rows = array.astype(np.float64)
    norms: NDArray[np.float64] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1.0, norms)
