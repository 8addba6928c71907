"""Checks what the public functions are given and packs it for the compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashrobust._arrays import as_array, as_codes, as_whole
from hashrobust.errors import InputError
from hashrobust.metrics._kernel import Pairs

Labels = NDArray[Any]


def pack_pairs(query_codes: Any, database_codes: Any, query_labels: Any, database_labels: Any) -> Pairs:
    """Codes (Q, K), (N, K) and labels as words.

    Raises:
        InputError: anything but codes in {-1, +1} of equal width with as many labels, the labels of both
            sides integer classes or both multi-hot over the same classes.
    """
    queries, database = as_codes(query_codes, "query codes"), as_codes(database_codes, "database codes")
    if queries.shape[1] != database.shape[1]:
        raise InputError(
            f"query codes have {queries.shape[1]} bits and database codes {database.shape[1]}: "
            "encode both with the same model"
        )
    pairs = pack_labels(query_labels, database_labels)
    for name, codes, labels in (
        ("query", queries, pairs.query_labels),
        ("database", database, pairs.database_labels.T),
    ):
        if len(codes) != len(labels):
            raise InputError(f"{len(codes)} {name} codes have {len(labels)} labels: give one label a code")
    return pairs._replace(
        query_codes=_words(queries > 0),
        database_codes=np.ascontiguousarray(_words(database > 0).T),
        bits=queries.shape[1],
    )


def pack_labels(query_labels: Any, database_labels: Any) -> Pairs:
    """Pairs with labels and codes of no bits, so that all distances are 0 (for chance).

    Raises:
        InputError: see `pack_pairs`.
    """
    queries, database = _label_array(query_labels, "query"), _label_array(database_labels, "database")
    if queries.shape[1:] != database.shape[1:]:
        raise InputError(
            f"query labels {queries.shape} and database labels {database.shape} do not go together: "
            "give both as integer classes, or both multi-hot over the same classes"
        )
    classes = queries.ndim == 1
    if queries.ndim == 2 and _one_hot(queries) and _one_hot(database):
        classes, queries, database = True, queries.argmax(axis=1), database.argmax(axis=1)
    if classes:
        words = [labels.astype(np.uint64)[:, None] for labels in (queries, database)]
    else:
        words = [_words(labels != 0) for labels in (queries, database)]
    return Pairs(
        query_codes=np.empty((len(queries), 0), np.uint64),
        query_labels=words[0],
        database_codes=np.empty((0, len(database)), np.uint64),
        database_labels=np.ascontiguousarray(words[1].T),
        classes=classes,
        bits=0,
    )


def _label_array(labels: Any, name: str) -> Labels:
    array = as_array(labels)
    if array.ndim in (1, 2) and len(array) == 0:
        raise InputError(f"there are no {name} labels: give at least one image and its label")
    if array.ndim not in (1, 2) or array.size == 0:
        raise InputError(
            f"{name} labels have shape {array.shape}: "
            "give integer classes (images,) or multi-hot (images, classes)"
        )
    if array.ndim == 1 and (array.dtype.kind not in "iu" or array.min() < 0):
        raise InputError(f"{name} labels are not class numbers: give integers from 0 on")
    if array.ndim == 2 and not ((array == 0) | (array == 1)).all():
        raise InputError(f"{name} labels hold values other than 0 and 1: give multi-hot labels")
    return array


def _one_hot(labels: Labels) -> bool:
    """Whether each row of a multi-hot array has exactly one label."""
    return np.count_nonzero(labels) == len(labels) and bool(labels.any(axis=1).all())


def _words(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Rows of bits, filled up with zeros, as rows of 64-bit words."""
    whole = np.zeros((len(bits), 64 * -(-bits.shape[1] // 64)), np.bool_)
    whole[:, : bits.shape[1]] = bits
    # Packed as one row, which takes a fraction of the time of many short ones.
    return np.packbits(whole.ravel()).view(np.uint64).reshape(len(bits), -1)


def check_choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{name} '{value}' is unknown: choose from {', '.join(choices)}")


def check_top(k: int | None, database: int) -> int:
    """The number of positions that count: k, at most the whole database.

    Raises:
        InputError: k is not a whole number from 1 on.
    """
    return database if k is None else min(as_whole("k", k), database)
