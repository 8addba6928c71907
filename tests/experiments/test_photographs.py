"""The paper's backbones at 224 pixels, end to end for both tasks, on a few pictures for one epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hashrobust.experiments import bench
from hashrobust.experiments.attack_runs import Where, attack_run
from hashrobust.experiments.classifier_runs import classify_run, evaluate_classifier
from hashrobust.experiments.config import AttackConfig, ClassifierConfig, FinetuneConfig
from hashrobust.experiments.retrieval_runs import evaluate_run, index_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.training_runs import finetune_run
from hashrobust.progress import Silent

BACKBONES = ("alexnet", "vgg16", "resnet18")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of five noisy pictures each, bright above or below: as few as give validation two of a class."""
    place = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for title in ("above", "below"):
        (place / title).mkdir()
        for number in range(5):
            pixels = generator.integers(0, 128, (240, 260, 3), dtype=np.uint8)
            pixels[:120] += 100 * (title == "above")
            pixels[120:] += 100 * (title == "below")
            Image.fromarray(pixels).save(place / title / f"{number}.jpg")
    return place


@pytest.fixture(autouse=True)
def without_differences(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finite differences in float64 take minutes for the larger two; those of AlexNet's codes are found."""
    if request.node.name != "test_hashing[alexnet]":
        monkeypatch.setattr(bench, "difference_facts", lambda *_: {"gradient_check_skipped": "for time"})


def training(pictures: Path, backbone: str) -> dict[str, Any]:
    return {
        **{"dataset": f"folder:{pictures}", "backbone": backbone, "rule": "frsf", "threads": 1},
        # Plain steps: Adam would keep two more copies of VGG's weights.
        **{"epochs": 1, "batch_size": 4, "optimizer": "sgd", "learning_rate": 1e-3, "max_steps": 1},
    }


def attack(run: Folder, backbone: str, *attacks: tuple[str, str]) -> None:
    """Attacks by their gradients; on VGG-16, which takes seconds to open, the first alone."""
    where = Where(None, "cpu", Silent())
    for name, gradient in attacks[:1] if backbone == "vgg16" else attacks:
        params = {"steps": 1} if name != "fgsm" else {}
        config = AttackConfig(
            attack=name, epsilon=8 / 255, gradient=gradient, params=params, queries=1, threads=1
        )
        metrics = attack_run(run, config, where=where).read_json("metrics.json", made_by="attack")
        assert metrics["linf_max"] <= 8 / 255 + 1e-6


@pytest.mark.parametrize("backbone", BACKBONES)
def test_hashing(pictures: Path, tmp_path: Path, backbone: str) -> None:
    config = FinetuneConfig(**training(pictures, backbone), objective="csq", bits=16)
    run = finetune_run(config, tmp_path)
    assert len(index_run(run)) > 0
    assert 0 < evaluate_run(run)["map"] <= 1
    attack(run, backbone, ("center", "rule"), ("center", "exact"))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_classification(pictures: Path, tmp_path: Path, backbone: str) -> None:
    run = classify_run(ClassifierConfig(**training(pictures, backbone)), tmp_path)
    assert 0 <= evaluate_classifier(run)["accuracy"] <= 1
    attack(run, backbone, ("pgd", "exact"), ("fgsm", "rule"))
