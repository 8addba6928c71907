"""What a newcomer reads first: the help of every command, and what can be listed."""

from __future__ import annotations

import io
import json
import re

import pytest
import typer
from rich.console import Console

from hashrobust.cli import _console, app
from hashrobust.cli._console import table

COMMANDS = sorted(typer.main.get_command(app).commands)
PICTURES = re.compile("[\U00002600-\U00002bff\U0001f000-\U0001ffff]")


@pytest.fixture
def narrow(monkeypatch):
    """A terminal of 80 columns, as most are."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(_console.stdout, "_width", 80)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_whole_in_a_narrow_terminal(cli, narrow, command):
    outcome = cli(command, "--help")
    assert outcome.code == 0 and outcome.err == ""
    assert "…" not in outcome.out
    assert not PICTURES.search(outcome.out)


def test_every_command_has_one_line_in_the_help(cli, narrow):
    lines = cli("--help").out.splitlines()
    for command in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"│ {command} ")]
        assert line.rstrip(" │").endswith(".")


def test_one_component_is_told_with_its_parameters_and_presets(cli):
    outcome = cli("list", "attacks", "hag")
    assert outcome.code == 0, outcome.err
    assert "Yang et al." in outcome.out
    assert re.search(r"epsilon +8/255", outcome.out) and re.search(r"threshold +0\.5", outcome.out)
    assert re.search(r"original +epsilon=10/255", outcome.out) and "alpha=A10" in outcome.out
    facts = json.loads(cli("list", "attacks", "hag", "--json").out)
    assert facts["parameters"]["threshold"] == 0.5 and facts["presets"]["saat"]["steps"] == 2000


def test_parameters_that_training_gives_are_not_listed(cli):
    facts = json.loads(cli("list", "objectives", "dch", "--json").out)
    assert facts["parameters"] == {"gamma": 10.0, "quantization_weight": 0.01}
    assert json.loads(cli("list", "datasets", "digits", "--json").out)["parameters"] == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("attacks hagg", "did you mean 'hag'"),
        ("attakcs hag", "did you mean 'attacks'"),
        ("runs digits", "takes no name"),
    ],
)
def test_what_cannot_be_told_is_refused(cli, words, message):
    outcome = cli("list", *words.split())
    assert outcome.code == 2 and message in outcome.err and outcome.out == ""


def test_runs_are_listed_by_their_whole_names(cli, narrow, results):
    outcome = cli("list", "runs", "--results", results)
    rows = json.loads(cli("list", "runs", "--results", results, "--json").out)
    assert {row["state"] for row in rows} == {"pre-trained", "trained"}
    for row in rows:
        assert row["name"] in outcome.out and (results / row["name"]).is_dir()
        assert row["task"] == "hashing" and row["audits"] == 0
    assert [row["attacks"] for row in rows] == [2, 0]
    (run,) = results.glob("digits-lenet-dpsh-*")
    (run / "history.csv").unlink()
    states = [row["state"] for row in json.loads(cli("list", "runs", "--results", results, "--json").out)]
    assert states == ["unfinished", "pre-trained"]


def test_tables_cut_nothing_off():
    console = Console(file=io.StringIO(), width=60)
    long = "https://example.org/a/long/path/without/a/space"
    console.print(table(("name", "where"), [("x" * 30, long)]))
    text = console.file.getvalue()
    folded = re.sub(r"[x\s─]|name|where", "", text)
    assert "…" not in text and folded == long.replace("x", "")
    console.print(table(("name", "where"), [(long, "y" * 30)], whole="name"))
    assert long in console.file.getvalue()
