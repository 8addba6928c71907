from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from hashrobust.experiments.files import locked
from hashrobust.experiments.matching import at_epoch, match_epochs
from hashrobust.experiments.retrieval_runs import encode_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.training_runs import finetune_run
from hashrobust.metrics import leave_one_out_average_precision
from hashrobust.progress import Silent


@pytest.fixture(scope="module")
def two(small: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Folder]:
    """A run of four epochs, and one that stopped early."""
    place = tmp_path_factory.mktemp("two")
    settings = {"patience": None, "learning_rate": 5e-4}
    return (
        finetune_run(small.finetune(epochs=4, **settings), place),
        finetune_run(small.finetune(epochs=2, seed=1, **settings), place),
    )


def history(run: Folder) -> Any:
    return run.read_table("history.csv", made_by="finetune").set_index("epoch")["validation_map"]


def test_an_epoch_of_a_run_is_a_run_with_the_model_of_then(two: tuple[Folder, Folder]) -> None:
    longer, _ = two
    early = at_epoch(longer, 1)
    assert early.path.name == f"{longer.name}@epoch-001" and early.damaged() == []
    codes = encode_run(early)["validation"]
    score = leave_one_out_average_precision(codes.codes, codes.labels).mean()
    assert score == pytest.approx(history(longer)[1], abs=1e-9)
    assert at_epoch(longer, 1).path == early.path


def test_an_epoch_is_taken_anew_once_the_run_was_made_anew(small: Any, tmp_path: Path) -> None:
    run = finetune_run(small.finetune(epochs=1), tmp_path)
    first = at_epoch(run, 1)
    first.write_json("metrics.json", {"map": 1.0})
    with run.writing("checkpoints/epoch-001.safetensors") as temporary:  # as another version would train
        temporary.write_bytes((run.path / "checkpoints/epoch-001.safetensors").read_bytes() + b" ")
    again = at_epoch(run, 1)
    assert again.path == first.path and not again.has("metrics.json") and again.damaged() == []
    assert again.checksums["model.safetensors"] == run.checksums["checkpoints/epoch-001.safetensors"]


def test_a_run_that_ended_by_steps_counts_as_what_it_was_then(small: Any, tmp_path: Path) -> None:
    """No epoch of it was chosen: it holds the weights of the last one."""
    settings = {"patience": None, "learning_rate": 5e-4}
    runs = [finetune_run(small.finetune(epochs=2, seed=seed, **settings), tmp_path) for seed in (0, 1)]
    ended = finetune_run(small.finetune(epochs=2, max_steps=40, **settings), tmp_path)
    for run, scores in zip((*runs, ended), ((0.5, 0.6), (0.4, 0.5), (0.6, 0.5)), strict=True):
        table = run.read_table("history.csv", made_by="finetune").assign(validation_map=scores)
        run.write_table("history.csv", table)
    assert match_epochs(ended, runs[1], 0.01, Silent()) == (ended, runs[1])
    taken, _ = match_epochs(runs[0], ended, 0.01, Silent())
    assert taken.name == f"{runs[0].name}@epoch-001"


def test_an_epoch_that_another_process_is_taking_is_waited_for(two: tuple[Folder, Folder]) -> None:
    """Two audits that share a control take it at the same epoch."""
    longer, _ = two
    found: list[Folder] = []
    other = threading.Thread(target=lambda: found.append(at_epoch(longer, 2)))
    with locked(longer.path.with_name(f"{longer.name}@epoch-002")):
        other.start()
        other.join(0.3)
    other.join(20)
    assert [folder.has("model.safetensors") for folder in found] == [True]


def test_the_better_run_is_taken_at_the_nearest_epoch(two: tuple[Folder, Folder]) -> None:
    longer, shorter = two
    best = {run.name: history(run).max() for run in two}
    better, worse = sorted(two, key=lambda run: -best[run.name])
    nearest = int((history(better) - best[worse.name]).abs().idxmin())
    found = match_epochs(longer, shorter, 0.0, Silent())
    names = {run.name for run in found}
    if history(better)[nearest] == best[better.name]:
        assert names == {longer.name, shorter.name}
    else:
        assert names == {worse.name, f"{better.name}@epoch-{nearest:03d}"}


def test_runs_that_match_are_left_alone(two: tuple[Folder, Folder], made: Folder, tmp_path: Path) -> None:
    longer, shorter = two
    assert match_epochs(longer, shorter, 1.0, Silent()) == (longer, shorter)
