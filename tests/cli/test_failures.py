"""What goes wrong while a command works: it is named, and never passes for success."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from hashrobust.attacks import attacks
from hashrobust.backbones import backbones
from hashrobust.experiments import crafting

RUN = "digits-lenet-dpsh"
ATTACK = ["attack", RUN, "--queries", 2, "--no-picture", "--quiet"]
PLUGIN = '''
import sys
from dataclasses import dataclass

import torch

from hashrobust.attacks import Attack, attacks
from hashrobust.backbones import backbones


@attacks.register("leaving")
@dataclass(frozen=True, kw_only=True)
class Leaving(Attack):
    """Ends Python as if all were done."""
    def perturb(self, model, clean, labels, context):
        sys.exit(0)


@attacks.register("stumbling")
@dataclass(frozen=True, kw_only=True)
class Stumbling(Attack):
    """Stumbles over its own feet."""
    def perturb(self, model, clean, labels, context):
        raise ValueError("a foot in the way")


@attacks.register("short")
@dataclass(frozen=True, kw_only=True)
class Short(Attack):
    """Reads a file that is cut off."""
    def perturb(self, model, clean, labels, context):
        raise EOFError("Ran out of input")


@backbones.register("leaving")
class Gone(torch.nn.Module):
    """Ends Python instead of being built."""
    def __init__(self, channels, image_size):
        raise SystemExit
'''


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(PLUGIN)
    yield path
    for name in ("leaving", "stumbling", "short"):
        attacks._builders.pop(name, None)
    backbones._builders.pop("leaving", None)


def test_an_attack_that_ends_python_does_not_pass_for_success(cli, results, plugin):
    outcome = cli(*ATTACK, "--plugin", plugin, "--attack", "leaving", "--results", results)
    assert outcome.code == 1 and outcome.out == ""
    line = PLUGIN.splitlines().index("        sys.exit(0)") + 1
    (said,) = outcome.err.splitlines()
    assert said.startswith("error: ") and f"own.py, line {line}" in said
    (folder,) = results.glob("*/attacks/leaving-*")
    assert not (folder / "metrics.json").exists()
    assert cli("verify", results).code == 0


def test_a_backbone_that_ends_python_does_not_pass_for_success(cli, tmp_path, plugin):
    outcome = cli("finetune", "--plugin", plugin, "--backbone", "leaving", "--results", tmp_path / "results")
    assert outcome.code == 1 and outcome.out == ""
    assert "own.py, line " in outcome.err and outcome.err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_the_error_of_a_plugin_is_raised_with_its_place(cli, results, plugin):
    """It is the user's own code, so its traceback is of use."""
    with pytest.raises(ValueError, match="a foot in the way"):
        cli(*ATTACK, "--plugin", plugin, "--attack", "stumbling", "--results", results)
    assert cli("verify", results).code == 0


def test_the_end_of_a_plugins_file_is_no_interruption(cli, results, plugin):
    with pytest.raises(EOFError, match="Ran out of input"):
        cli(*ATTACK, "--plugin", plugin, "--attack", "short", "--results", results)


def start(*words, **streams):
    return subprocess.Popen([sys.executable, *words], text=True, **streams)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_has_left_is_no_error(stream):
    read, write = os.pipe()
    os.close(read)
    word = {"stdout": "rules", "stderr": "nothing"}[stream]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: write}
    process = start("-m", "hashrobust", "list", word, **streams)
    os.close(write)
    out, err = process.communicate(timeout=60)
    assert (out or "", err or "") == ("", "")
    assert process.returncode == {"stdout": 1, "stderr": 2}[stream]


def test_streams_that_are_closed_get_nothing_and_no_file_takes_their_place():
    code = "import sys, tempfile; from hashrobust.cli import main; file = tempfile.TemporaryFile()\n"
    code += "print(1, flush=True); sys.argv = ['hashrobust', 'list', 'rules']\n"
    code += "try:\n    main()\nexcept SystemExit as end:\n    sys.exit(end.code or 10 + file.fileno())"
    process = start("-c", code, preexec_fn=lambda: os.closerange(0, 3))
    assert process.wait(60) >= 10 + 3


@pytest.mark.parametrize(
    "allocate", [lambda: torch.empty(2**58), lambda: np.empty(2**58)], ids=["torch", "numpy"]
)
def test_a_batch_that_memory_has_no_room_for_ends_in_a_sentence(cli, results, monkeypatch, allocate):
    words = [*ATTACK, "--attack", "hag", "--steps", 1, "--epsilon", "0.2", "--results", results]
    with monkeypatch.context() as patch:
        patch.setattr(crafting, "craft_batch", lambda *_, **__: allocate())
        outcome = cli(*words)
    assert outcome.code == 1 and outcome.out == ""
    (said,) = outcome.err.splitlines()
    assert said.startswith("error: there is not enough memory for this (")
    assert cli("verify", results).code == 0
    assert cli(*words).code == 0
