"""What the worker does with one input. A job ends with a plain value or raises; imports are heavy and come first."""

from __future__ import annotations

import contextlib
import importlib
import io
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import hashrobust.experiments
import hashrobust.reports
from hashrobust.cli import main
from hashrobust.reports.audits import audits_frame, audits_table
from hashrobust.reports.findings import findings
from hashrobust.reports.formats import to_latex, to_markdown
from hashrobust.reports.frame import results_frame
from hashrobust.reports.tables import paper_table
from hashrobust.reports.worst_case import worst_case_tables, worst_cases
from hashrobust.reports.write import shown_rows, summary_tables
from hashrobust.retrieval import HammingIndex

# Before the bound on memory is set: commands import what they need when they need it.
for package in (hashrobust.experiments, hashrobust.reports):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

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


@job
def tables(results: str) -> int:
    """Every table of a report, as Markdown and as LaTeX."""
    whole = results_frame(Path(results))
    frame, _ = shown_rows(whole)
    found = [
        *summary_tables(frame),
        *paper_table(frame),
        *worst_case_tables(worst_cases(whole, Path(results))),
    ]
    audits = audits_frame(Path(results))
    found += [] if audits.empty else [audits_table(audits)]
    return sum(len(to_markdown(table)) + len(to_latex(table)) for table in found) + len(findings(frame))
