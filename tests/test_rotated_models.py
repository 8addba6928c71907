"""Hashing models whose outputs are rotated: one model, with one description and exact gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hashrobust.errors import InputError
from hashrobust.models import HashModel, attackable, load_model, load_tensors, load_weights, save_model
from hashrobust.rules import alignment, convert, exact_gradient


def turned(size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    matrix: Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
    return matrix


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def hash_model(bits: int = 12) -> HashModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HashModel("lenet", bits, image_size=16).eval()


def rotated_model(bits: int = 12) -> HashModel:
    model = hash_model(bits)
    model.rotate(turned(bits), "itq")
    return model


def test_outputs_are_turned_and_codes_are_their_signs(images: Tensor) -> None:
    plain, model = hash_model(), rotated_model()
    z = plain.outputs(images) @ turned(12)
    torch.testing.assert_close(model.outputs(images), z)
    assert torch.equal(model.encode(images), torch.where(model.outputs(images) >= 0, 1, -1).to(torch.int8))
    assert not torch.equal(model.encode(images), plain.encode(images))


def test_a_second_rotation_follows_the_first(images: Tensor) -> None:
    model = rotated_model()
    model.rotate(turned(12, seed=1), "h2q")
    torch.testing.assert_close(
        model.outputs(images), hash_model().outputs(images) @ turned(12) @ turned(12, 1)
    )
    assert model.spec["rotation"] == "h2q"


@pytest.mark.parametrize(
    "wrong", [torch.eye(11), torch.ones(12, 12), 2 * torch.eye(12), torch.eye(12) * torch.nan]
)
def test_what_is_no_rotation_is_refused(wrong: Tensor) -> None:
    model = hash_model()
    with pytest.raises(InputError, match="is not orthogonal: give an orthogonal"):
        model.rotate(wrong, "mine")
    assert "rotation" not in model.spec


def test_codes_come_back_from_a_file(images: Tensor, tmp_path: Path) -> None:
    model, path = rotated_model(), tmp_path / "model.safetensors"
    save_model(model, path)
    back = load_model(path)
    assert isinstance(back, HashModel) and back.spec == model.spec and back.spec["rotation"] == "itq"
    assert torch.equal(back.outputs(images), model.outputs(images))
    save_model(back, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_models_without_rotation_are_stored_as_before(tmp_path: Path) -> None:
    save_model(hash_model(), tmp_path / "model.safetensors")
    tensors, spec = load_tensors(tmp_path / "model.safetensors")
    assert spec.keys() == {"kind", "backbone", "outputs", "channels", "image_size"}
    assert not [name for name in tensors if "rotation" in name]


def test_a_rotation_does_not_go_over_to_a_model_that_starts_from_it(images: Tensor, tmp_path: Path) -> None:
    model, path = rotated_model(), tmp_path / "model.safetensors"
    save_model(model, path)
    fresh = hash_model()
    assert "rotation.matrix" in load_weights(fresh, path, head=True)
    torch.testing.assert_close(fresh.outputs(images) @ turned(12), model.outputs(images))


def test_rules_leave_the_rotation_to_its_exact_derivative(images: Tensor) -> None:
    """The error reaches the hash layer through R^T, and goes on from there by the rule."""
    plain, model = hash_model(), rotated_model()
    for network in (plain, model):
        report = convert(network, "frsf", seed=1, probe=images)
        assert report.left == {} and "rotation" not in report.converted
    assert [layer.layer for layer in alignment(model)] == [layer.layer for layer in alignment(plain)]
    weights = torch.randn(6, 12, generator=torch.Generator().manual_seed(2))

    def slope(network: HashModel, error: Tensor) -> Tensor:
        x = images.clone().requires_grad_()
        return torch.autograd.grad((network(x) * error).sum(), x)[0]

    torch.testing.assert_close(slope(model, weights), slope(plain, weights @ turned(12).T))
    with exact_gradient(model):
        exact = slope(model, weights)
    assert not torch.allclose(exact, slope(model, weights))


def test_the_attackable_copy_is_rotated_too(images: Tensor) -> None:
    model = rotated_model()
    torch.testing.assert_close(attackable(model)(images), model(images), atol=1e-6, rtol=1e-4)
