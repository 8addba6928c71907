"""What the worker does with one input. A job ends with a plain value or raises; imports are heavy and come first."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import json
import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import typer.main

import hashrobust.experiments
import hashrobust.reports
from hashrobust.attacks import build_attack
from hashrobust.cli import _console, main
from hashrobust.cli._options import parse_params, parse_seeds, parse_step_size
from hashrobust.datasets import _cache, _download, flickr25k, load_dataset, mscoco, nuswide
from hashrobust.datasets._archives import unpack
from hashrobust.datasets._cifar_files import read_binary, read_pickle
from hashrobust.datasets._download import Remote, download_missing
from hashrobust.datasets._idx import read_idx
from hashrobust.experiments.config import parse_epsilon
from hashrobust.experiments.documents import understood
from hashrobust.experiments.files import read_arrays, read_table
from hashrobust.experiments.store import list_runs
from hashrobust.experiments.study import plan_study
from hashrobust.models import HashModel, load_model
from hashrobust.objectives import build_objective
from hashrobust.options import parse_stages
from hashrobust.reports.audit_screen import screen
from hashrobust.reports.audits import audits_frame, audits_table
from hashrobust.reports.findings import findings
from hashrobust.reports.formats import to_latex, to_markdown
from hashrobust.reports.frame import results_frame
from hashrobust.reports.page import write_page
from hashrobust.reports.tables import paper_table
from hashrobust.reports.worst_case import worst_case_tables, worst_cases
from hashrobust.reports.write import shown_rows, summary_tables, write_report
from hashrobust.retrieval import HammingIndex
from hashrobust.rules import convert
from hashrobust.training.defences import build_defence

# Before the bound on memory is set: commands import what they need when they need it.
for package in (hashrobust.experiments, hashrobust.reports):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

# What would cost an input more than the input does: the parser made once more, and a disk waited for.
typer.main.get_command = functools.cache(typer.main.get_command)
os.fsync = lambda descriptor: None  # type: ignore[assignment]

SMALL: Any = {"train": 3, "query": 2, "validation": 2, "top_k": 4}
GRAMMARS: dict[str, Callable[[str], Any]] = {
    "epsilon": parse_epsilon,
    "step size": parse_step_size,
    "seeds": parse_seeds,
    "rule": lambda text: parse_stages(text, 5),
    "dataset": load_dataset,
    "layers": lambda text: convert(HashModel("lenet", 4), "usf", layers=text),
}
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
def surrounded(folder: str, variables: str, width: str, *words: str) -> dict[str, Any]:
    """A command line in a folder, an environment and a terminal of so many columns; null unsets a variable."""
    changed: dict[str, str | None] = json.loads(variables)
    kept = {name: value for name, value in os.environ.items() if name not in changed}
    kept |= {name: value for name, value in changed.items() if value is not None}
    columns = int(width) or None
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, kept, clear=True),
        mock.patch.object(_console.stdout, "_width", columns),
        mock.patch.object(_console.stderr, "_width", columns),
    ):
        return command(*words)


@job
def downloaded(port: str, folder: str) -> int:
    """Fetch a file from a server on this machine."""
    remote = Remote(
        (f"http://127.0.0.1:{port}/set.bin",), hashlib.md5(b"content").hexdigest(), 100, ("set.bin",)
    )
    with mock.patch.multiple(_download, ATTEMPTS=2, TIMEOUT=5.0):
        download_missing("set", [remote], Path(folder))
    assert (Path(folder) / "set.bin").read_bytes() == b"content"
    return 1


@job
def remembered(folder: str, cache: str) -> int:
    """Load a folder of images, all of which are remembered in a cache."""
    with mock.patch.object(_cache, "WORTH_IT", 1), mock.patch.dict(os.environ, {"HASHROBUST_CACHE": cache}):
        return data(f"folder:{folder}")


@job
def stored(path: str) -> int:
    """Read a table or arrays of a run."""
    file = Path(path)
    if file.suffix == ".npz":
        return len(read_arrays(file))
    with understood(file):
        return len(read_table(file))


@job
def report(results: str, output: str) -> int:
    """All that a report writes without figures, and the page."""
    written = write_report(
        Path(results), Path(output), formats=("csv", "parquet", "md", "tex"), published=True
    )
    return len([*written, write_page(Path(results), Path(output) / "page.html", published=True)])


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
    for audit in (audit for run in list_runs(Path(results)) for audit in run.audits()):
        screen(audit)
    return sum(len(to_markdown(table)) + len(to_latex(table)) for table in found) + len(findings(frame))


@job
def study(path: str) -> int:
    """Read and plan a study."""
    return len(plan_study(Path(path), Path(path).parent / "results").cells)


@job
def built(kind: str, name: str, *texts: str) -> str:
    """Build a component from parameters as the command line takes them."""
    params = parse_params(list(texts))
    if kind == "objective":
        params = {name: params[name] for name in params.keys() - {"bits", "num_classes", "similar_share"}}
        return type(build_objective(name, bits=8, num_classes=3, similar_share=0.5, **params)).__name__
    if kind == "defence":
        return type(build_defence(name, params, seed=0)).__name__
    return type(build_attack(name, **params)).__name__


@job
def read_words(what: str, text: str) -> str:
    """Values of options that have a grammar of their own."""
    return repr(GRAMMARS[what](text))


@job
def data(name: str, folder: str = "") -> int:
    """Load a data set and all of its images."""
    with (
        mock.patch.multiple(nuswide, ALL_IMAGES=12, IMAGES=11, NUSWIDE=replace(nuswide.NUSWIDE, **SMALL)),
        mock.patch.multiple(mscoco, IMAGES=12, MSCOCO=replace(mscoco.MSCOCO, **SMALL)),
        mock.patch.multiple(flickr25k, IMAGES=12, FLICKR25K=replace(flickr25k.FLICKR25K, **SMALL)),
    ):
        found = load_dataset(name, data_dir=folder or None, image_size=8)
    splits = (found.train, found.query, found.validation, found.database)
    return sum(len(images) for split in splits for images, _ in split.batches(16))


@job
def cifar_file(path: str) -> int:
    """Read a file of CIFAR, a pickle or records."""
    file = Path(path)
    images, labels = read_binary(file, 1, 10) if file.suffix == ".bin" else read_pickle(file, b"labels", 10)
    assert len(images) == len(labels) and images.shape[1:] == (3, 32, 32)
    return len(images)


@job
def idx(path: str, ndim: str) -> int:
    """Read an idx file."""
    return read_idx(Path(path), int(ndim)).size


@job
def unpacked(path: str, folder: str) -> int:
    """Unpack an archive; the number of its bytes."""
    unpack(Path(path), Path(folder), most_bytes=2**20)
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


@job
def model(path: str) -> int:
    """Load a model and use it."""
    loaded = load_model(path)
    channels, height, width = loaded.input_shape
    return len(loaded.outputs(torch.zeros(2, channels, height, width)))
