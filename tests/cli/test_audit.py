"""The audit and models of others from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = ["--queries", 8, "--steps", 4, "--restarts", 1, "--search", 10, "--epsilon", "0.1"]
FACTORY = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12))

def classes():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def test_an_audit_ends_with_one_screen_and_is_reported(
    cli: Callable[..., Any], run_folder: Path, results: Path
) -> None:
    priced = cli("audit", run_folder, *SMALL, "--dry-run", "--results", results)
    assert priced.code == 0 and "attacks on 8 queries" in priced.out
    assert not (run_folder / "audits").exists()
    outcome = cli("audit", run_folder, *SMALL, "--results", results)
    assert outcome.code == 0, outcome.err
    for word in ("worst case over all attacks", "RULE gradient", "finite differences", "SKIP", "verdict:"):
        assert word in outcome.out
    again = cli("audit", run_folder, *SMALL, "--json", "--results", results)
    found = json.loads(again.out)
    assert "is done already" in again.err and found["verdict"] in ("FAIL", "INCOMPLETE")
    assert found["headline"]["worst_map"] <= found["headline"]["exact_map"]
    reported = cli("report", results)
    assert reported.code == 0, reported.err
    page = (results / "report" / "audits.md").read_text()
    assert f"(rule: {100 * found['headline']['rule_map']:.1f})" in page
    assert (results / "report" / "audits.png").stat().st_size > 5_000


def test_more_queries_than_there_are_are_told(
    cli: Callable[..., Any], run_folder: Path, results: Path
) -> None:
    few = ["--queries", 5000, "--steps", 2, "--restarts", 1, "--search", 2, "--results", results]
    priced = cli("audit", run_folder, *few, "--dry-run")
    assert priced.code == 0, priced.err
    assert "queries, all there are of 5000 asked for, " in priced.out


def test_transfer_and_no_gradient_have_words_of_their_own(
    cli: Callable[..., Any], run_folder: Path, results: Path
) -> None:
    twin = ["finetune", "--weights", "run:digits-lenet-pretrained", "--rule", "bp", "--epochs", 1]
    assert cli(*twin, "--threads", 1, "--results", results).code == 0
    outcome = cli(
        *("attack", run_folder, "--attack", "center", "--surrogate", "digits-lenet-dpsh-32-bp", "--steps", 4),
        *("--queries", 8, "--no-picture", "--results", results),
    )
    assert outcome.code == 0, outcome.err
    assert "transfer: " in outcome.out
    assert (
        cli(
            "attack", run_folder, "--attack", "noise", "--queries", 8, "--no-picture", "--results", results
        ).out.count("no gradient: ")
        == 1
    )
    itself = cli("attack", run_folder, "--surrogate", run_folder.name, "--results", results)
    assert itself.code == 2 and "is the attacked run itself" in itself.err


def test_a_control_that_is_no_twin_leaves_nothing(
    cli: Callable[..., Any], run_folder: Path, results: Path
) -> None:
    start = ["finetune", "--weights", "run:digits-lenet-pretrained", "--epochs", 2, "--threads", 1]
    assert cli(*start, "--bits", 8, "--learning-rate", 1e-3, "--results", results).code == 0
    before = sorted(results.iterdir())
    outcome = cli("audit", run_folder, "--control", "digits-lenet-dpsh-8", *SMALL, "--results", results)
    assert outcome.code == 2 and "differ in bits: take a control" in outcome.err
    assert sorted(results.iterdir()) == before


def test_a_model_of_others_is_attacked_by_name(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somewhere.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    outcome = cli(
        *("attack", "--model", "somewhere:net", "--dataset", "digits", "--image-size", 8),
        *("--steps", 5, "--queries", 8, "--no-picture", "--json"),
    )
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)[0]["map"] > 0
    missing = cli("audit", "--model", "somewhere:net")
    assert missing.code == 2 and "--model needs --dataset" in missing.err
    both = cli("audit", "run", "--model", "somewhere:net", "--dataset", "digits")
    assert both.code == 2 and "name either a run, or a model" in both.err


STUMBLING = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 12)

    def forward(self, x):
        if x.requires_grad and len(x) == 8:
            raise KeyError("a foot in the way")
        return self.layer(x.flatten(1))

def backward():
    net = Net().layer
    return lambda x: Stumbling.apply(net(x.flatten(1)))

class Stumbling(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z.clone()

    @staticmethod
    def backward(ctx, grad):
        raise KeyError("a foot in the way back")
"""


@pytest.mark.parametrize(
    ("factory", "name", "line"),
    [("Net", "Net", 'the way")'), ("backward", "backward.<locals>.<lambda>", 'back")')],
)
def test_an_error_of_a_model_of_others_is_told_in_one_sentence(
    cli: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    factory: str,
    name: str,
    line: str,
) -> None:
    (tmp_path / "stumbling.py").write_text(STUMBLING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "stumbling", raising=False)
    model = ["--model", f"stumbling:{factory}", "--dataset", "digits", "--image-size", 8]
    outcome = cli("audit", *model, *SMALL, "--quiet")
    assert outcome.code == 1 and outcome.out == ""
    (said,) = outcome.err.splitlines()
    (number,) = (n for n, text in enumerate(STUMBLING.splitlines(), 1) if text.endswith(line))
    assert said.startswith(
        f"error: the model {name} fails at {tmp_path / 'stumbling.py'}, line {number} (KeyError: "
    )
    assert said.endswith("): mend the model")


def test_a_classifier_of_others_is_attacked_audited_and_reported(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somewhere.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    model = ["--model", "somewhere:classes", "--dataset", "digits", "--image-size", 8]
    model += ["--task", "classification"]
    attacked = cli("attack", *model, "--steps", 5, "--queries", 8, "--json")
    assert attacked.code == 0, attacked.err
    (found,) = json.loads(attacked.out)
    assert found["attack"] == "pgd" and 0 <= found["accuracy"] <= found["clean_accuracy"]
    audited = cli("audit", *model, *SMALL, "--json")
    assert audited.code == 0, audited.err
    assert json.loads(audited.out)["headline"]["worst_accuracy"] <= found["clean_accuracy"]
    (run,) = (path for path in (tmp_path / "results").iterdir() if path.is_dir())
    assert run.name.startswith("digits-somewhere-classes-classifier-")
    assert cli("evaluate", run).code == 0 and cli("report").code == 0
    unknown = cli("attack", *model[:-1], "sorting")
    assert unknown.code == 2 and "unknown task 'sorting'" in unknown.err
    codes = cli("audit", *model[:-1], "hashing", "--attack", "pgd")
    assert codes.code == 2 and "'pgd' is not for hashing" in codes.err
    owned = cli("attack", run, "--task", "classification")
    assert owned.code == 2 and "--task and --image-size belong to --model" in owned.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epsilon", "8/255,2/255", "--warm-start"], "do not ascend: a warm start goes upward"),
        (["--epsilon", "2/255,2/255", "--warm-start"], "hold one twice"),
        (["--steps", 0], "give a whole number of 1 or more"),
        (["--steps", 1], "cannot cross a ball"),
        (["--surrogate", "nothing"], "no run 'nothing'"),
        (
            ["--surrogate", "nothing", "--attack", "noise"],
            "'noise' follows no gradient, and so none of a surrogate",
        ),
        (["--surrogate", "nothing", "--gradient", "exact,rule"], "leave out either gradient 'rule' or"),
    ],
)
def test_impossible_attacks_are_refused(
    cli: Callable[..., Any], run_folder: Path, results: Path, options: list[object], message: str
) -> None:
    before = sorted((run_folder / "attacks").iterdir())
    if options[0] == "--steps" and options[1] == 1:
        options = [*options, "--step-size", "1/255"]
    outcome = cli("attack", run_folder, *options, "--queries", 4, "--results", results)
    assert outcome.code == 2 and message in outcome.err
    assert sorted((run_folder / "attacks").iterdir()) == before


def test_epsilons_are_warm_started_upward(cli: Callable[..., Any], run_folder: Path, results: Path) -> None:
    outcome = cli(
        *("attack", run_folder, "--attack", "center", "--epsilon", "4/255,16/255", "--warm-start"),
        *("--steps", 4, "--queries", 8, "--no-picture", "--json", "--results", results),
    )
    assert outcome.code == 0, outcome.err
    first, second = json.loads(outcome.out)
    assert second["start_epsilons"] == [4 / 255] and "start_epsilons" not in first
    assert second["gradient_evaluations"] == 2 * first["gradient_evaluations"]
    assert second["map"] <= first["map"] + 1e-9
