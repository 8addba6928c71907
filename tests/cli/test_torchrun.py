"""Commands that torchrun starts in several processes: one run, one writer, one voice, and an end to everything."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from hashrobust.cli._processes import interrupt
from hashrobust.experiments.config import FinetuneConfig
from hashrobust.experiments.store import Folder, list_runs

WORDS = ["finetune", "--image-size", "16", "--bits", "12", "--objective", "csq", "--rule", "brsf"]
WORDS += ["--batch-size", "50", "--patience", "0", "--threads", "1"]
CONFIG = FinetuneConfig(
    image_size=16, bits=12, objective="csq", rule="brsf", batch_size=50, patience=None, threads=1, epochs=40
)


def torchrun(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "hashrobust"]
    return subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def once(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Wait for a file of a run."""
    limit = time.monotonic() + 240
    while not any(not path.name.startswith(".") for path in folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.01)


def workers(process: subprocess.Popen[str]) -> dict[str, int]:
    """Process ids of those that torchrun started, by rank."""
    found = {}
    for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            words = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {
                word.decode().removeprefix("RANK="): child for word in words if word.startswith(b"RANK=")
            }
    return found


def sentences(said: str, beginning: str) -> int:
    """How many lines begin so: of our own, not among those of torchrun's report."""
    return len(re.findall(rf"^{beginning}", said, flags=re.MULTILINE))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_a_killed_process_ends_the_others_and_one_goes_on_alone(tmp_path, cli):
    where = ["--epochs", "40", "--results", str(tmp_path)]
    process = torchrun(*WORDS, *where)
    try:
        once(tmp_path, "*/checkpoints/epoch-003.safetensors", process)
        os.kill(workers(process)["1"], signal.SIGKILL)
        out, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode != 0 and out == ""
    # The answer to a signal that comes while Python tidies up cannot be raised: Python prints it, and goes on.
    places = [
        line for line in said.splitlines() if line.strip().startswith("File") and "in interrupt" not in line
    ]
    assert "hashrobust/" not in "".join(places)
    assert sentences(said, "error:") + sentences(said, "interrupted:") == 1
    assert sentences(said, "epoch 1:") == 1
    (run,) = list_runs(tmp_path)
    assert run.name == CONFIG.run_name
    assert run.damaged() == [] and not run.has("model.safetensors")
    assert run.read_json("environment.json", made_by="finetune")["processes"] == 2
    outcome = cli(*WORDS, *where)
    assert outcome.code == 0, outcome.err
    assert "epoch 3:" not in outcome.err and "epoch 40:" in outcome.err
    assert list(run.read_table("history.csv", made_by="finetune")["epoch"]) == list(range(1, 41))
    assert Folder.open(run.path).damaged() == []


def test_sigterm_stops_all(tmp_path):
    where = ["--epochs", "400", "--results", str(tmp_path)]
    process = torchrun(*WORDS, *where)
    try:
        once(tmp_path, "*/checkpoints/epoch-001.safetensors", process)
        process.terminate()
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode != 0
    assert sentences(said, "interrupted:") == 1 and sentences(said, "error:") == 0
    (run,) = list_runs(tmp_path)
    assert run.damaged() == []
    assert [path.name for path in run.path.rglob(".*")] == [".lock"]


def test_a_mistake_is_told_once(zygote, tmp_path):
    """By processes that are told what they are, and have a store to ask, as those of torchrun."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    told |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    words = ("finetune", "--rule", "frfs", "--results", tmp_path / "results")
    processes = [
        zygote.start(*words, environment=told | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
    ]
    assert [process.wait() for process in processes] == [2, 2]
    (said,) = "".join(process.said for process in processes).splitlines()
    assert said.startswith("error: unknown rule 'frfs': did you mean 'frsf'?")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("command", ["index", "attack", "study", "audit", "report", "data"])
def test_other_commands_are_refused(cli, monkeypatch, command):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    outcome = cli(command, "x")
    assert outcome.code == 2 and outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: torchrun started 2 processes") and f"`hashrobust {command}`" in line
    assert "--jobs" in line and "--scheduler" in line


def test_all_but_the_first_process_are_silent(cli, monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    outcome = cli("index", "x")
    assert (outcome.code, outcome.out, outcome.err) == (2, "", "")
    outcome = cli("--help")
    assert (outcome.code, outcome.out) == (0, "")


def test_impossible_variables_are_told(cli, monkeypatch):
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    outcome = cli("finetune")
    assert outcome.code == 2
    assert "RANK=2, WORLD_SIZE=2" in outcome.err


def test_one_signal_is_enough(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setenv("RANK", "0")
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt(signal.SIGTERM, None)
        assert all(signal.getsignal(number) == signal.SIG_IGN for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
