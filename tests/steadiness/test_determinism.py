"""The same seed gives the same files; what batch shapes and threads change stays within what is promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hashrobust.experiments import attack_runs
from hashrobust.experiments.attack_runs import attack_run
from hashrobust.experiments.config import AttackConfig
from hashrobust.experiments.environment import threads
from hashrobust.experiments.files import read_arrays
from hashrobust.experiments.store import Folder
from hashrobust.experiments.trained_runs import load_retrieval_data, load_run

SAME_BITS, MAP_APART = 0.999, 0.002
"""What is promised at other batch shapes and numbers of threads."""
ATTACKS = {"center": {"steps": 8}, "hag": {"steps": 8}, "ap": {"steps": 8}, "square": {"budget": 20}}
"""By labels, by the query's own code, by the ranking, and by search."""


@pytest.fixture(scope="module")
def run(tasks: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Folder:
    results = tasks("index").begin(tmp_path_factory.mktemp("run"))
    return Folder.open(next(results.glob("*-brsf-*")))


@pytest.fixture
def attacked(run: Folder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Codes of the attacked images, and the mAP, of an attack by name, batch size and threads."""
    monkeypatch.setattr(attack_runs, "discard_parts", lambda folder: None)

    def attack(name: str, size: int, number: int) -> tuple[Any, float]:
        config = AttackConfig(
            attack=name, epsilon=0.1, params=ATTACKS[name], queries=60, batch_size=size, threads=number
        )
        folder = attack_run(run, config)
        parts = [read_arrays(path)["attacked"] for path in sorted(folder.path.glob("parts/*.npz"))]
        return np.concatenate(parts), float(folder.read_json("metrics.json", made_by="attack")["map"])

    return attack


@pytest.mark.parametrize("name", ATTACKS)
def test_batch_shapes_and_threads_change_an_attack_by_no_more_than_rounding(
    attacked: Callable[..., Any], name: str, record_property: Any
) -> None:
    codes, score = attacked(name, 60, 1)
    for size, number in ((7, 1), (60, 2)):
        others, other = attacked(name, size, number)
        record_property(f"{size}, {number}", f"{(codes == others).mean()} {abs(score - other)}")
        assert codes.shape == others.shape
        assert (codes == others).mean() >= SAME_BITS
        assert abs(score - other) <= MAP_APART


def test_batch_shapes_and_threads_change_codes_by_no_more_than_rounding(run: Folder) -> None:
    data, model = load_retrieval_data(run), load_run(run)
    codes = {}
    for size, number in ((500, 1), (7, 1), (500, 2)):
        with threads(number):
            batches = [model.encode(images) for images, _ in data.database.batches(size)]
        codes[size, number] = torch.cat(batches)
    for other in codes.values():
        assert (codes[500, 1] == other).double().mean() >= SAME_BITS


def test_a_study_twice_leaves_the_same_files(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Path
) -> None:
    """With --jobs 2 too: tests/experiments/study/test_runs.py."""
    task = tasks("study")
    zygote.finish(*task.said_for(tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(task.after)
