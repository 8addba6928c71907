"""Classifiers that were not made here: imported by name, given alive, refused in one sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import hashrobust as hr
from hashrobust.datasets import ClassificationDataset
from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.attack_runs import attack_run
from hashrobust.experiments.audit import AuditConfig, AuditReport, audit_run
from hashrobust.experiments.classifier_runs import evaluate_classifier, load_classifier
from hashrobust.experiments.config import AttackConfig
from hashrobust.experiments.foreign_runs import foreign_run, import_foreign
from hashrobust.experiments.retrieval_runs import index_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.subject import Subject
from hashrobust.progress import Silent
from hashrobust.reports.frame import results_frame
from hashrobust.reports.write import write_report

SOURCE = """
import torch
from torch import nn
import hashrobust as hr

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def short():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))

def nan():
    return lambda x: torch.full((len(x), 10), float("nan"))

def flat():
    return lambda x: x.flatten()

def hashing():
    return hr.HashModel(backbone="lenet", bits=10, image_size=16)
"""
ATTACK = AttackConfig(attack="pgd", epsilon=0.1, params={"steps": 5}, queries=30, threads=1)
AUDIT: dict[str, Any] = {
    "epsilon": 0.1, "queries": 12, "steps": 5, "restarts": 1, "search": 10, "batch_size": 12
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> ClassificationDataset:
    return hr.load_classification("digits", image_size=8)


@pytest.fixture(scope="module")
def weights(data: ClassificationDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two linear classifiers, `0.safetensors` and `1.safetensors`: means of the classes, taken as templates."""
    place = tmp_path_factory.mktemp("weights")
    for half in (0, 1):
        images, labels = data.train.images[half::2].flatten(1), data.train.labels[half::2].float()
        templates = (labels.T @ images) / labels.sum(dim=0)[:, None]
        bias = -templates.square().sum(dim=1) / 2
        save_file({"1.weight": templates.contiguous(), "1.bias": bias}, place / f"{half}.safetensors")
    return place


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "classes.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield "classes"
    sys.modules.pop("classes", None)


def imported(name: str, results: Path, **own: Any) -> Folder:
    return import_foreign(name, "digits", results, task="classification", image_size=8, **own)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_an_imported_classifier_is_a_run_like_any_other(
    module: str, data: ClassificationDataset, weights: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    run = imported(f"{module}:net", results, weights=weights / "0.safetensors")
    assert run.classifies and run.config["task"] == "foreign" and "bits" not in run.config
    net = linear()
    net.load_state_dict(load_classifier(run).function.state_dict())
    right = (net(data.test.images).argmax(dim=1) == data.test.labels.argmax(dim=1)).double()
    assert evaluate_classifier(run)["accuracy"] == pytest.approx(float(right.mean()))
    attack = attack_run(run, ATTACK)
    table = attack.read_table("queries.parquet", made_by="attack")
    assert table["clean_correct"].tolist() == right[table["query"].tolist()].tolist()
    found = attack.read_json("metrics.json", made_by="attack")
    assert found["accuracy"] < found["clean_accuracy"] and found["gradient_check_passed"]
    again = imported(f"{module}:net", results, weights=weights / "0.safetensors")
    assert again.path == run.path
    rows = results_frame(results)
    assert set(rows["task"]) == {"classification"} and set(rows["attack"]) == {"none", "pgd"}
    with pytest.raises(StoreError, match="holds a classifier"):
        index_run(run)


def test_it_is_audited_beside_a_control_and_reported(module: str, weights: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    run, control = (
        imported(f"{module}:net", results, weights=weights / f"{half}.safetensors") for half in (0, 1)
    )
    report = AuditReport.read(audit_run(run, AuditConfig(attack="pgd", **AUDIT), control=control))
    assert report.status("finite differences") == "PASS" and report.status("clean match") != "SKIP"
    assert {"transfer", "control: main", "apgd-dlr"} <= set(report.attacks["part"])
    assert report.attacks["error"].isna().all()
    assert report.headline["worst_accuracy"] <= report.headline["exact_accuracy"] < 1
    write_report(results, results / "report")
    assert (results / "report" / "audits.md").is_file()


def test_a_surrogate_is_known_by_its_weights(module: str, weights: Path, tmp_path: Path) -> None:
    runs = [
        imported(f"{module}:net", tmp_path / "r", weights=weights / f"{half}.safetensors") for half in (0, 1)
    ]
    first, second = (Subject.open(run, progress=Silent()).digest for run in runs)
    assert first != second and len(first) == 64
    attack = attack_run(runs[0], AttackConfig(**{**ATTACK.to_dict(), "surrogate": runs[1].name}))
    assert attack.config["surrogate_digest"] == second


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("classes:short", "gives logits of 7 classes, digits has 10"),
        ("classes:nan", "answers random images in [0, 1] with NaN or infinity"),
        ("classes:flat", "it must give outputs of shape (2, classes)"),
        ("classes:hashing", "is a HashModel, which is for hashing, and the data are for classification"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    module: str, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        imported(name, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_logits_that_turn_into_nan_are_refused(data: ClassificationDataset, tmp_path: Path) -> None:
    net = linear()

    def model(images: Tensor) -> Tensor:
        z = net(images)
        return torch.where(images.flatten(1).amax(1, keepdim=True) > 0.99, torch.nan, z) if len(z) > 40 else z

    _, wrapped = foreign_run(model, data, tmp_path)
    with pytest.raises(InputError, match=r"NaN or infinite for \d+ of \d+ images: .* have no class"):
        wrapped.predict(data.test)
    with pytest.raises(InputError, match="have no class"):
        hr.audit(model, data, results=tmp_path, **AUDIT)


def test_another_classifier_under_the_same_name_gets_another_folder(
    data: ClassificationDataset, tmp_path: Path
) -> None:
    """Also one that gives the same classes."""

    def run(scale: float) -> Folder:
        torch.manual_seed(0)
        net = linear()
        return foreign_run(lambda images: scale * net(images), data, tmp_path, name="m")[0]

    assert run(1).path == run(1).path != run(2).path
    with pytest.raises(StoreError, match="was given in Python"):
        load_classifier(run(1))


def test_a_plain_callable_is_audited_by_name_and_task(tmp_path: Path) -> None:
    weight = torch.randn(32, 10, generator=torch.Generator().manual_seed(0))

    def model(images: Tensor) -> Tensor:
        return images.flatten(1)[:, ::32] @ weight

    report = hr.audit(model, "digits", task="classification", results=tmp_path, **AUDIT)
    assert report.status("finite differences") == "SKIP" and "worst_accuracy" in report.headline


def test_a_task_that_is_not_the_datas_is_refused(data: ClassificationDataset) -> None:
    classifier = hr.Classifier("lenet", 10, image_size=16)
    with pytest.raises(InputError, match="task is 'hashing', the dataset is loaded for classification"):
        hr.audit(linear(), data, task="hashing")
    with pytest.raises(InputError, match="unknown task 'sorting': use hashing or classification"):
        hr.audit(linear(), "digits", task="sorting")
    with pytest.raises(
        InputError, match="is a Classifier, which is for classification, and the data are for hash"
    ):
        hr.audit(classifier, "digits")
    with pytest.raises(InputError, match="'center' is not for classification"):
        hr.audit(linear(), data, attack="center", **AUDIT)
