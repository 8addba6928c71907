"""A small finished run on the digits, and copies of it to change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hashrobust.experiments.attack_runs import attack_run
from hashrobust.experiments.config import AttackConfig, FinetuneConfig
from hashrobust.experiments.retrieval_runs import evaluate_run, index_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.training_runs import finetune_run

SETTINGS: dict[str, Any] = {
    **{"image_size": 16, "bits": 12, "objective": "csq", "epochs": 3, "batch_size": 50},
    **{"learning_rate": 2e-3, "head_learning_rate_factor": 1.0, "threads": 1},
}
ATTACK = AttackConfig(attack="center", epsilon=0.2, params={"steps": 6}, queries=30, batch_size=12, threads=1)


@dataclass(frozen=True)
class Small:
    """Configurations that take a second."""

    finetune: Callable[..., FinetuneConfig]
    attack: AttackConfig


@pytest.fixture(scope="session")
def small() -> Small:
    return Small(lambda **own: FinetuneConfig(**(SETTINGS | own)), ATTACK)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A frsf run: fine-tuned, indexed, evaluated and attacked. Not to be changed."""
    results = tmp_path_factory.mktemp("results")
    run = finetune_run(FinetuneConfig(**SETTINGS, rule="frsf"), results)
    index_run(run)
    evaluate_run(run)
    attack_run(run, ATTACK)
    return run


@pytest.fixture
def run(made: Folder, tmp_path: Path) -> Folder:
    """A copy of `made` that a test may change."""
    return Folder.open(Path(shutil.copytree(made.path, tmp_path / "results" / made.name)))


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """All files below a folder that must not differ between equal runs."""

    def read(root: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.name not in ("timing.json", ".lock")
        }

    return read
