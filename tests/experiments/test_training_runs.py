from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hashrobust.datasets import load_dataset
from hashrobust.errors import InputError, StoreError, TrainingError
from hashrobust.experiments import environment, trained_runs, training_runs
from hashrobust.experiments.checksums import read_times
from hashrobust.experiments.config import PretrainConfig
from hashrobust.experiments.store import Folder
from hashrobust.experiments.trained_runs import load_run
from hashrobust.experiments.training_runs import finetune_run, pretrain_run, resolve_weights
from hashrobust.models import load_model, load_tensors
from hashrobust.rules import feedback_state, rule_of

PRETRAIN = PretrainConfig(image_size=16, epochs=2, batch_size=100, threads=1)


class Lines:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def track(self, *args: Any, **kwargs: Any) -> Any:
        from hashrobust.progress import Silent

        return Silent().track("", 0, "")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return pretrain_run(PRETRAIN, tmp_path_factory.mktemp("pretrained"))


def test_a_finished_run_holds_what_the_conventions_say(made: Folder) -> None:
    names = {"config.toml", "environment.json", "conversion.json", "history.csv", "alignment.csv",
             "model.safetensors", "feedback.safetensors", "codes.npz", "index.faiss", "metrics.json"}  # fmt: skip
    assert {name for name in made.checksums if "/" not in name} == names and made.damaged() == []
    facts = made.read_json("environment.json", made_by="finetune")
    assert facts["threads"] == 1
    assert facts["data_fingerprint"] == load_dataset("digits", image_size=16).fingerprint
    assert {"python", "torch", "numpy", "hashrobust"} <= set(facts["versions"])
    times, _ = read_times(made.path / "timing.json")
    assert times["training_seconds"] > 0
    history = made.read_table("history.csv", made_by="finetune")
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["validation_map"].iloc[-1] > history["validation_map"].iloc[0]


def test_the_model_of_a_run_follows_its_rule(made: Folder) -> None:
    model = load_run(made)
    assert rule_of(model) == "frsf" and not model.training
    stored, _ = load_tensors(made.path / "feedback.safetensors")
    own = feedback_state(model)
    assert stored.keys() == own.keys() and all(torch.equal(own[name], stored[name]) for name in stored)


def test_asking_again_does_nothing(
    run: Folder, small: Any, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    before, lines = contents(run.path), Lines()
    with run.lock():  # nor does it need the folder for itself
        again = finetune_run(small.finetune(rule="frsf"), run.path.parent, progress=lines)
    assert again.path == run.path and lines.said == [f"{run.name} is done already"]
    assert contents(run.path) == before


def test_overwriting_makes_the_same_run_without_what_followed(
    run: Folder, small: Any, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    before = contents(run.path)
    again = finetune_run(small.finetune(rule="frsf"), run.path.parent, overwrite=True)
    after = contents(again.path)
    for name in ("model.safetensors", "feedback.safetensors", "history.csv", "alignment.csv"):
        assert after[name] == before[name]
    assert not {"metrics.json", "index.faiss"} & set(after) and again.attacks() == []


def test_a_run_in_use_is_not_overwritten(run: Folder, small: Any) -> None:
    with run.lock(), pytest.raises(StoreError, match="in use by another process"):
        finetune_run(small.finetune(rule="frsf"), run.path.parent, overwrite=True)
    assert run.has("model.safetensors", "metrics.json")


@pytest.mark.parametrize("matched", ["xavier", "matched"])
def test_brsf_and_its_scale_come_back(matched: str, small: Any, tmp_path: Path) -> None:
    run = finetune_run(small.finetune(rule="brsf", feedback_scale=matched, epochs=1), tmp_path)
    stored, _ = load_tensors(run.path / "feedback.safetensors")
    own = feedback_state(load_run(run))
    assert own.keys() == stored.keys() and all(torch.equal(own[name], stored[name]) for name in stored)
    assert ("head.norm" in stored) == (matched == "matched")


def test_threads_are_applied_recorded_and_given_back(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = torch.get_num_threads(), []

    def stop(*args: Any, **kwargs: Any) -> Any:
        seen.append(torch.get_num_threads())
        raise KeyboardInterrupt

    monkeypatch.setattr(training_runs, "finetune", stop)
    config = small.finetune(threads=before + 1)
    with pytest.raises(KeyboardInterrupt):
        finetune_run(config, tmp_path)
    assert seen == [before + 1] and torch.get_num_threads() == before
    run = Folder.open(tmp_path / config.run_name)
    assert run.read_json("environment.json", made_by="finetune")["threads"] == before + 1


def test_a_pretrained_run_starts_a_finetuned_one(pretrained: Folder, small: Any, tmp_path: Path) -> None:
    results = pretrained.path.parent
    assert pretrained.read_json("metrics.json", made_by="pretrain")["train_accuracy"] > 0.15
    config = small.finetune(weights="run:digits-lenet-pre", epochs=1, learning_rate=1e-9)
    run = finetune_run(config, results)
    assert run.config["weights"] == f"run:{pretrained.name}"
    assert run.config["weights_digest"] == pretrained.checksums["model.safetensors"]
    before, _ = load_tensors(pretrained.path / "model.safetensors")
    after, _ = load_tensors(run.path / "model.safetensors")
    body = [name for name in before if not name.startswith("head.")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in body)
    with pytest.raises(StoreError, match="holds a classifier, no hashing model"):
        load_run(pretrained)


def test_the_seed_changes_start_and_feedback(small: Any, tmp_path: Path) -> None:
    first, second = (
        finetune_run(small.finetune(rule="fa", epochs=1, learning_rate=1e-9, seed=seed), tmp_path)
        for seed in (1, 2)
    )
    for name in ("model.safetensors", "feedback.safetensors"):
        one, two = (load_tensors(run.path / name)[0] for run in (first, second))
        key = "head.weight" if name.startswith("model") else "head"
        assert not torch.allclose(one[key], two[key], atol=1e-3)


def test_weights_that_are_no_run_and_no_file(small: Any, pretrained: Folder, tmp_path: Path) -> None:
    config = small.finetune()
    for weights, message in {
        "imagnet": "'imagnet' are no file: give none, imagenet, run:NAME, a run's folder or a safetensors file",
        "run:": "name of a run is empty",
        "run:typo": "no run 'typo'",
    }.items():
        with pytest.raises(InputError, match=message):
            resolve_weights(replace(config, weights=weights), pretrained.path.parent)
    with pytest.raises(InputError, match="backbone lenet, and this one has backbone resnet20"):
        finetune_run(
            replace(config, backbone="resnet20", weights="run:digits-lenet-pre"), pretrained.path.parent
        )
    unfinished = Folder.create(tmp_path / "half", {"task": "pretrain"})
    with pytest.raises(StoreError, match=r"has no model\.safetensors yet: run `hashrobust pretrain` first"):
        resolve_weights(replace(config, weights=f"run:{unfinished.path}"), tmp_path)


def test_plain_weights_from_a_file(pretrained: Folder, small: Any, tmp_path: Path) -> None:
    state = load_model(pretrained.path / "model.safetensors").backbone.state_dict()
    save_file(state, tmp_path / "plain.safetensors")
    run = finetune_run(
        small.finetune(weights=str(tmp_path / "plain.safetensors"), epochs=1, learning_rate=1e-9),
        tmp_path / "r",
    )
    after, _ = load_tensors(run.path / "model.safetensors")
    assert torch.allclose(after["backbone.conv1.weight"], state["conv1.weight"], atol=1e-6)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"rule": "frfs"}, "did you mean 'frsf'"),
        ({"backbone": "lent"}, "did you mean 'lenet'"),
        ({"dataset": "digit"}, "did you mean 'digits'"),
        ({"objective": "cqs"}, "did you mean 'csq'"),
        ({"objective_params": {"lamda": 1}}, "has no parameter 'lamda'"),
        ({"objective_params": {"bits": 1}}, "'bits' follows from the model"),
        ({"weights": "nowhere"}, "are no file"),
        ({"weights": "imagenet"}, "no ImageNet weights"),
    ],
)
def test_wrong_names_leave_no_folder(own: dict[str, Any], message: str, small: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        finetune_run(small.finetune(**own), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_loss_that_is_not_a_number_fails_and_fails_again(small: Any, tmp_path: Path) -> None:
    config = small.finetune(objective="dpsh", learning_rate=1e30)
    for _ in range(2):
        with pytest.raises(TrainingError, match="at epoch 1") as caught:
            finetune_run(config, tmp_path)
        assert caught.value.exit_code == 1
    run = Folder.open(tmp_path / config.run_name)
    assert not run.has("model.safetensors")
    with pytest.raises(StoreError, match="run `hashrobust finetune` first"):
        load_run(run)


def test_the_last_good_checkpoint_is_kept_and_taken_up(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hashrobust.objectives.csq import CSQ

    healthy = CSQ.loss
    monkeypatch.setattr(
        CSQ, "loss", lambda self, z, y, step: healthy(self, z, y, step) * (float("nan") if step > 12 else 1)
    )
    with pytest.raises(TrainingError, match="at epoch 2, step 13; the last good epoch is 1"):
        finetune_run(small.finetune(), tmp_path)
    (path,) = tmp_path.iterdir()
    assert [file.name for file in sorted((path / "checkpoints").iterdir())] == [
        "epoch-001.safetensors",
        "state.safetensors",
    ]
    load_model(path / "checkpoints" / "epoch-001.safetensors")
    monkeypatch.setattr(CSQ, "loss", healthy)
    lines = Lines()
    run = finetune_run(small.finetune(), tmp_path, progress=lines)
    assert not any("epoch 1:" in line for line in lines.said)
    fresh = finetune_run(small.finetune(), tmp_path / "fresh")
    assert (run.path / "model.safetensors").read_bytes() == (fresh.path / "model.safetensors").read_bytes()


def test_a_damaged_checkpoint_says_so(small: Any, tmp_path: Path) -> None:
    config = small.finetune()
    folder = Folder.create(tmp_path / config.run_name, {"task": "finetune", **config.to_dict()})
    (folder.path / "checkpoints").mkdir()
    (folder.path / "checkpoints" / "state.safetensors").write_bytes(b"half")
    with pytest.raises(StoreError, match=r"state\.safetensors' is damaged: start anew with --overwrite"):
        finetune_run(config, tmp_path)
    assert finetune_run(config, tmp_path, overwrite=True).has("model.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "feedback.safetensors"])
def test_models_that_were_changed_are_not_loaded(run: Folder, name: str) -> None:
    content = bytearray((run.path / name).read_bytes())
    content[-1] ^= 1
    (run.path / name).write_bytes(content)
    with pytest.raises(StoreError, match=r"does not match its checksum.*`hashrobust finetune --overwrite`"):
        load_run(run)


def test_data_that_changed_are_noticed(run: Folder, small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = trained_runs.load_dataset
    monkeypatch.setattr(
        trained_runs,
        "load_dataset",
        lambda *args, **kwargs: replace(original(*args, **kwargs), fingerprint="other"),
    )
    with pytest.raises(StoreError, match=r"was made with other data .*now other.*--overwrite"):
        trained_runs.load_run_data(run)
    with pytest.raises(StoreError, match="was made with other data"):
        finetune_run(small.finetune(rule="frsf"), run.path.parent)


def test_devices_that_are_not_there(small: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device 'abacus' is not there"):
        environment.choose_device("abacus")
    assert environment.choose_device("cpu") == torch.device("cpu")
