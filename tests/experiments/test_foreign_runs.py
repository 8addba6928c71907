"""Models that were not made here: imported by name, wrapped alive, refused in one sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import hashrobust as hr
from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.attack_runs import attack_run
from hashrobust.experiments.config import AttackConfig
from hashrobust.experiments.foreign_runs import foreign_run, import_foreign, load_any
from hashrobust.experiments.retrieval_runs import encode_run, evaluate_run
from hashrobust.models import ForeignModel

SOURCE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12))

def fixed():
    torch.manual_seed(0)
    return net()

def broken():
    raise RuntimeError("no file")

def number():
    return 3

def nan():
    return lambda x: torch.full((len(x), 8), float("nan"))

def flat():
    return lambda x: x.flatten()

def colour():
    return nn.Conv2d(3, 4, 1)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "elsewhere.py").write_text(SOURCE)
    (tmp_path / "halfway.py").write_text("import torch\n\nnet = torch.nn.Conv2D\n")
    monkeypatch.chdir(tmp_path)
    yield "elsewhere"
    sys.modules.pop("elsewhere", None)


def imported(name: str, results: Path, **own: Any) -> Any:
    return import_foreign(name, "digits", results, image_size=8, **own)


def test_an_imported_model_is_a_run_like_any_other(module: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    save_file(net.state_dict(), weights)
    run = imported(f"{module}:net", tmp_path / "results", weights=weights)
    data = hr.load_dataset("digits", image_size=8)
    codes = encode_run(run)
    expected = torch.where(net(data.query.images) >= 0, 1, -1)
    assert torch.equal(torch.from_numpy(codes["query"].codes).long(), expected)
    assert 0 < evaluate_run(run)["map"] < 1
    attack = attack_run(run, AttackConfig(attack="center", epsilon=0.1, params={"steps": 5}, queries=20))
    found = attack.read_json("metrics.json", made_by="attack")
    assert found["map"] < found["clean_map"] and found["gradient_check_passed"]
    assert imported(f"{module}:net", tmp_path / "results", weights=weights).path == run.path


def test_changed_weights_are_noticed(module: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    save_file(nn.Sequential(nn.Flatten(), nn.Linear(64, 12)).state_dict(), weights)
    run = imported(f"{module}:net", tmp_path / "results", weights=weights)
    save_file(nn.Sequential(nn.Flatten(), nn.Linear(64, 12)).state_dict(), weights)
    with pytest.raises(StoreError, match=r"w\.safetensors' of run .* were changed: put them back"):
        load_any(run)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("elsewhere", "is not of the form package.module:factory"),
        ("nowhere:net", "module 'nowhere' cannot be imported"),
        ("elsewhere:nothing", "module 'elsewhere' has no 'nothing'"),
        ("halfway:net", "module 'halfway' cannot be imported (AttributeError: "),
        ("elsewhere:broken", "factory 'elsewhere:broken' fails (RuntimeError: no file)"),
        ("elsewhere:number", "makes a int: it must return a model"),
        ("elsewhere:nan", "answers random images in [0, 1] with NaN or infinity"),
        ("elsewhere:flat", "it must give outputs of shape (2, bits)"),
        ("elsewhere:colour", "the model fails on images of shape (2, 1, 8, 8)"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    module: str, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        imported(name, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_weights_that_do_not_fit_are_refused(module: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    save_file({"other": torch.zeros(2)}, weights)
    with pytest.raises(InputError, match="do not fit the model"):
        imported(f"{module}:net", tmp_path, weights=weights)
    with pytest.raises(InputError, match="have nowhere to go"):
        imported(f"{module}:nan", tmp_path, weights=weights)


def test_answers_of_another_length_than_the_first_are_refused() -> None:
    lengths = iter((8, 8, 9))
    model = ForeignModel(lambda images: torch.ones(len(images), next(lengths)), (1, 4, 4))
    assert model.encode(torch.zeros(3, 1, 4, 4)).shape == (3, model.bits)
    with pytest.raises(InputError, match=re.escape("shape (3, 9): it must give outputs of shape (3, 8)")):
        model.encode(torch.zeros(3, 1, 4, 4))


def test_outputs_that_turn_into_nan_are_refused_when_encoded(tmp_path: Path) -> None:
    data = hr.load_dataset("digits", image_size=8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))

    def model(images: torch.Tensor) -> torch.Tensor:
        z = net(images)
        return torch.where(images.flatten(1).amax(1, keepdim=True) > 0.99, torch.nan, z) if len(z) > 50 else z

    run, wrapped = foreign_run(model, data, tmp_path)
    with pytest.raises(InputError, match=r"NaN or infinite for \d+ of \d+ images"):
        encode_run(run, data=data, model=wrapped)


def test_another_model_under_the_same_name_gets_another_folder(tmp_path: Path) -> None:
    data = hr.load_dataset("digits", image_size=8)

    def run(seed: int) -> Path:
        torch.manual_seed(seed)
        return foreign_run(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), data, tmp_path, name="m")[0].path

    assert run(0) == run(0) != run(1)
    with pytest.raises(StoreError, match="was given in Python"):
        load_any(foreign_run(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), data, tmp_path)[0])


def test_a_module_trained_a_little_more_is_another_model(tmp_path: Path) -> None:
    """Its codes may differ where nobody looked: those that are stored must not be taken for its own."""
    data = hr.load_dataset("digits", image_size=8)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    before, wrapped = foreign_run(net, data, tmp_path)
    stored = encode_run(before, data=data, model=wrapped)["database"].codes
    with torch.no_grad():
        net[1].weight += 5e-4 * torch.randn(8, 64)
    after, wrapped = foreign_run(net, data, tmp_path)
    assert before.config["codes_digest"] == after.config["codes_digest"]
    assert before.config["gradient_digest"] == after.config["gradient_digest"]
    assert (wrapped.encode(data.database).numpy() != stored).any()
    assert before.path != after.path


def test_a_factory_that_makes_another_model_than_was_imported_is_refused(module: str, tmp_path: Path) -> None:
    assert load_any(imported(f"{module}:fixed", tmp_path / "results")).bits == 12
    run = imported(f"{module}:net", tmp_path / "results")
    with pytest.raises(StoreError, match=r"'elsewhere:net' makes another model than .*: give its weights"):
        load_any(run)


class _NoBackward(torch.autograd.Function):
    """The same forward pass, nothing sent back."""

    @staticmethod
    def forward(context: Any, z: torch.Tensor) -> torch.Tensor:
        return z.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return 0 * gradient


def test_equal_answers_with_another_backward_pass_are_another_model(tmp_path: Path) -> None:
    data = hr.load_dataset("digits", image_size=8)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
    plain, again = (foreign_run(net, data, tmp_path)[0] for _ in range(2))
    masked, _ = foreign_run(lambda images: _NoBackward.apply(net(images)), data, tmp_path)
    assert plain.path == again.path != masked.path
    assert plain.config["codes_digest"] == masked.config["codes_digest"]
    assert masked.config["gradient_digest"] == "zero"


@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_another_backward_pass_is_noticed_however_large_outputs_are(tmp_path: Path, factor: float) -> None:
    data = hr.load_dataset("digits", image_size=8)
    torch.manual_seed(0)
    weight = factor * torch.randn(64, 16)

    def plain(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ weight

    def masked(images: torch.Tensor) -> torch.Tensor:
        z = plain(images)
        return torch.cat([z[:, :8].detach(), z[:, 8:]], dim=1)

    before, after = (foreign_run(model, data, tmp_path)[0] for model in (plain, masked))
    assert before.config["codes_digest"] == after.config["codes_digest"]
    assert before.config["gradient_digest"] != after.config["gradient_digest"]
    assert before.path != after.path


def test_a_plain_callable_is_attacked_and_its_check_is_skipped_where_float64_fails(tmp_path: Path) -> None:
    data = hr.load_dataset("digits", image_size=8)
    weight = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    report = hr.audit(
        lambda images: images.flatten(1) @ weight, data, results=tmp_path,
        budget="quick", epsilon=0.1, queries=8, steps=5, search=10,
    )  # fmt: skip
    assert report.status("finite differences") == "SKIP" and report.status("control") == "SKIP"
    assert report.verdict in ("INCOMPLETE", "FAIL") and report.headline["worst_map"] > 0
