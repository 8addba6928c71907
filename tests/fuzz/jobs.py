"""What the worker does with one input. A job ends with a plain value or raises; imports are heavy and come first."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

from hashrobust.cli import main
from hashrobust.retrieval import HammingIndex

JOBS: dict[str, Callable[..., Any]] = {}


def job(function: Callable[..., Any]) -> Callable[..., Any]:
    JOBS[function.__name__] = function
    return function


@job
def command(*words: str) -> dict[str, Any]:
    """A command line: its exit code and what it wrote."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["hashrobust", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            return {"code": stop.code, "out": out.getvalue(), "err": err.getvalue()}
    raise AssertionError("a command ends by SystemExit")


@job
def index(path: str) -> int:
    """Load an index and use all of it."""
    loaded = HammingIndex.load(path)
    queries = np.where(np.random.default_rng(0).random((4, loaded.bits)) < 0.5, -1, 1)
    distances, positions = loaded.search(queries, 10)
    assert distances.shape == positions.shape and positions.max() < len(loaded)
    assert loaded.codes.shape == (len(loaded), loaded.bits)
    loaded.add(queries)
    loaded.search(queries, 10)
    return len(loaded)
