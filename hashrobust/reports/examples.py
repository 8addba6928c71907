"""The examples that an attack stored: images before and after it, and what they retrieve or are taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashrobust.errors import StoreError
from hashrobust.experiments import store

KINDS = ("clean", "adversarial")


def read_examples(path: Path) -> dict[str, NDArray[Any]]:
    """`clean` and `adversarial` (N, H, W, C) and `labels` (N,) of a file of examples; of each kind either
    `retrieved_<kind>` (N, k, H, W, C) and `relevant_<kind>` (N, k), or `predicted_<kind>` (N,).

    Raises:
        StoreError: the file is missing or damaged, or lacks an array.
    """
    if not path.exists():
        raise StoreError(f"'{path}' does not exist: run `hashrobust attack` first")
    try:
        arrays = store.read_arrays(path)
        _check(arrays)
    except (StoreError, ValueError, KeyError) as error:
        raise StoreError(f"'{path}' holds no attack examples ({error}): make the attack again") from error
    if len(arrays["clean"]) == 0:
        raise StoreError(f"'{path}' holds no example: make the attack again with at least one query")
    return arrays


def _check(arrays: dict[str, NDArray[Any]]) -> None:
    count = len(_images(arrays, "clean", 4))
    if arrays["clean"].shape != _images(arrays, "adversarial", 4).shape:
        raise ValueError("images before and after the attack differ in shape")
    singly = ["labels"]
    for kind in KINDS:
        if f"predicted_{kind}" in arrays:
            singly.append(f"predicted_{kind}")
        elif arrays[f"relevant_{kind}"].shape != _images(arrays, f"retrieved_{kind}", 5).shape[:2]:
            raise ValueError(f"not all that the {kind} images retrieve is marked")
        else:
            singly.append(f"relevant_{kind}")
    for name in singly:
        if arrays[name].shape[:1] != (count,):
            raise ValueError(f"{name} are not {count}, one for each image")


def _images(arrays: dict[str, NDArray[Any]], name: str, dimensions: int) -> NDArray[Any]:
    found = arrays[name]
    if (
        found.dtype != np.uint8
        or found.ndim != dimensions
        or found.shape[-1] not in (1, 3)
        or 0 in found.shape[-3:]
    ):
        raise ValueError(f"{name} are no grey or colour images")
    return found
