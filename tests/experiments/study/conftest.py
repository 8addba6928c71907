"""A study that takes seconds, to be written to a file as it is or changed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hashrobust.attacks import attacks
from hashrobust.experiments.study import local, plan_study, run_study
from hashrobust.objectives import objectives
from hashrobust.registry import load_plugin

STUDY = """\
name = "tiny"
results = "results"
datasets = ["digits"]
backbones = ["lenet"]
objectives = ["csq"]
bits = [12]
rules = ["bp", "frsf"]
attacks = [{ attack = "center", steps = 6 }, "noise"]
epsilons = ["16/255"]
queries = 12
image_size = 16

[attack]
batch_size = 8

[pretrain]
epochs = 2
batch_size = 50

[finetune.hashing]
epochs = 3
batch_size = 50
learning_rate = 2e-3
"""

BROKEN = '''
import os, signal, sys
from dataclasses import dataclass
from hashrobust.attacks import Attack, attacks
from hashrobust.objectives import Objective, objectives

@attacks.register("stumbling")
@dataclass(frozen=True, kw_only=True)
class Stumbling(Attack):
    """Stumbles over its own feet."""
    def perturb(self, model, clean, labels, context):
        raise RuntimeError("a foot in the way")

@objectives.register("failing")
class Failing(Objective):
    """Fails at the first step."""
    def loss(self, z, labels, step):
        raise RuntimeError("no loss today")

@objectives.register("leaving")
class Leaving(Objective):
    """Ends Python as if all were done."""
    def loss(self, z, labels, step):
        sys.exit(0)

@objectives.register("deadly")
class Deadly(Objective):
    """Takes its process along."""
    def loss(self, z, labels, step):
        os.kill(os.getpid(), signal.SIGKILL)
'''


@pytest.fixture(autouse=True)
def _without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PATH there is no git, whose answer may change while tests run."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Writes the study, each old text replaced by a new one."""

    def write(*changes: tuple[str, str], name: str = "tiny.toml", text: str = STUDY) -> Path:
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the study, run once and left alone. Not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.toml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        result = run_study(plan_study(folder / "tiny.toml", folder / "results"))
    assert result.failures == []
    return folder / "results"


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """Components that go wrong, loaded."""
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    load_plugin(path)
    yield path
    attacks._builders.pop("stumbling")
    for name in ("failing", "leaving", "deadly"):
        objectives._builders.pop(name)


@pytest.fixture
def quick_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of `jobs` are forked from one that has imported what they need; alone, each takes seconds to."""
    context = multiprocessing.get_context("forkserver")
    modules = (
        "hashrobust.experiments.study.local",
        "hashrobust.datasets.digits",
        "hashrobust.datasets.flickr25k",
    )
    context.set_forkserver_preload([*modules, "hashrobust.backbones.lenet", "hashrobust.attacks.center"])
    monkeypatch.setattr(local.multiprocessing, "get_context", lambda _: context)
