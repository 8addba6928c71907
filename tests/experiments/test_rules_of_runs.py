"""Runs by direct feedback, by a rule in some layers, and by one rule after another: from training to the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hashrobust.datasets import load_classification
from hashrobust.errors import InputError
from hashrobust.experiments.attack_runs import attack_run, check_gradient_name
from hashrobust.experiments.audit import AuditConfig
from hashrobust.experiments.audit.model_facts import depth_facts, determinism_facts
from hashrobust.experiments.audit.plan import RULE, ZERO_STEP, plan
from hashrobust.experiments.classifier_runs import classify_run, evaluate_classifier, load_classifier
from hashrobust.experiments.config import AttackConfig, ClassifierConfig, FinetuneConfig
from hashrobust.experiments.exports import export_run
from hashrobust.experiments.foreign_runs import load_any
from hashrobust.experiments.gradient_path import differentiated
from hashrobust.experiments.imported_runs import import_run
from hashrobust.experiments.matching import match_epochs
from hashrobust.experiments.retrieval_runs import evaluate_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.subject import Subject
from hashrobust.experiments.trained_runs import load_run
from hashrobust.experiments.training_runs import finetune_run
from hashrobust.models import Classifier, load_tensors
from hashrobust.progress import Silent
from hashrobust.reports.frame import results_frame
from hashrobust.reports.labels import rule_of as label_of
from hashrobust.reports.protocol import our_results
from hashrobust.reports.write import write_report
from hashrobust.rules import convert, feedback_state, layers_of, rule_of
from hashrobust.training import finetune_classifier

BACKBONE = ["backbone.conv1", "backbone.conv2", "backbone.conv3", "backbone.fc1"]


@pytest.fixture(scope="module")
def results(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hashing runs, evaluated and attacked both ways. Not to be changed."""
    place = tmp_path_factory.mktemp("rules")
    for own in (
        {"rule": "bp"},
        {"rule": "dfa"},
        {"rule": "frsf", "layers": "backbone.*"},
        {"rule": "bp@1,frsf", "layers": "head", "feedback_scale": "matched"},
    ):
        run = finetune_run(small.finetune(**own), place)
        evaluate_run(run)
        for gradient in ("exact", "rule"):
            if own["rule"] != "bp" or gradient == "exact":
                attack_run(run, attack(gradient))
    return place


def attack(gradient: str, **own: Any) -> AttackConfig:
    return AttackConfig(
        **{"attack": "center", "epsilon": 0.2, "params": {"steps": 4}, "queries": 20, "batch_size": 10}
        | {"threads": 1, "gradient": gradient}
        | own
    )


def run_of(results: Path, name: str) -> Folder:
    (found,) = (path for path in results.glob(f"digits-lenet-csq-12-{name}-s0-*") if "@" not in path.name)
    return Folder.open(found)


NAMES = ["dfa", "frsf-on-backbone", "bp1-frsf-on-head"]


def test_names_are_fit_for_folders(results: Path) -> None:
    assert {path.name.rpartition("-s0-")[0] for path in results.iterdir()} == {
        f"digits-lenet-csq-12-{name}" for name in ("bp", *NAMES)
    }


@pytest.mark.parametrize(
    ("name", "rule", "converted"),
    [("dfa", "dfa", [*BACKBONE, "head"]), (NAMES[1], "frsf", BACKBONE), (NAMES[2], "frsf", ["head"])],
)
def test_a_run_loads_as_it_was_trained(results: Path, name: str, rule: str, converted: list[str]) -> None:
    run = run_of(results, name)
    conversion = json.loads((run.path / "conversion.json").read_text())
    assert conversion["converted"] == converted
    assert set(conversion["left"]) == {*BACKBONE, "head"} - set(converted)
    model = load_run(run)
    assert rule_of(model) == rule
    stored, _ = load_tensors(run.path / "feedback.safetensors")
    found = feedback_state(model)
    assert found.keys() == stored.keys() and all(torch.equal(found[key], stored[key]) for key in stored)
    expected = set(converted) - ({"backbone.conv1"} if rule == "dfa" else set())
    assert {key.removesuffix(".norm") for key in stored} == expected


def test_matched_feedback_has_the_norm_of_the_switch(results: Path) -> None:
    run = run_of(results, NAMES[2])
    norm = load_tensors(run.path / "feedback.safetensors")[0]["head.norm"]
    after = load_tensors(run.path / "checkpoints" / "epoch-001.safetensors")[0]["head.weight"]
    assert float(norm) == pytest.approx(float(after.double().norm()))
    rows = (run.path / "alignment.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [["2", "head"], ["3", "head"]]
    assert not (run_of(results, "dfa").path / "alignment.csv").exists()


@pytest.mark.parametrize("name", NAMES)
def test_attacks_say_whose_gradient_they_followed(results: Path, name: str) -> None:
    found = {
        folder.config["gradient"]: json.loads((folder.path / "metrics.json").read_text())
        for folder in run_of(results, name).attacks()
    }
    assert found["exact"]["gradient_cosine"] == pytest.approx(1)
    assert found["exact"]["gradient_check_passed"] and found["rule"]["gradient_check_passed"]
    assert found["rule"]["gradient_cosine"] < 0.99
    assert found["exact"]["map"] < found["exact"]["clean_map"]


@pytest.mark.parametrize("name", NAMES)
def test_an_audit_has_its_evidence(results: Path, name: str) -> None:
    subject = Subject.open(run_of(results, name), progress=Silent())
    facts = determinism_facts(subject)
    assert facts["gradient_repeats"] and not facts["rule_redraws"] and facts["differing_bits"] == 0
    layers = [fact["layer"] for fact in depth_facts(subject)]
    assert layers[0] in ("head", "backbone.fc1") and -1 <= depth_facts(subject)[0]["cosine"] <= 1
    own = {"dfa": "dfa", NAMES[1]: "frsf:backbone.*", NAMES[2]: "frsf:head"}[name]
    assert subject.feedback == own
    cells = {
        cell.part: cell.config
        for cell in plan(AuditConfig(), queries=20, rule=subject.feedback, control="twin")
    }
    assert cells[RULE].gradient == "rule" and cells[ZERO_STEP].gradient == f"rule:{own}"


def test_the_control_follows_the_same_layers(results: Path) -> None:
    subject = Subject.open(run_of(results, "bp"), progress=Silent())
    through = differentiated(subject.model, "rule:frsf:head+backbone.conv*")
    assert layers_of(through) == "head,backbone.conv*" and rule_of(through) == "frsf"
    folder = attack_run(run_of(results, "bp"), attack("rule:dfa"))
    assert json.loads((folder.path / "metrics.json").read_text())["gradient_cosine"] < 0.99
    check_gradient_name("rule:frsf:head+backbone.conv*")
    with pytest.raises(InputError, match="unknown rule 'fsf'"):
        check_gradient_name("rule:fsf:head")
    with pytest.raises(InputError, match="near are head"):
        attack_run(run_of(results, "bp"), attack("rule:frsf:hed"))


def test_a_matched_run_is_attacked_through_dfa_at_its_own_scale(results: Path) -> None:
    subject = Subject.open(run_of(results, NAMES[2]), progress=Silent())
    assert rule_of(differentiated(subject.model, "rule:dfa")) == "dfa"


def test_reports_show_the_rule_as_it_was_given(results: Path, tmp_path: Path) -> None:
    frame = results_frame(results)
    shown = {label_of(row) for row in frame.to_dict("records")}
    assert shown == {"bp", "dfa", "frsf on backbone.*", "bp@1,frsf (matched) on head"}
    write_report(results, tmp_path)
    tables = "".join(path.read_text() for path in tmp_path.rglob("*.md"))
    assert r"frsf on backbone.\*" in tables and "bp@1,frsf" in tables


def test_only_epochs_of_the_last_stage_are_matched(results: Path) -> None:
    staged, control = run_of(results, NAMES[2]), run_of(results, "dfa")
    for taken in match_epochs(staged, control, 0.0, Silent()):
        assert taken.config["rule"] != "bp@1,frsf" or taken.config.get("epoch") != 1


def test_the_same_request_finds_its_folder(results: Path, small: Any) -> None:
    again = finetune_run(
        small.finetune(rule=" bp@1, frsf ", layers="head ", feedback_scale="matched"), results
    )
    assert again.path == run_of(results, NAMES[2]).path


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"rule": "frsf", "layers": "bakbone.*"}, "near are backbone"),
        ({"rule": "dfa", "feedback_scale": "matched"}, "norm could be matched"),
        ({"rule": "bp@1,dfa", "layers": "conv1"}, "reads the image itself"),
        ({"rule": "bp@1,frfs"}, "unknown rule 'frfs'.*did you mean 'frsf'"),
    ],
)
def test_what_cannot_be_leaves_no_folder(small: Any, tmp_path: Path, own: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        finetune_run(small.finetune(**own), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"rule": "bp", "layers": "head"}, "leave layers out"),
        ({"rule": "bp@3,frsf"}, "never comes to frsf, as there are 3 epochs"),
        ({"rule": "bp@5,frsf@2,usf"}, "malformed at 'frsf@2'"),
        ({"rule": "bp@x,frsf"}, "malformed at 'bp@x'"),
        ({"rule": "bp,frsf"}, "malformed at 'bp'"),
        ({"rule": "bp@2"}, "no last stage"),
        ({"rule": "bp@2,"}, "no last stage"),
        ({"rule": "frsf@1,frsf"}, "from frsf to itself"),
    ],
)
def test_rules_are_checked_with_the_configuration(own: dict[str, Any], said: str) -> None:
    for config in (FinetuneConfig, ClassifierConfig):
        with pytest.raises(InputError, match=said):
            config(epochs=3, **own)


def test_names_of_folders_hold_letters_that_every_file_system_takes() -> None:
    config = FinetuneConfig(
        rule="bp@5,frsf@7,usf", layers="backbone.features.[0-3]*,backbone.classifier.?,head"
    )
    stem = config.run_name.rpartition("-s0-")[0]
    assert stem == "digits-lenet-dpsh-32-bp5-frsf7-usf-on-backbone-features-0-3-ba"
    assert FinetuneConfig(rule="usf", layers="*conv*").rule_slug == "usf-on-conv"
    assert FinetuneConfig(rule="usf", layers="?*").rule_slug == "usf-on-some"
    assert "+center-at-s0" in FinetuneConfig(rule="bp@1,frsf", defence="center-at").run_name
    assert ClassifierConfig(rule="bp@1,frsf").run_name.startswith("digits-lenet-classifier-bp1-frsf-s0-")
    names = {FinetuneConfig(rule="usf", layers=layers).run_name for layers in ("head", "head*", "*")}
    assert len(names) == 3


def test_classifiers_as_well(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"image_size": 16, "threads": 1, "batch_size": 64, "epochs": 2}
    run = classify_run(
        ClassifierConfig(**settings, learning_rate=2e-3, rule="dfa@1,frsf", layers="head"), tmp_path
    )
    assert evaluate_classifier(run)["accuracy"] > 0.1
    model = load_classifier(run)
    assert (rule_of(model), layers_of(model)) == ("frsf", "head")
    folder = attack_run(run, attack("rule", attack="pgd"))
    assert json.loads((folder.path / "metrics.json").read_text())["gradient_check_passed"]


def test_direct_feedback_trains_hidden_layers() -> None:
    """A head on layers that stay random gets 16% here, backpropagation 90%."""
    data = load_classification("digits", image_size=16)
    train = replace(data.train, labels=data.train.labels[:400], ids=data.train.ids[:400])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier("lenet", 10, image_size=16)
    convert(model, "dfa")
    data = replace(data, train=train)
    finetune_classifier(model, data, epochs=6, batch_size=50, learning_rate=2e-3, patience=None)
    assert model.accuracy(data.validation) > 0.4


def test_no_published_number_is_about_a_rule_in_some_layers(results: Path) -> None:
    asked = {ours.asked.rule for ours in our_results(results_frame(results), results)}
    assert asked == {"bp", "dfa", "frsf on backbone.*", "bp@1,frsf on head"}


def test_exports_come_back_with_their_layers(results: Path, tmp_path: Path) -> None:
    run = run_of(results, NAMES[2])
    for feedback, rule in ((True, "frsf"), (False, "bp")):
        to = tmp_path / f"export-{feedback}"
        export_run(run, to, card=lambda *_: "", feedback=feedback)
        back = import_run(to, tmp_path / "results")
        assert back.name.startswith("imported-digits-lenet-csq-12-bp1-frsf")
        model = load_any(back)
        assert rule_of(model) == rule and layers_of(model) == ("head" if feedback else "*")
