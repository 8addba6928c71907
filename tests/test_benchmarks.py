"""Benchmarks at their smallest size end well and print their tables. What they measure is asserted nowhere."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
FOLDER = HERE / "benchmarks"
SMALLEST = {
    "attack_step": ("4 3 --networks resnet20", "resnet20    32 sdha    rule"),
    "average_precision": ("--queries 20 --database 100 --rounds 1", "from numba's cache"),
    "encoding": (
        "--models lenet:digits alexnet:photographs --photographs 80 --repetitions 1",
        "alexnet, photographs at 224 pixels",
    ),
    "index": ("--codes clustered --database 2000 --queries 5 --bits 32 --k 5", "| clustered | hash |"),
    "paper_cost": ("studies/paper.toml", "in all "),
    "processes": ("--backbones lenet --repetitions 1", "gradients (alexnet)"),
    "training_step": ("--models lenet:32:2 --repetitions 1", "over bp trained in the same way"),
}
"""For each benchmark its options, and words of the last that it prints."""


def test_every_benchmark_is_tried() -> None:
    assert {file.stem for file in FOLDER.glob("[a-z]*.py")} == set(SMALLEST)


@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_ends_well(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options, last = SMALLEST[name]
    file = FOLDER / f"{name}.py"
    monkeypatch.chdir(HERE)
    monkeypatch.syspath_prepend(FOLDER)  # as Python does with the folder of a script
    monkeypatch.setattr(sys, "argv", [str(file), *options.split()])
    runpy.run_path(str(file), run_name="__main__")
    assert last in capfd.readouterr().out


def test_steps_of_which_none_would_count_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = FOLDER / "attack_step.py"
    monkeypatch.setattr(sys, "argv", [str(file), "4", "2"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(file), run_name="__main__")
    assert stop.value.code == 2
    assert "steps is 2: give at least 3" in capsys.readouterr().err
