"""The command line run inside the test's process, and one tiny run that the tests share."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from hashrobust.cli import main

TINY = ["--epochs", "1", "--threads", "1"]


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def run_command(*arguments: object) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    words = ["hashrobust", *(str(argument) for argument in arguments)]
    with (
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main()
    assert isinstance(stop.value.code, int)
    return Outcome(stop.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli() -> Callable[..., Outcome]:
    return run_command


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a pre-trained and a fine-tuned run, indexed, evaluated and attacked; read only."""
    results = tmp_path_factory.mktemp("results")
    where = ["--results", results]
    commands = [
        ["pretrain", *TINY, *where],
        ["finetune", "--weights", "run:digits-lenet-pretrained", "--rule", "frsf", *TINY, *where],
        ["index", "digits-lenet-dpsh", *where],
        ["evaluate", "digits-lenet-dpsh", *where],
        [
            *("attack", "digits-lenet-dpsh", "--attack", "hag", "--gradient", "exact,rule"),
            *("--steps", 3, "--queries", 8, "--no-picture", *where),
        ],
    ]
    for command in commands:
        outcome = run_command(*command)
        assert outcome.code == 0, outcome.err
    return results


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished results that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "results"))


@pytest.fixture
def run_folder(results: Path) -> Path:
    (found,) = results.glob("digits-lenet-dpsh-*")
    return found
