"""Classifiers as run folders: trained by a rule, evaluated, attacked, audited, reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hashrobust.datasets import load_classification
from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.attack_runs import attack_run
from hashrobust.experiments.audit import AuditConfig, AuditReport, audit_run
from hashrobust.experiments.classifier_runs import classify_run, evaluate_classifier, load_classifier
from hashrobust.experiments.config import AttackConfig, ClassifierConfig, FinetuneConfig, PretrainConfig
from hashrobust.experiments.retrieval_runs import evaluate_run, index_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.training_runs import finetune_run, pretrain_run
from hashrobust.reports.audit_screen import screen
from hashrobust.reports.audits import audits_frame, audits_table
from hashrobust.reports.frame import results_frame
from hashrobust.reports.write import write_report
from hashrobust.rules import rule_of

SHAPE: dict[str, Any] = {"image_size": 16, "threads": 1, "batch_size": 64}
TRAINING: dict[str, Any] = {**SHAPE, "epochs": 2, "learning_rate": 2e-3}
ATTACK = AttackConfig(attack="pgd", epsilon=0.1, params={"steps": 5}, queries=30, batch_size=12, threads=1)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained classifier, fine-tuned by bp and by frsf. Not to be changed."""
    place = tmp_path_factory.mktemp("results")
    pretrain_run(PretrainConfig(**{**TRAINING, "epochs": 6}, protocol="classification"), place)
    for rule in ("bp", "frsf"):
        classify_run(config(rule=rule), place)
    return place


def config(**own: Any) -> ClassifierConfig:
    return ClassifierConfig(**TRAINING, **({"weights": "run:digits-lenet-classifier-pretrained"} | own))


def run_of(results: Path, name: str) -> Folder:
    (found,) = (p for p in results.glob(f"digits-lenet-classifier-{name}-s0-*") if "@" not in p.name)
    return Folder.open(found)


def test_a_fine_tuned_classifier_starts_from_the_whole_pre_trained_one(results: Path) -> None:
    before = load_classifier(run_of(results, "pretrained"))
    untouched = classify_run(config(rule="usf", max_steps=0), results)
    after = load_classifier(untouched)
    assert rule_of(after) == "usf"
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_training_by_rule_keeps_the_best_validation_epoch(results: Path) -> None:
    run = run_of(results, "frsf")
    history = run.read_table("history.csv", made_by="finetune")
    assert list(history.columns) == ["epoch", "loss", "validation_accuracy", "learning_rate"]
    model, data = load_classifier(run), load_classification("digits", image_size=16)
    assert model.accuracy(data.validation) == pytest.approx(history["validation_accuracy"].max())
    assert rule_of(model) == "frsf" and run.classifies and run.config["task"] == "classify"


def test_accuracy_is_that_of_the_test_images(results: Path) -> None:
    run = run_of(results, "bp")
    metrics = evaluate_classifier(run)
    data = load_classification("digits", image_size=16)
    predicted = load_classifier(run)(data.test.images).argmax(dim=1)
    assert metrics["accuracy"] == pytest.approx(
        float((predicted == data.test.labels.argmax(dim=1)).double().mean())
    )
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]
    assert metrics["queries"] == 176 and metrics["chance_accuracy"] == pytest.approx(0.1)
    assert evaluate_classifier(run) == metrics


def test_the_same_request_is_not_trained_twice(results: Path) -> None:
    run = run_of(results, "bp")
    stamp = (run.path / "model.safetensors").stat().st_mtime_ns
    assert classify_run(config(rule="bp"), results).path == run.path
    assert (run.path / "model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("gradient", ["exact", "rule"])
def test_an_attack_is_scored_by_the_run_itself(results: Path, gradient: str) -> None:
    run = run_of(results, "frsf")
    attack = attack_run(run, replace(ATTACK, gradient=gradient))
    table = attack.read_table("queries.parquet", made_by="attack")
    metrics = attack.read_json("metrics.json", made_by="attack")
    data, model = load_classification("digits", image_size=16), load_classifier(run)
    images = data.test.load(table["query"].tolist())
    right = model.predict(images) == data.test.labels[table["query"].tolist()].argmax(dim=1)
    np.testing.assert_array_equal(table["clean_correct"], right.double())
    assert set(table["correct"]) <= {0.0, 1.0} and metrics["accuracy"] == pytest.approx(
        table["correct"].mean()
    )
    assert metrics["accuracy"] < metrics["clean_accuracy"]
    assert (metrics["theory_accuracy"], metrics["chance_accuracy"]) == (0.0, pytest.approx(0.1))
    assert metrics["gradient_check_passed"] and table["linf"].max() <= 0.1 + 1e-6
    if gradient == "exact":
        assert metrics["gradient_cosine"] == pytest.approx(1, abs=1e-4)
    else:
        assert metrics["gradient_cosine"] < 0.99


def test_the_exact_gradient_finds_what_the_rule_hides(results: Path) -> None:
    attack_run(run_of(results, "frsf"), replace(ATTACK, params={"steps": 20}))
    attack_run(run_of(results, "frsf"), replace(ATTACK, params={"steps": 20}, gradient="rule"))
    frame = results_frame(results)
    frame = frame[(frame["attack"] == "pgd") & (frame["params.steps"] == 20)]
    exact, rule = (frame[frame["gradient"] == kind].iloc[0] for kind in ("exact", "rule"))
    assert rule["exact_accuracy"] == exact["accuracy"]
    assert rule["masking_gap"] == pytest.approx(rule["accuracy"] - exact["accuracy"])
    assert rule["masking_gap"] > 0
    assert rule["masking_gap_low"] <= rule["masking_gap"] <= rule["masking_gap_high"]
    assert (rule["task"], rule["objective"], rule["rule"]) == ("classification", "cross-entropy", "frsf")


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "noise", "square", "random-search"])
def test_every_attack_on_classifiers_runs_as_a_run(results: Path, attack: str) -> None:
    own = {"square": {"budget": 20}, "random-search": {"budget": 20}}.get(attack, {})
    folder = attack_run(run_of(results, "bp"), replace(ATTACK, attack=attack, params=own))
    metrics = folder.read_json("metrics.json", made_by="attack")
    assert metrics["accuracy"] <= metrics["clean_accuracy"] + 0.1


def test_the_network_before_fine_tuning_can_be_attacked(results: Path) -> None:
    run = run_of(results, "pretrained")
    for gradient in ("exact", "rule:frsf"):
        attack_run(run, replace(ATTACK, gradient=gradient))
    rows = results_frame(results)
    rows = rows[rows["run"] == run.name]
    assert set(rows["rule"]) == {"pretrained"} and set(rows["gradient"]) == {"exact", "rule:frsf"}


def test_transfer_goes_by_the_surrogates_gradient(results: Path) -> None:
    run, other = run_of(results, "frsf"), run_of(results, "bp")
    attack = attack_run(run, replace(ATTACK, surrogate=other.name))
    assert attack.config["surrogate"] == other.name and len(attack.config["surrogate_digest"]) == 64
    assert attack.read_json("metrics.json", made_by="attack")["accuracy"] < 1


def test_attacks_of_the_other_task_are_refused(results: Path) -> None:
    with pytest.raises(InputError, match=r"'center' is not for classification.*pgd"):
        attack_run(run_of(results, "bp"), replace(ATTACK, attack="center"))
    with pytest.raises(InputError, match="targeted"):
        attack_run(run_of(results, "bp"), replace(ATTACK, attack="square", params={"targeted": True}))
    assert not list((run_of(results, "bp").path / "attacks").glob("center-*"))


def test_retrieval_is_refused(results: Path) -> None:
    with pytest.raises(StoreError, match="holds a classifier"):
        index_run(run_of(results, "bp"))
    with pytest.raises(StoreError, match="holds a classifier"):
        evaluate_run(run_of(results, "bp"))


def test_weights_that_saw_the_test_images_are_refused(results: Path, tmp_path: Path) -> None:
    seen = pretrain_run(PretrainConfig(**{**TRAINING, "epochs": 1}), tmp_path)
    for weights in (f"run:{seen.name}", str(seen.path / "model.safetensors")):
        with pytest.raises(InputError, match=r"test images.*--task classification"):
            classify_run(config(weights=weights), tmp_path)
    own = run_of(results, "pretrained").path
    with pytest.raises(InputError, match=r"queries or the database.*--task hashing"):
        finetune_run(FinetuneConfig(**TRAINING, weights=f"run:{own}"), tmp_path)
    assert not list(tmp_path.glob("*classifier*"))


def test_other_weights_give_the_backbone_alone(results: Path, tmp_path: Path) -> None:
    model = (run_of(results, "pretrained").path / "model.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(model)
    run = classify_run(config(weights=str(tmp_path / "weights.safetensors"), max_steps=0), tmp_path)
    before, after = load_classifier(run_of(results, "pretrained")), load_classifier(run)
    assert torch.equal(before.backbone.conv1.weight, after.backbone.conv1.weight)  # type: ignore[union-attr]
    assert not torch.equal(before.head.weight, after.head.weight)


def test_audit_of_a_classifier_beside_its_twin(results: Path) -> None:
    asked = AuditConfig(
        attack="pgd", epsilon=0.1, budget="quick", queries=24, steps=4, restarts=1, search=12, threads=1
    )
    run, twin = run_of(results, "frsf"), run_of(results, "bp")
    report = AuditReport.read(audit_run(run, asked, control=twin))
    parts = set(report.attacks["part"])
    assert {"main", "by rule", "noise", "square", "random-search", "transfer", "control: main"} <= parts
    assert {"fgsm", "center"}.isdisjoint(parts)
    numbers = report.headline
    assert numbers["worst_accuracy"] <= min(numbers["exact_accuracy"], numbers["clean_accuracy"])
    assert numbers["rule_accuracy"] - numbers["exact_accuracy"] == pytest.approx(numbers["masking_gap"])
    assert report.status("finite differences") == "PASS" and report.status("determinism") == "PASS"
    assert "accuracy" in next(c for c in report.checks["meaning"] if "validation" in c)
    assert audits_frame(results)["task"].tolist() == ["classification"]
    assert "accuracy" in audits_table(audits_frame(results)).title
    assert len(screen(report.folder)) == 5


def test_reports_of_both_tasks_stand_side_by_side(results: Path, tmp_path: Path) -> None:
    for gradient in ("exact", "rule"):
        attack_run(run_of(results, "frsf"), replace(ATTACK, gradient=gradient))
    evaluate_classifier(run_of(results, "frsf"))
    hashing = finetune_run(FinetuneConfig(**TRAINING, bits=12, objective="csq"), results)
    attack_run(hashing, replace(ATTACK, attack="center"))
    written = {path.name for path in write_report(results, tmp_path, formats=("csv", "md", "png"))}
    assert {"results.csv", "summary.md", "map_against_epsilon.png", "masking_gap.png"} <= written
    summary = (tmp_path / "summary.md").read_text()
    assert "accuracy, exact gradient (%)" in summary and "mAP, exact gradient (%)" in summary
    assert "takes accuracy from" in summary and "takes mAP from" in summary and "nan" not in summary
