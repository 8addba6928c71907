"""One small results folder with every kind of file in it; and commands with what they leave undisturbed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hashrobust.cli import main
from hashrobust.experiments.files import file_digest

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


TRAINING = ("--image-size", 16, "--bits", 12, "--objective", "csq", "--batch-size", 50, "--patience", 0)
TRAINING += ("--learning-rate", "2e-3", "--augment", "crop", "--threads", 1)
RESULTS = "RESULTS"
"""Stands for the results folder in a command that takes it in other ways than the others."""
DROPPING = '''
from torch import nn
from hashrobust.backbones import backbones


@backbones.register("dropping")
class Dropping(nn.Sequential):
    """A layer and dropout."""

    def __init__(self, channels, image_size):
        pixels = channels * image_size**2
        super().__init__(nn.Flatten(), nn.Linear(pixels, 64), nn.ReLU(), nn.Dropout(0.5))
        self.feature_dim = 64
'''


@dataclass(frozen=True)
class Task:
    """A command as the tests give it: where it begins, its words, and what it leaves if nobody disturbs it."""

    words: tuple[object, ...]
    before: Path | None
    after: Path
    seconds: float = 0.0
    """How long that took."""
    changes: int = 0
    """Changes of files below the results folder: opened to write, renamed, removed, folders made."""

    def begin(self, place: Path) -> Path:
        """A results folder with what the command needs."""
        results = place / "results"
        if self.before is not None:
            shutil.copytree(self.before, results)
        return results

    def said_for(self, results: Path) -> tuple[object, ...]:
        """The command on a results folder."""
        if self.words[0] == "report":
            return tuple(str(word).replace(RESULTS, str(results)) for word in self.words)
        return (*self.words, "--results", results)


@pytest.fixture(scope="session")
def tasks(zygote: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Task]:
    """The commands by name, each run undisturbed the first time that it is asked for."""
    place = tmp_path_factory.mktemp("undisturbed")
    (place / "dropping.py").write_text(DROPPING)
    (place / "tiny.toml").write_text(STUDY)
    trained = place / "trained"
    run = "digits-lenet-csq-12-brsf"
    attack = ("attack", run, "--attack", "uap", "--gradient", "rule", "--epsilon", 0.1, "--steps", 6)
    audit = ("audit", run, "--budget", "quick", "--queries", 4, "--steps", 2, "--restarts", 1, "--search", 5)
    few = ("--batch-size", 2, "--threads", 1, "--quiet")
    dropping = ("--plugin", place / "dropping.py", "--backbone", "dropping")
    words: dict[str, tuple[object, ...]] = {
        "finetune": ("finetune", *dropping, *TRAINING, "--rule", "brsf", "--epochs", 6, "--quiet"),
        "index": ("index", run, "--kind", "ivf", "--quiet"),
        "evaluate": ("evaluate", run, "--quiet"),
        "attack": (*attack, "--queries", 6, *few, "--no-picture"),
        "attack with a picture": (*attack, "--queries", 6, *few),
        "audit": (*audit, *few),
        "audit beside its twin": (*audit, *few, "--control", "digits-lenet-csq-12-bp"),
        "study": ("study", place / "tiny.toml", "--quiet"),
        "report": ("report", RESULTS, "--quiet"),
        "page": ("report", RESULTS, "--html", f"{RESULTS}/page.html", "--quiet"),
    }

    @cache
    def base() -> Path:
        for rule, epochs in (("brsf", 2), ("bp", 3)):  # the twin is the better one, and taken at an epoch
            zygote.finish("finetune", *TRAINING, "--rule", rule, "--epochs", epochs, "--results", trained)
        return trained

    @cache
    def task(name: str) -> Task:
        before = None if name in ("finetune", "study") else base()
        if words[name][0] == "report":
            before = task("study").after
        folder = place / name.replace(" ", "-")
        found = Task(words[name], before, folder / "results")
        results = found.begin(folder)
        started = time.monotonic()
        changes = zygote.changes(results, *found.said_for(results))
        return replace(found, seconds=time.monotonic() - started, changes=changes)

    return task


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, str]]:
    """Digests of all files below a folder that must not differ between equal runs."""

    def digest(path: Path, root: Path) -> str:
        if path.suffix != ".html":
            return file_digest(path)
        # A page names the folder that it was made of, so that the list that it stands on differs too.
        return hashlib.sha256(path.read_bytes().replace(str(root).encode(), b"")).hexdigest()

    def read(root: Path) -> dict[str, str]:
        return {
            str(path.relative_to(root)): digest(path, root)
            for path in sorted(root.rglob("*"))
            if path.is_file()
            and path.name not in ("timing.json", ".lock")
            and path != root / "checksums.json"
        }

    return read
