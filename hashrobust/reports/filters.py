"""Choosing rows of a results frame: `rule=frsf`, `epsilon<=8/255`, `attack!=noise`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hashrobust.errors import InputError
from hashrobust.registry import did_you_mean

_FILTER = re.compile(r"\s*([^<>=!\s]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")


def filter_frame(frame: pd.DataFrame, filters: Sequence[str]) -> pd.DataFrame:
    """The rows that pass every filter, each written `column=value` with `= != < <= > >=`.

    Numbers may be fractions (`8/255`) and are equal up to rounding. A missing value passes `!=` only.

    Raises:
        InputError: a filter is malformed, names no column, compares words by size, or the filters
            together leave no row.
    """
    for text in filters:
        column, operator, value = _parse(frame, text)
        chosen = frame[_passes(frame[column], operator, value, text)]
        if chosen.empty:
            raise InputError(f"filter '{text}' leaves no row: {_present(frame, column)}")
        frame = chosen
    return frame.reset_index(drop=True)


def check_column(frame: pd.DataFrame, column: str, *, use: str) -> None:
    """Refuse a name that is no column, with the nearest one.

    Raises:
        InputError: the frame has no such column.
    """
    if column not in frame.columns:
        known = [str(c) for c in frame.columns]
        raise InputError(f"{use} '{column}' is no column of the results: {did_you_mean(column, known)}")


def _parse(frame: pd.DataFrame, text: str) -> tuple[str, str, str]:
    """Column, operator and value."""
    match = _FILTER.fullmatch(text)
    if match is None or not match[3]:
        raise InputError(
            f"filter '{text}' is malformed: write column=value, such as rule=frsf or epsilon<=8/255"
        )
    column, operator, value = match.groups()
    check_column(frame, column, use="filter column")
    return column, operator, value


def _passes(cells: pd.Series[Any], operator: str, value: str, text: str) -> pd.Series[bool]:
    if cells.isna().all() or pd.api.types.is_bool_dtype(cells) or not pd.api.types.is_numeric_dtype(cells):
        return _compare_words(cells.astype("string").str.lower(), operator, value.lower(), text)
    return _compare_numbers(cells, operator, _number(value, text))


def _compare_words(cells: pd.Series[str], operator: str, value: str, text: str) -> pd.Series[bool]:
    if operator not in ("=", "==", "!="):
        raise InputError(f"filter '{text}' compares words by size: use = or !=")
    equal = (cells == value).fillna(False).astype(bool)
    return ~equal if operator == "!=" else equal


def _compare_numbers(cells: pd.Series[float], operator: str, value: float) -> pd.Series[bool]:
    numbers = cells.to_numpy(dtype=float)
    equal = np.isclose(numbers, value, rtol=1e-6, atol=1e-9)
    outcome = {
        "=": equal,
        "==": equal,
        "!=": ~equal,
        "<": (numbers < value) & ~equal,
        "<=": (numbers <= value) | equal,
        ">": (numbers > value) & ~equal,
        ">=": (numbers >= value) | equal,
    }[operator]
    return pd.Series(outcome, index=cells.index)


def _number(value: str, text: str) -> float:
    numerator, slash, denominator = value.partition("/")
    try:
        return float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"filter '{text}' compares a column of numbers with '{value}': give a number such as 8/255"
        ) from None


def _present(frame: pd.DataFrame, column: str) -> str:
    values = frame[column].dropna().unique()
    shown = ", ".join(str(v) for v in sorted(values)[:8]) or "nothing"
    return f"'{column}' holds {shown}{', ...' if len(values) > 8 else ''} in the rows that were left"
