"""Killed and interrupted processes: the same command again ends where an undisturbed one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hashrobust.experiments.store import list_runs

FINETUNE = ["finetune", "--image-size", "16", "--bits", "12", "--objective", "csq", "--rule", "brsf"]
FINETUNE += ["--epochs", "10", "--patience", "0", "--batch-size", "50", "--learning-rate", "2e-3"]
FINETUNE += ["--augment", "crop", "--threads", "1", "--quiet"]
ATTACK = [
    "--attack",
    "center",
    "--gradient",
    "rule",
    "--epsilon",
    "0.1",
    "--steps",
    "40",
    "--batch-size",
    "2",
]
ATTACK += ["--queries", "20", "--threads", "1", "--quiet", "--no-picture"]


def start(arguments: list[str], results: Path) -> subprocess.Popen[str]:
    # Without PATH there is no git, whose answer may change while tests run.
    environment = {**os.environ, "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hashrobust", *arguments, "--results", str(results)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(arguments: list[str], results: Path) -> None:
    process = start(arguments, results)
    _, words = process.communicate(timeout=120)
    assert process.returncode == 0, words


def stop(arguments: list[str], results: Path, once: str, number: signal.Signals) -> tuple[int, str]:
    """Send a signal as soon as a file fits the pattern; the exit code, and what was said."""
    process = start(arguments, results)
    limit = time.monotonic() + 120
    try:
        while not any(not path.name.startswith(".") for path in results.glob(once)):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < limit
            time.sleep(0.002)
        process.send_signal(number)
        _, words = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, words


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of both commands, each run once and left alone."""
    results = tmp_path_factory.mktemp("undisturbed")
    finish(FINETUNE, results)
    finish(["attack", "digits", *ATTACK], results)
    return results


def test_killed_commands_given_again_end_with_the_same_files(
    undisturbed: Path, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    code, _ = stop(FINETUNE, tmp_path, "*/checkpoints/epoch-003.safetensors", signal.SIGKILL)
    (run,) = list_runs(tmp_path)
    assert code == -signal.SIGKILL and not run.has("model.safetensors") and run.damaged() == []
    (run.path / ".tmp-abcd1234.model.safetensors").write_bytes(b"half")  # what a kill may leave at worst
    finish(FINETUNE, tmp_path)
    again = ["attack", "digits", *ATTACK]
    code, _ = stop(again, tmp_path, "*/attacks/*/parts/*.npz", signal.SIGKILL)
    (attack,) = run.attacks()
    assert code == -signal.SIGKILL and not attack.has("metrics.json")
    finish(again, tmp_path)
    found, wanted = contents(tmp_path), contents(undisturbed)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_commands_say_so_and_leave_nothing_torn(number: signal.Signals, tmp_path: Path) -> None:
    code, words = stop(FINETUNE, tmp_path, "*/checkpoints/epoch-001.safetensors", number)
    assert code == 130
    assert "the same command again goes on from there" in words and "Traceback" not in words
    (run,) = list_runs(tmp_path)
    assert run.damaged() == [] and not run.has("model.safetensors")
    assert [path.name for path in run.path.rglob(".*")] == [".lock"]
