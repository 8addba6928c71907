"""Codes that were not made here, as files of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashrobust.errors import InputError
from hashrobust.metrics import mean_average_precision, retrieval_metrics

Files = tuple[Path, Path]
"""Of the queries, and of the database."""


def evaluate_codes(
    codes: Files, labels: Files, features: Files | None = None, *, k: int | None = None
) -> dict[str, float]:
    """The retrieval metrics (fractions) of codes (N, K) in {-1, +1} with labels (N, C) or (N,), as .npy files.

    With the real outputs `features` (N, K) behind the codes also `map_style_h2q`. `k` is the list length of mAP@k,
    None the whole database.

    Raises:
        InputError: see `read_array`; or the arrays do not fit each other.
    """
    arrays = [read_array(path) for path in (*codes, *labels)]
    metrics = retrieval_metrics(*arrays, k=k)
    if features is None:
        return metrics
    query, database = (read_array(path) for path in features)
    own = mean_average_precision(*arrays, k=k, style="h2q", query_features=query, database_features=database)
    return {**metrics, "map_style_h2q": own}


def read_array(path: Path) -> NDArray[Any]:
    """A numeric array from a .npy file; files that would need unpickling are refused.

    Raises:
        InputError: the file is missing, no .npy file, or holds objects.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"array file '{path}' does not exist: check the path") from None
    except Exception as error:  # readers of damaged files raise whatever they come upon
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"'{path}' is no .npy file of numbers ({said}): save it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"'{path}' holds several arrays: give a .npy file with one")
    return array
