"""Runs whose outputs are rotated after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hashrobust.datasets import load_dataset
from hashrobust.errors import UnknownNameError
from hashrobust.experiments.attack_runs import attack_run
from hashrobust.experiments.audit.plan import AuditConfig
from hashrobust.experiments.audit.runs import audit_run
from hashrobust.experiments.config import AttackConfig, FinetuneConfig
from hashrobust.experiments.exports import export_run
from hashrobust.experiments.foreign_runs import load_any
from hashrobust.experiments.imported_runs import import_run
from hashrobust.experiments.matching import match_epochs
from hashrobust.experiments.retrieval_runs import evaluate_run, index_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.trained_runs import load_run
from hashrobust.experiments.training_runs import finetune_run
from hashrobust.models import load_tensors
from hashrobust.progress import Silent
from hashrobust.reports.card import model_card
from hashrobust.retrieval import unpack
from hashrobust.rotations import quantization_error
from hashrobust.rules import rule_of

ATTACK = {"attack": "center", "epsilon": 0.2, "params": {"steps": 4}, "queries": 12, "threads": 1}


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """A training without a quantisation term, which leaves something to a rotation."""
    return {"objective": "cel", "rule": "frsf", "epochs": 2}


@pytest.fixture(scope="module")
def twins(
    small: Any, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Folder]:
    """One training, left as it is and rotated."""
    place = tmp_path_factory.mktemp("rotated")
    return {
        name: finetune_run(small.finetune(**settings, rotate=name), place) for name in ("none", "itq", "h2q")
    }


rotated = pytest.mark.parametrize("name", ["itq", "h2q"])


def test_a_rotation_is_part_of_the_configuration_once_it_is_asked_for() -> None:
    assert "rotate" not in FinetuneConfig().to_dict()
    config = FinetuneConfig(rule="frsf", defence="center-at", rotate="itq")
    assert config.to_dict()["rotate"] == "itq" and FinetuneConfig.from_dict(config.to_dict()) == config
    assert config.run_name.startswith("digits-lenet-dpsh-32-frsf+center-at+itq-s0-")
    assert FinetuneConfig(rotate="h2q").run_name.startswith("digits-lenet-dpsh-32-bp+h2q-s0-")


@rotated
def test_training_and_selection_stay_before_the_rotation(twins: dict[str, Folder], name: str) -> None:
    plain, run = twins["none"], twins[name]
    for file in ("history.csv", "feedback.safetensors", "alignment.csv"):
        assert (
            run.file(file, made_by="finetune").read_bytes()
            == plain.file(file, made_by="finetune").read_bytes()
        )
    own, _ = load_tensors(run.path / "model.safetensors")
    before, _ = load_tensors(plain.path / "model.safetensors")
    assert own.keys() - before.keys() == {"rotation.matrix"}
    assert all(torch.equal(own[key], before[key]) for key in before)


@rotated
def test_the_model_of_a_run_is_rotated_nearer_to_its_codes(twins: dict[str, Folder], name: str) -> None:
    train = load_dataset("digits", image_size=16).train
    model, plain = load_run(twins[name]), load_run(twins["none"])
    assert rule_of(model) == "frsf" and model.spec["rotation"] == name
    assert quantization_error(model.outputs(train)) < 0.8 * quantization_error(plain.outputs(train))


@rotated
def test_index_evaluation_and_attacks_see_the_rotated_model(twins: dict[str, Folder], name: str) -> None:
    run = twins[name]
    index_run(run)
    model, data = load_run(run), load_dataset("digits", image_size=16)
    with np.load(run.path / "codes.npz") as stored:
        assert np.array_equal(unpack(stored["query"], 12), model.encode(data.query).numpy())
    assert 0.1 < evaluate_run(run)["map"] <= 1
    found = {}
    for gradient in ("exact", "rule"):
        attack = attack_run(run, AttackConfig(**ATTACK, gradient=gradient))
        found[gradient] = attack.read_json("metrics.json", made_by="attack")
        assert found[gradient]["gradient_check_passed"]
    assert found["exact"]["map"] < found["exact"]["clean_map"]
    assert found["exact"]["gradient_cosine"] == pytest.approx(1, abs=1e-3)
    assert found["rule"]["gradient_cosine"] < 0.99


def test_a_rotated_run_is_not_matched_by_epochs_which_are_not_rotated(twins: dict[str, Folder]) -> None:
    pair = twins["itq"], twins["none"]
    assert match_epochs(*pair, 0.0, Silent()) == pair
    assert match_epochs(*reversed(pair), 0.0, Silent()) == tuple(reversed(pair))


def test_a_rotated_run_is_audited(twins: dict[str, Folder]) -> None:
    config = AuditConfig(
        attack="center", epsilon=0.2, budget="quick", queries=8, steps=4, search=20, threads=1
    )
    audit = audit_run(twins["itq"], config, control=twins["none"])
    checks = audit.read_json("audit.json", made_by="audit")["checks"]
    assert {check["name"]: check["status"] for check in checks}["finite differences"] == "PASS"


def test_an_interrupted_training_ends_with_the_same_rotation(
    small: Any,
    settings: dict[str, Any],
    twins: dict[str, Folder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import hashrobust.training

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    config = small.finetune(**settings, rotate="h2q")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(hashrobust.training, "_rotate", interrupted)
        finetune_run(config, tmp_path)
    assert not Folder(tmp_path / config.run_name).has("model.safetensors")
    again = finetune_run(config, tmp_path)
    stored = again.file("model.safetensors", made_by="finetune").read_bytes()
    assert stored == twins["h2q"].file("model.safetensors", made_by="finetune").read_bytes()


def test_an_unknown_rotation_leaves_no_folder(small: Any, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown rotation 'pca'"):
        finetune_run(small.finetune(rotate="pca"), tmp_path)
    assert not list(tmp_path.iterdir())


@rotated
def test_a_rotation_goes_along_when_a_model_is_shared(
    twins: dict[str, Folder], tmp_path: Path, name: str
) -> None:
    export_run(twins[name], tmp_path / "export", card=model_card, feedback=True)
    taken = import_run(tmp_path / "export", tmp_path / "results")
    images = load_dataset("digits", image_size=16).query.images
    again, own = load_any(taken), load_run(twins[name])
    assert torch.equal(again.encode(images), own.encode(images)) and rule_of(again) == "frsf"
    assert not torch.equal(again.encode(images), load_run(twins["none"]).encode(images))
