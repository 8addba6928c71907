"""Ctrl-C: exit code 130, one sentence, and the same command again goes on."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from hashrobust import training
from hashrobust.experiments import crafting, retrieval_runs
from hashrobust.retrieval import HammingIndex

RUN = "digits-lenet-dpsh"
CASES = {
    "finetune --epochs 3 --threads 1": (training, "validation_map"),
    f"attack {RUN} --attack hag --steps 3 --queries 8 --batch-size 3 --no-picture": (crafting, "craft_batch"),
    f"index {RUN} --overwrite": (HammingIndex, "from_packed"),
    f"evaluate {RUN} --overwrite": (retrieval_runs, "retrieval_metrics"),
}


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts, in a shell's background too, where it would be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("words", CASES)
def test_ctrl_c_keeps_what_is_finished(cli, results, monkeypatch, words, ctrl_c):
    owner, name = CASES[words]
    original = getattr(owner, name)
    last = 2 if words.startswith(("finetune", "attack")) else 1
    calls = []

    def interrupt(*arguments, **options):
        calls.append(arguments)
        if len(calls) == last:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupt)
        outcome = cli(*words.split(), "--results", results)
    assert outcome.code == 130
    assert "interrupted" in outcome.err and "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].endswith("goes on from there")
    assert cli("verify", results).code == 0
    outcome = cli(*words.split(), "--results", results)
    assert outcome.code == 0, outcome.err
    if words.startswith("finetune"):
        assert "epoch 1:" not in outcome.err and "epoch 3:" in outcome.err
    assert cli("verify", results).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_a_real_process(tmp_path, number):
    command = [sys.executable, "-m", "hashrobust", "finetune", "--epochs", "5000", "--patience", "0"]
    process = subprocess.Popen(
        [*command, "--threads", "1", "--results", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background ignores SIGINT, and what runs in it inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:
        if line.startswith("epoch 1:"):
            break
    process.send_signal(number)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130
    assert "interrupted" in rest and "Traceback" not in rest
