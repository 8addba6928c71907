"""The commands on the page make the very configuration that they stand beside."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hashrobust.cli import main
from hashrobust.experiments.attack_runs import as_stored, build
from hashrobust.experiments.audit.plan import AuditConfig, with_version
from hashrobust.experiments.config import AttackConfig, ClassifierConfig, FinetuneConfig, PretrainConfig
from hashrobust.experiments.store import Folder
from hashrobust.reports.page.commands import attack_command, audit_command, run_command


class AskedError(Exception):
    """Carries what the command line asked the library for."""


def configuration(command: str, target: str) -> dict[str, Any]:
    """The configuration that a command line hands to the library's function `target`."""

    def ask(*arguments: Any, **_: Any) -> Any:
        raise AskedError(next(a for a in arguments if hasattr(a, "to_dict")).to_dict())

    with (
        mock.patch.object(sys, "argv", shlex.split(command)),
        mock.patch(f"hashrobust.experiments.{target}", ask),
        pytest.raises(AskedError) as asked,
    ):
        main()
    found: dict[str, Any] = asked.value.args[0]
    return found


def stored(config: Any, task: str, place: Path) -> dict[str, Any]:
    """The configuration as a run folder holds it: without what TOML has no word for."""
    return Folder.create(place, {"task": task, **config.to_dict()}).config


@pytest.mark.parametrize(
    "config",
    [
        FinetuneConfig(),
        FinetuneConfig(
            patience=None, rule="frsf", feedback_scale="matched", seed=3, bits=48, threads=2, max_steps=10
        ),
        FinetuneConfig(objective="dch", objective_params={"quantization_weight": 0.01}, mixed_precision=True),
        FinetuneConfig(
            defence="center-at", defence_params={"steps": 3}, dataset="folder:/data/my birds", image_size=64
        ),
    ],
)
def test_finetune(config: FinetuneConfig, tmp_path: Path) -> None:
    command = run_command(config.run_name, stored(config, "finetune", tmp_path / "run"), "my results")
    assert configuration(command, "training_runs.finetune_run") == config.to_dict()
    assert command.endswith("--results 'my results'")


@pytest.mark.parametrize(
    "config", [ClassifierConfig(), ClassifierConfig(rule="usf", patience=None, max_steps=0, seed=2)]
)
def test_classifier(config: ClassifierConfig, tmp_path: Path) -> None:
    command = run_command(config.run_name, stored(config, "classify", tmp_path / "run"), "results")
    assert configuration(command, "classifier_runs.classify_run") == config.to_dict()


@pytest.mark.parametrize(
    "config",
    [
        PretrainConfig(),
        PretrainConfig(protocol="classification"),
        PretrainConfig(epochs=3, image_size=32, augment="none", seed=1),
    ],
)
def test_pretrain(config: PretrainConfig, tmp_path: Path) -> None:
    command = run_command(config.run_name, stored(config, "pretrain", tmp_path / "run"), "results")
    assert configuration(command, "training_runs.pretrain_run") == config.to_dict()


@pytest.mark.parametrize(
    "config",
    [
        AttackConfig(attack="center", epsilon=8 / 255),
        AttackConfig(
            attack="center",
            epsilon=0.1,
            gradient="rule:frsf",
            preset="saat",
            queries=50,
            query_seed=2,
            seed=1,
        ),
        AttackConfig(attack="noise", epsilon=2 / 255, gradient="none", params={"kind": "sign"}),
        AttackConfig(
            attack="center",
            epsilon=4 / 255,
            params={"steps": 1, "step_size": 16 / 255, "random_start": False},
            batch_size=10,
            threads=1,
        ),
    ],
)
def test_attack(config: AttackConfig, tmp_path: Path) -> None:
    config = as_stored(config, build(config))
    run = Folder.create(tmp_path / "the run", {"task": "finetune", **FinetuneConfig().to_dict()})
    attack = Folder.create(run.path / "attacks" / config.folder_name, config.to_dict())
    command = attack_command("the run", attack.config, str(tmp_path))
    assert configuration(command, "attack_runs.attack_run") == config.to_dict()


def test_a_warm_start_goes_through_its_chain() -> None:
    config = AttackConfig(attack="center", epsilon=8 / 255, start_epsilons=(2 / 255, 4 / 255)).to_dict()
    assert "--epsilon 2/255,4/255,8/255 --warm-start " in attack_command("run", config, "results")


def test_audit(tmp_path: Path) -> None:
    run = Folder.create(tmp_path / "run", {"task": "finetune", **FinetuneConfig().to_dict()})
    Folder.create(tmp_path / "twin", {"task": "finetune", **FinetuneConfig(seed=1).to_dict()})
    asked = AuditConfig(
        control="twin", control_digest="abc", epsilon=4 / 255, queries=40, also=("hag", "sdha")
    )
    config = with_version(asked, "hashing")
    audit = Folder.create(run.path / "audits" / config.folder_name, config.to_dict())
    found = configuration(audit_command("run", audit.config, str(tmp_path)), "audit.runs.audit_run")
    # The twin is handed over as a folder.
    assert found | {"control": "twin", "control_digest": "abc"} == asked.to_dict()


def test_models_made_elsewhere_and_at_an_epoch_are_remarked() -> None:
    assert run_command("x", {"task": "foreign", "model": "a:b"}, "results") == "# a model made elsewhere: a:b"
    config = {"task": "finetune", "epoch": 3, "seed": 0}
    assert "taken at epoch 3 of that training" in run_command("name@epoch-003", config, "results")
