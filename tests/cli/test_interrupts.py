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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_a_real_process(zygote, tmp_path, number):
    words = ("finetune", "--image-size", 16, "--epochs", 5000, "--patience", 0, "--threads", 1)
    process = zygote.start(*words, "--results", tmp_path)
    while "epoch 1:" not in process.said:
        assert process.wait(0.01) is None, process.said
    process.send_signal(number)
    assert process.wait(60) == 130
    assert process.said.endswith("goes on from there\n") and "Traceback" not in process.said
    assert not list(tmp_path.rglob(".tmp*"))


TWICE = """
import atexit, signal
from hashrobust import cli

def interrupted(**options):
    raise KeyboardInterrupt

atexit.register(signal.raise_signal, signal.SIGINT)
cli.app = interrupted
cli.main()
"""


def test_one_more_signal_ends_it_without_a_word_of_pythons(zygote, tmp_path):
    (tmp_path / "twice.py").write_text(TWICE)
    code, said = zygote.run(script=str(tmp_path / "twice.py"))
    assert code == -signal.SIGINT
    assert said == "interrupted: what was finished is kept, the same command again goes on from there\n"


def test_what_the_caller_ignores_stays_ignored(cli):
    """As `nohup` and a shell's background have it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        assert cli("list", "rules").code == 0
        assert all(signal.getsignal(number) == signal.SIG_IGN for number in numbers)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_comes_not_between_a_failure_and_its_sentence(number):
    """torchrun ends the others when one process dies, just when they notice that themselves."""
    code = (
        "import os, sys\nfrom hashrobust import cli\n"
        f"cli.has_last_word = lambda: os.kill(os.getpid(), {int(number)}) is None\n"
        "sys.argv[1:] = ['list', 'nothing']\ncli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
