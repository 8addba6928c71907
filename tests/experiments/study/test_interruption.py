"""Studies that are killed or interrupted: the same command again ends where an undisturbed one does."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hashrobust.experiments.store import list_runs

Command = Callable[..., subprocess.Popen[str]]
Contents = Callable[[Path], dict[str, bytes]]

PRETRAINING = "*pretrained*/checkpoints/epoch-001.safetensors"
TRAINING = "*frsf*/checkpoints/epoch-002.safetensors"
ATTACK = "*frsf*/attacks/center-*/parts/*.npz"


def wait_for(process: subprocess.Popen[str], results: Path, pattern: str) -> None:
    """Until a finished file fits the pattern."""
    limit = time.monotonic() + 200
    while not any(not path.name.startswith(".") for path in results.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.002)


@pytest.mark.parametrize(("jobs", "moments"), [(1, [PRETRAINING, TRAINING, ATTACK]), (2, [TRAINING])])
def test_killed_again_and_again_nothing_is_lost_torn_or_made_twice(
    study: Callable[..., Path],
    tmp_path: Path,
    command: Command,
    undisturbed: Path,
    contents: Contents,
    jobs: int,
    moments: list[str],
) -> None:
    results = tmp_path / "results"
    arguments = (study(), "--results", results, "--jobs", jobs, "--quiet")
    stamps: dict[Path, int] = {}
    for pattern in moments:
        process = command(*arguments)
        try:
            wait_for(process, results, pattern)
        finally:
            process.kill()
            process.communicate()
        time.sleep(0.5)  # what is left of its processes ends by itself
        for path, stamp in stamps.items():
            assert path.stat().st_mtime_ns == stamp, path
        stamps = {path: path.stat().st_mtime_ns for path in results.glob("**/model.safetensors")}
        for run in list_runs(results):
            assert run.damaged() == []
            assert [name for attack in run.attacks() for name in attack.damaged()] == []
    process = command(*arguments)
    _, words = process.communicate(timeout=200)
    assert process.returncode == 0, words
    found, wanted = contents(results), contents(undisturbed)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_it_says_so_and_can_go_on(
    study: Callable[..., Path], tmp_path: Path, command: Command, jobs: int
) -> None:
    results = tmp_path / "results"
    process = command(
        study(("epochs = 3", "epochs = 5000\npatience = 0")), "--results", results, "--jobs", jobs
    )
    wait_for(process, results, "*csq*/checkpoints/epoch-002.safetensors")
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command again goes on from there" in words and "Traceback" not in words
    assert all(run.damaged() == [] for run in list_runs(results))
