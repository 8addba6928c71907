"""Learning rules on the command line: in some layers, and one after another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = ("--epochs", "2", "--threads", "1", "--image-size", "16", "--bits", "8")


def test_layers_and_stages(cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ("--results", tmp_path)
    made = cli("finetune", "--rule", "bp@1,frsf", "--layers", "conv*,fc1", *TINY, *where)
    assert made.code == 0, made.err
    run = Path(made.out.strip())
    assert run.name.startswith("digits-lenet-dpsh-8-bp1-frsf-on-conv-fc1-s0-")
    assert "epoch 2 and on: rule frsf" in made.err and "head stays on backpropagation" in made.err
    assert set(json.loads((run / "conversion.json").read_text())["left"]) == {"head"}
    again = cli("finetune", "--rule", "bp@1,frsf", "--layers", "conv*,fc1", *TINY, *where)
    assert "is done already" in again.err

    few = ("--queries", "10", "--epsilon", "0.1", "-p", "steps=3", "--threads", "1")
    attacked = cli(
        "attack", run.name, "--attack", "center", "--gradient", "exact,rule,rule:dfa", *few, *where
    )
    assert attacked.code == 0, attacked.err
    assert cli("evaluate", run.name, *where).code == 0
    report = cli("report", tmp_path, "--group-by", "rule,gradient")
    assert report.code == 0, report.err
    assert "bp@1,frsf on conv*,fc1" in (tmp_path / "report" / "summary.md").read_text().replace("\\", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rule", "frsf", "--layers", "featres.*"), "fit no module"),
        (("--rule", "frsf", "--layers", "backbone.con"), "near are backbone.conv"),
        (("--layers", "head"), "leave layers out"),
        (("--rule", "bp@2,frsf"), "never comes to frsf"),
        (("--rule", "dfa", "--feedback-scale", "matched"), "choose scale 'xavier'"),
        (("--rule", "bp@1,dfaa"), "did you mean 'dfa'"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_a_sentence(
    cli: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    found = cli("finetune", *arguments, *TINY, "--results", tmp_path)
    assert found.code == 2 and said in " ".join(found.err.split()) and "Traceback" not in found.err
    assert not any(tmp_path.iterdir())


def test_dfa_is_listed(cli: Callable[..., Any]) -> None:
    assert "Direct feedback alignment" in cli("list", "rules").out
