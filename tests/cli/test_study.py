"""`hashrobust study`: what it prints, and how it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hashrobust.experiments.study import plan_study
from hashrobust.objectives import objectives

STUDIES = Path(__file__).resolve().parents[2] / "studies"
STUDY = """\
name = "small"
results = "here"
tasks = ["hashing", "classification"]
datasets = ["digits"]
backbones = ["lenet"]
objectives = ["csq"]
bits = [12]
rules = ["bp", "frsf"]
attacks = [{ attack = "center", steps = 4 }, { attack = "pgd", steps = 4 }, "noise"]
epsilons = ["16/255"]
queries = 8
image_size = 16
pretrain.epochs = 1
finetune.hashing.epochs = 1
finetune.classification.epochs = 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(STUDY)
    return path


def test_planned_run_and_planned_again(cli, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned = cli("study", file, "--dry-run", "--jobs", 2, "--json")
    assert planned.code == 0, planned.err
    plan = json.loads(planned.out)
    assert [(row["stage"], row["task"], row["total"], row["there"]) for row in plan["stages"]] == [
        ("pretrain", "hashing", 1, 0),
        ("pretrain", "classification", 1, 0),
        ("train", "hashing", 2, 0),
        ("train", "classification", 2, 0),
        ("attack", "hashing", 5, 0),
        ("attack", "classification", 2 + 5, 0),
    ]
    assert all(row["seconds"] > 0 for row in plan["stages"]) and plan["missing"] == []
    assert plan["seconds"] == pytest.approx(sum(row["seconds"] for row in plan["stages"]))
    assert [(pace["task"], pace["backbone"]) for pace in plan["paces"]] == [
        ("hashing", "lenet"),
        ("classification", "lenet"),
    ]
    assert not (tmp_path / "here").exists()

    done = cli("study", file)
    assert done.code == 0, done.err
    assert "pre-training" in done.out and "failures" not in done.out
    assert done.err.splitlines()[-1] == "next: hashrobust report here"
    assert cli("verify", tmp_path / "here").code == 0
    report = cli("report", tmp_path / "here", "--output", tmp_path / "report")
    assert report.code == 0, report.err

    shown = cli("study", file, "--dry-run")
    assert shown.code == 0 and "what is left to do takes at most 0 s with one process" in shown.out
    again = cli("study", file, "--json", "--quiet")
    assert again.code == 0 and again.err == ""
    stages = json.loads(again.out)["stages"]
    assert stages["attack"] == {"made": 0, "found": 12, "failed": 0, "skipped": 0}


def test_what_fails_is_told_and_the_exit_code_is_1(cli, file, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from hashrobust.objectives import Objective, objectives\n"
        "@objectives.register('stumbling')\n"
        "class Stumbling(Objective):\n"
        "    '''Stumbles.'''\n"
        "    def loss(self, z, labels, step):\n"
        "        raise RuntimeError('a [red]foot[/] in the way')\n"
    )
    changes = {'["csq"]': '["stumbling"]', ', "classification"]': "]", '{ attack = "pgd", steps = 4 }, ': ""}
    text = STUDY
    for old, new in changes.items():
        text = text.replace(old, new)
    file.write_text(text)
    done = cli("study", file, "--results", tmp_path / "there", "--plugin", plugin)
    assert done.code == 1
    told = re.sub(r"\s+", " ", done.out)  # whatever lines the table breaks
    assert "a [red]foot[/] in the way" in told
    assert "skipped: it needs digits-lenet-stumbling-12-bp-s0" in told
    assert "failed: digits-lenet-stumbling-12-frsf-s0" in done.err and "Traceback" not in done.err
    told = cli("study", file, "--results", tmp_path / "there", "--plugin", plugin, "--json", "-q")
    assert told.code == 1
    assert len(json.loads(told.out)["failures"]) == 4
    objectives._builders.pop("stumbling")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rules", "rulez"), "line 8: unknown key 'rulez': did you mean 'rules'"),
        (('"digits"', '"cifar10"'), "line 4: cifar10 is not on this machine"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(cli, file, tmp_path, change, words):
    file.write_text(STUDY.replace(*change))
    done = cli("study", file, "--results", tmp_path / "there", "--data-dir", tmp_path)
    assert done.code == 2 and words in done.err and "Traceback" not in done.err
    assert list((tmp_path / "there").glob("digits*")) == []


def test_jobs_and_a_scheduler_exclude_each_other(cli, file):
    done = cli("study", file, "--jobs", 2, "--scheduler", "tcp://127.0.0.1:1")
    assert done.code == 2 and "--jobs and --scheduler exclude each other" in done.err


def test_the_plan_is_told_where_data_and_weights_are_missing(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    done = cli(
        "study", STUDIES / "paper.toml", "--dry-run", "--data-dir", tmp_path, "--results", tmp_path / "r"
    )
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    # 3 networks, 5 rules, 3 seeds; 4 data sets with 3 objectives, or 2 data sets.
    assert ["training", "by", "rule", "hashing", "540", "0", "540", "not", "measured"] in rows
    assert ["training", "by", "rule", "classification", "90", "0", "90", "not", "measured"] in rows
    for what in (
        "cifar10 is not on this machine",
        "mscoco is not on this machine",
        "ImageNet weights of vgg16",
    ):
        assert what in done.out
    assert "with one process" not in done.out


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.name)
def test_the_files_that_ship_can_be_planned(path: Path, tmp_path: Path) -> None:
    planned = plan_study(path, tmp_path)
    assert planned.study.name == path.stem
    assert planned.study.results == f"results/{path.stem}"
    summary = {(stage, task): total for stage, task, total, _ in planned.summary()}
    one_task = path.stem in ("defences", "imagenet-weights", "objectives")
    assert {task for _, task in summary} == {"hashing"} | (set() if one_task else {"classification"})
    seeds = {cell.config.seed for cell in planned.used()}
    assert seeds == ({0} if path.stem == "objectives" else {0, 1} if path.stem == "quick" else {0, 1, 2})


def test_the_study_of_objectives_holds_all_of_them(tmp_path: Path) -> None:
    cells = plan_study(STUDIES / "objectives.toml", tmp_path).cells
    trained = [cell.config for cell in cells if cell.stage == "train"]
    asked = {(config.objective, config.bits) for config in trained}
    assert asked == {(name, bits) for name in objectives for bits in (12, 16, 32, 48, 64)}
    assert len(trained) == len(asked) and {config.rule for config in trained} == {"bp"}


def test_the_published_study_holds_what_was_asked_for(tmp_path: Path) -> None:
    cells = plan_study(STUDIES / "fashion-mnist.toml", tmp_path).cells
    trained = {cell.key: cell.config for cell in cells if cell.stage == "train"}
    for task, backbone, rule, seed in [
        (task, backbone, rule, seed)
        for task in ("hashing", "classification")
        for backbone in ("lenet", "resnet20")
        for rule in ("bp", "usf", "brsf", "frsf", "fa")
        for seed in (0, 1, 2)
    ]:
        runs = [
            key
            for key, config in trained.items()
            if (config.backbone, config.rule, config.seed) == (backbone, rule, seed)
            and ("classifier" in key) == (task == "classification")
            and (config.max_steps, config.feedback_scale) == (None, "xavier")
        ]
        (attacks,) = [cell.attacks for cell in cells if cell.stage == "attack" and cell.needs[0] in runs]
        main = {"hashing": "center", "classification": "pgd"}[task]
        asked = {(round(a.epsilon * 255), a.gradient) for a in attacks if a.attack == main}
        gradients = ["exact"] if rule == "bp" else ["exact", "rule"]
        assert asked >= {(epsilon, gradient) for epsilon in (2, 4, 8, 16, 32) for gradient in gradients}
        assert {a.queries for a in attacks} == {200}
        worst = {"hashing": {"hag", "sdha"}, "classification": {"apgd-ce", "apgd-dlr", "fgsm"}}[task]
        assert {a.attack for a in attacks} == {main, "square", "noise", *worst}
    curve = {c.max_steps for c in trained.values() if (c.backbone, c.rule) == ("lenet", "frsf")}
    assert curve == {None, 0, 10, 100, 1000}
    assert any(config.feedback_scale == "matched" for config in trained.values())


def test_each_defence_is_timed_by_itself(cli, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    defended = 'finetune.hashing.defence = "center-at"\nfinetune.hashing.defence_params = { steps = 2 }\n'
    file.write_text(
        STUDY.replace('["hashing", "classification"]', '["hashing"]').replace("pgd", "hag")
        + f"[[matrix]]\n[[matrix]]\n{defended}[[matrix]]\n{defended.replace('2', '9')}"
    )
    plan = json.loads(cli("study", file, "--dry-run", "--json").out)
    paces = {pace["defence"]: pace["training"] for pace in plan["paces"]}
    assert list(paces) == ["none", "center-at steps=2", "center-at steps=9"]
    assert len(set(paces.values())) == 3
    shown = cli("study", file, "--dry-run")
    assert "lenet with center-at steps=9 on digits, hashing" in " ".join(shown.out.split())
