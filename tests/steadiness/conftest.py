"""One small results folder with every kind of file in it."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from hashrobust.cli import main

STUDY = """\
name = "tiny"
results = "results"
datasets = ["digits"]
backbones = ["lenet"]
objectives = ["csq"]
bits = [12]
rules = ["frsf"]
attacks = [{ attack = "center", steps = 6 }]
epsilons = ["16/255"]
queries = 12
image_size = 16

[attack]
batch_size = 8

[pretrain]
epochs = 1
batch_size = 50

[finetune.hashing]
epochs = 2
batch_size = 50
learning_rate = 2e-3
"""
ATTACKED = ("--steps", 3, "--queries", 8, "--epsilon", "16/255", "--threads", 1)


def run_command(*arguments: object) -> tuple[int, str, str]:
    """Exit code, output and words of a command."""
    out, err = io.StringIO(), io.StringIO()
    words = ["hashrobust", *(str(argument) for argument in arguments)]
    with (
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main()
    return int(stop.value.code or 0), out.getvalue(), err.getvalue()


@pytest.fixture(scope="session")
def command() -> Callable[..., tuple[int, str, str]]:
    return run_command


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pre-training, training, index, attacks, an audit, a study, a report and a page. Not to be changed."""
    folder = tmp_path_factory.mktemp("everything")
    results = folder / "results"
    (folder / "tiny.toml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # no git, whose answer may change while tests run
        for words in (
            ["study", folder / "tiny.toml", "--results", results],
            ["index", "digits-lenet-csq", "--results", results],
            ["attack", "digits-lenet-csq", "--attack", "uap", *ATTACKED, "--results", results],
            [
                *(
                    "audit",
                    "digits-lenet-csq",
                    "--budget",
                    "quick",
                    "--queries",
                    4,
                    "--steps",
                    2,
                    "--restarts",
                    1,
                ),
                *("--search", 5, "--results", results, "--threads", 1),
            ],
            ["report", results, "--html", results / "page.html", "--output", results / "report"],
            [
                "search",
                "digits-lenet-csq",
                "--query",
                0,
                "--output",
                results / "found.png",
                "--results",
                results,
            ],
            ["export", "digits-lenet-csq", "--to", results / "export", "--results", results],
        ):
            code, _, said = run_command(*words)
            assert code == 0, (words, said)
    return results
