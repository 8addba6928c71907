"""Classification on the command line, from pre-training to the report."""

from __future__ import annotations

import json

import pytest

TINY = ["--epochs", 1, "--threads", 1, "--image-size", 16]
CLASSIFY = ["--task", "classification"]
RUN = "digits-lenet-classifier-frsf"


@pytest.fixture(scope="module")
def place(cli, tmp_path_factory):
    """A results folder with a classifier, pre-trained and fine-tuned."""
    results = tmp_path_factory.mktemp("results")
    for command in (
        ["pretrain", *CLASSIFY, *TINY],
        [
            "finetune",
            *CLASSIFY,
            *TINY,
            "--rule",
            "frsf",
            "--weights",
            "run:digits-lenet-classifier-pretrained",
        ],
    ):
        outcome = cli(*command, "--results", results)
        assert outcome.code == 0, outcome.err
        assert "next: hashrobust" in outcome.err
    return results


def test_the_whole_way(cli, place):
    evaluated = cli("evaluate", RUN, "--brief", "--results", place)
    assert evaluated.code == 0 and evaluated.out.startswith("accuracy ") and "chance 10.0%" in evaluated.out
    attacked = cli(
        *("attack", RUN, "--gradient", "exact,rule", "--epsilon", "8/255", "--steps", 3, "--queries", 8),
        *("--results", place),
    )
    assert attacked.code == 0, attacked.err
    assert "accuracy (%)" in attacked.out and "(rule: " in attacked.out and " pgd " in attacked.out
    report = cli("report", place)
    assert report.code == 0 and "(rule: " in report.out and "bits" not in report.out
    assert "takes accuracy from" in " ".join(report.err.split())
    pictures = list(place.glob("*/attacks/pgd-*/examples/examples.png"))
    assert len(pictures) == 2


def test_data_without_official_sets_say_so(cli):
    shown = cli("data", "digits", *CLASSIFY, "--json")
    assert "a tenth of each class is drawn to test" in json.loads(shown.out)["protocol"]


def test_json_has_accuracies(cli, place):
    outcome = cli(
        "attack", RUN, "--attack", "noise", "--queries", 8, "--no-picture", "--json", "--results", place
    )
    (row,) = json.loads(outcome.out)
    assert 0 <= row["accuracy"] <= 1 and row["gradient"] == "none" and "map" not in row


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune", "--task", "classify"], "unknown task 'classify': use hashing or classification"),
        (["finetune", *CLASSIFY, "--bits", 16], "--bits belongs to hashing"),
        (["finetune", *CLASSIFY, "--param", "x=1"], "--param belongs to hashing"),
        (["finetune", *CLASSIFY, "--defence", "center-at"], "--defence belongs to hashing"),
        (["finetune", *CLASSIFY, "--rotate", "itq"], "--rotate belongs to hashing"),
        (["pretrain", "--task", "x"], "unknown task 'x'"),
        (["data", "digits", "--task", "x"], "unknown task 'x'"),
        (["attack", RUN, "--attack", "hag"], "attack 'hag' is not for classification"),
        (["attack", RUN, "--attack", "pgd", "--param", "keep=first"], "keep"),
        (["audit", RUN, "--attack", "center"], "attack 'center' is not for classification"),
        (["index", RUN], "holds a classifier"),
    ],
)
def test_wrong_requests(cli, place, words, message):
    where = [] if words[0] == "data" else ["--results", place]
    outcome = cli(*words, *where)
    assert outcome.code == 2 and message in " ".join(outcome.err.split()), outcome.err
    assert "Traceback" not in outcome.err


def test_data_tells_the_splits_of_each_task(cli):
    facts = json.loads(cli("data", "digits", *CLASSIFY, "--json").out)
    assert (facts["train images"], facts["validation images"], facts["test images"]) == (1462, 159, 176)
    assert "query images" not in facts and "official" in facts["protocol"]
    assert "test images" not in json.loads(cli("data", "digits", "--json").out)
