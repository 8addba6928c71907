"""What a preset sets, and what fetching a dataset says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from hashrobust.experiments.config import BERRICHE2025


@pytest.fixture
def asked(monkeypatch):
    """The configurations that finetune asks the library for; nothing is trained."""
    from hashrobust.experiments import training_runs
    from hashrobust.experiments.store import Folder

    found = []

    def note(config, results, **options):
        found.append(config)
        return Folder.create(results / config.run_name, {"task": "finetune", **config.to_dict()})

    monkeypatch.setattr(training_runs, "finetune_run", note)
    return found


def test_preset_sets_what_was_not_given(cli, asked, tmp_path):
    outcome = cli(
        *("finetune", "--preset", "berriche2025", "--epochs", 3, "--learning-rate", "1e-4"),
        *("--param", "inner_scale=1", "--results", tmp_path),
    )
    assert outcome.code == 0 and "leaves unknown" in outcome.err
    (config,) = asked
    assert (config.epochs, config.learning_rate) == (3, 1e-4)  # as given, also where it is the default
    given = {"epochs", "learning_rate", "objective_params"}
    for name, value in BERRICHE2025.items():
        if name not in given:
            assert getattr(config, name) == value
    assert config.objective_params == {"quantization_weight": 0.01, "inner_scale": 1}


def test_parameters_win_over_the_preset(cli, asked, tmp_path):
    words = ["finetune", "--preset", "berriche2025", "-p", "quantization_weight=0.5", "--results", tmp_path]
    assert cli(*words).code == 0
    assert asked[0].objective_params == {"quantization_weight": 0.5}


def test_preset_gives_an_objective_only_what_it_takes(cli, asked, tmp_path):
    words = ["finetune", "--preset", "berriche2025", "--objective", "hyp2", "--results", tmp_path]
    assert cli(*words).code == 0
    assert asked[0].objective_params == {} and asked[0].weight_decay == 5e-4


def test_preset_of_a_classifier_is_that_of_a_study(cli, monkeypatch, tmp_path):
    from hashrobust.experiments import classifier_runs
    from hashrobust.experiments.store import Folder

    asked = []

    def note(config, results, **options):
        asked.append(config)
        return Folder.create(results / config.run_name, {"task": "classify", **config.to_dict()})

    monkeypatch.setattr(classifier_runs, "classify_run", note)
    words = ["finetune", "--task", "classification", "--results", tmp_path]
    assert cli(*words).code == cli(*words, "--preset", "berriche2025").code == 0
    plain, preset = asked
    assert (plain.head_learning_rate_factor, plain.learning_rate) == (1.0, 1e-4)
    assert (preset.head_learning_rate_factor, preset.learning_rate) == (10.0, 1e-5)


def test_several_seeds_are_several_runs(cli, asked, tmp_path):
    outcome = cli("finetune", "--seeds", "0-2", "--results", tmp_path)
    assert [config.seed for config in asked] == [0, 1, 2]
    assert len(outcome.out.splitlines()) == 3
    assert not math.isnan(asked[0].learning_rate)


def test_download_says_where_it_went(cli, monkeypatch, tmp_path):
    from hashrobust import datasets

    loaded = datasets.load_dataset("digits")
    asked = []

    def fetch(name, **options):
        asked.append((name, options["download"]))
        return loaded

    monkeypatch.setattr(datasets, "load_dataset", fetch)
    outcome = cli("data", "mnist", "--download", "--data-dir", tmp_path)
    assert outcome.code == 0 and asked == [("mnist", True)]
    assert str(tmp_path) in outcome.err


def test_failed_download_is_the_machines_fault(cli, monkeypatch, tmp_path):
    from hashrobust.datasets import mnist

    monkeypatch.setattr(mnist, "MNIST", replace(mnist.MNIST, mirrors=("http://127.0.0.1:1",)))
    outcome = cli("data", "mnist", "--download", "--data-dir", tmp_path)
    assert outcome.code == 1 and outcome.out == ""
    assert outcome.err.startswith("error: mnist could not be downloaded") and outcome.err.count("\n") == 1


def test_an_attack_preset_brings_its_epsilon_unless_one_is_given(cli, monkeypatch, tmp_path):
    from hashrobust.experiments import attack_runs, store

    asked = []
    monkeypatch.setattr(store, "find_run", lambda run, results: None)
    monkeypatch.setattr(attack_runs, "attack_cost", lambda run, config, **rest: asked.append(config) or "")
    base = ["attack", "some-run", "--attack", "hag", "--dry-run"]
    for words in (["--preset", "original"], ["--preset", "original", "--epsilon", "4/255"], []):
        assert cli(*base, *words).code == 0
    assert [config.epsilon for config in asked] == pytest.approx([10 / 255, 4 / 255, 8 / 255])
