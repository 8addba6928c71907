"""Studies that are killed or interrupted: the same command again ends where an undisturbed one does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hashrobust.experiments.store import list_runs
from hashrobust.experiments.study.local import deaf_to_ctrl_c

Contents = Callable[[Path], dict[str, bytes]]

PIPES: dict[str, Any] = {"text": True, **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)}
PRETRAINING = "*pretrained*/checkpoints/epoch-001.safetensors"
TRAINING = "*frsf*/checkpoints/epoch-002.safetensors"
ATTACK = "*frsf*/attacks/center-*/parts/*.npz"


def wait_for(process: Any, results: Path, pattern: str) -> None:
    """Until a finished file fits the pattern."""
    limit = time.monotonic() + 200
    while not any(not path.name.startswith(".") for path in results.glob(pattern)):
        assert process.wait(0) is None, process.said
        assert time.monotonic() < limit
        time.sleep(0.002)


@pytest.mark.parametrize(("jobs", "moments"), [(1, [PRETRAINING, TRAINING, ATTACK]), (2, [TRAINING])])
def test_killed_again_and_again_nothing_is_lost_torn_or_made_twice(
    study: Callable[..., Path],
    tmp_path: Path,
    zygote: Any,
    undisturbed: Path,
    contents: Contents,
    jobs: int,
    moments: list[str],
) -> None:
    results = tmp_path / "results"
    words = ("study", study(), "--results", results, "--jobs", jobs, "--quiet")
    stamps: dict[Path, int] = {}
    for pattern in moments:
        process = zygote.start(*words)
        try:
            wait_for(process, results, pattern)
        finally:
            process.send_signal(signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL)
        time.sleep(0.5)  # what is left of its processes ends by itself
        for path, stamp in stamps.items():
            assert path.stat().st_mtime_ns == stamp, path
        stamps = {path: path.stat().st_mtime_ns for path in results.glob("**/model.safetensors")}
        for run in list_runs(results):
            assert run.damaged() == []
            assert [name for attack in run.attacks() for name in attack.damaged()] == []
    zygote.finish(*words, forking=True)
    found, wanted = contents(results), contents(undisturbed)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_ctrl_c_passes_by_processes_that_only_begin() -> None:
    """It reaches all of a terminal's processes, and Python's imports would answer with a traceback."""
    with deaf_to_ctrl_c():
        process = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], **PIPES)
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate("\n", timeout=60)
    assert (process.returncode, said) == (0, "")
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_it_says_so_and_can_go_on(
    study: Callable[..., Path], tmp_path: Path, zygote: Any, jobs: int
) -> None:
    results = tmp_path / "results"
    long = study(("epochs = 3", "epochs = 5000\npatience = 0"))
    process = zygote.start("study", long, "--results", results, "--jobs", jobs, forking=True)
    wait_for(process, results, "*csq*/checkpoints/epoch-002.safetensors")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = process.said
    assert "the same command again goes on from there" in said and "Traceback" not in said
    assert all(run.damaged() == [] for run in list_runs(results))
