"""`tha` and its PrototypeNet: label vectors to codes, then an attack toward them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hashrobust.attacks import AttackContext, build_attack, center_codes
from hashrobust.attacks._prototypes import prototype_loss, train_prototypes
from hashrobust.errors import InputError
from hashrobust.metrics import average_precision

SHORT: dict[str, Any] = {"steps": 12, "epsilon": 0.1, "prototype_steps": 10}


def toy(*, multi: bool, rows: int = 240, classes: int = 6, bits: int = 16) -> tuple[Tensor, Tensor]:
    """Codes that follow their labels through noise, and the labels."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.eye(classes)[torch.arange(rows) % classes]
    if multi:
        labels = ((labels + torch.rand(rows, classes, generator=generator)) > 0.8).float()
    scores = labels @ torch.randn(classes, bits, generator=generator)
    codes = torch.where(scores + torch.randn(rows, bits, generator=generator) >= 0, 1.0, -1.0)
    return codes, labels.to(torch.uint8)


def slow_loss(prototype: Tensor, codes: Tensor, shared: Tensor) -> float:
    similar = [float(prototype @ code) / len(code) for code in codes]
    away = [max(s + 2, 0) * s for s, own in zip(similar, shared, strict=True) if not own]
    toward = [-max(2 - s, 0) * s for s, own in zip(similar, shared, strict=True) if own]
    total = sum(math.log(sum(math.exp(term) for term in side)) for side in (away, toward) if side)
    quantization = sum((abs(float(p)) - 1) ** 2 for p in prototype)
    return math.log1p(math.exp(total)) + 1e-4 * quantization


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.sampled_from([0.0, 0.3, 1.0]))
def test_loss_is_the_formula_and_pulls_the_right_way(seed: int, rows: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    prototype = (2 * torch.rand(1, 8, generator=generator, dtype=torch.float64) - 1) * 0.9
    codes = torch.where(torch.rand(rows, 8, generator=generator) > 0.5, 1.0, -1.0).double()
    shared = torch.rand(1, rows, generator=generator) < share
    loss = prototype_loss(prototype, codes, shared)
    assert loss.item() == pytest.approx(slow_loss(prototype[0], codes, shared[0]), rel=1e-9)

    # The slope by each code's similarity, got by giving each code a prototype of its own.
    copies = prototype.repeat(rows, 1).requires_grad_(True)
    for row in range(rows):
        gradient = torch.autograd.grad(
            prototype_loss(copies[row : row + 1], codes[row : row + 1], shared[:, row : row + 1]).sum(),
            copies,
        )[0][row]
        quantization = 2e-4 * (copies[row] - copies[row].sign()).detach()
        slope = float((gradient - quantization) @ codes[row])
        assert slope < 0 if shared[0, row] else slope > 0


@pytest.mark.parametrize("side", [True, False])
def test_loss_without_one_side_has_a_gradient(side: bool) -> None:
    prototype = (0.1 * torch.randn(2, 8)).requires_grad_(True)
    codes = torch.where(torch.randn(5, 8) > 0, 1.0, -1.0)
    prototype_loss(prototype, codes, torch.full((2, 5), side)).sum().backward()
    assert prototype.grad is not None and prototype.grad.isfinite().all() and (prototype.grad != 0).any()


@pytest.mark.parametrize("multi", [False, True])
def test_prototypes_rank_as_well_as_center_codes(multi: bool) -> None:
    codes, labels = toy(multi=multi)
    vectors = torch.unique(labels, dim=0)
    network = train_prototypes(codes, labels, steps=30, learning_rate=1e-3, seed=0)
    prototypes = torch.where(network(vectors.float()) >= 0, 1.0, -1.0)
    centers = center_codes(vectors, codes, labels, fallback=torch.ones(len(vectors), codes.shape[1]))
    reached, center, worst = (
        float(np.mean(average_precision(queries, codes, vectors, labels)))
        for queries in (prototypes, centers, -centers)
    )
    assert reached > center - 0.01 and reached > worst + 0.2


def test_many_label_vectors_go_in_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(200, 12, generator=generator) > 0.7).to(torch.uint8)
    codes = torch.where(torch.randn(200, 8, generator=generator) > 0, 1.0, -1.0)
    one, two = (train_prototypes(codes, labels, steps=2, learning_rate=1e-3, seed=5) for _ in range(2))
    other = train_prototypes(codes, labels, steps=2, learning_rate=1e-3, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one[0].weight, other[0].weight)


def test_training_leaves_the_global_random_state_alone(scene: Any) -> None:
    state = torch.random.get_rng_state()
    attack = build_attack("tha", **SHORT)
    fitted = attack.fit(scene.model, scene.context)
    attack(scene.model, scene.images, context=replace(scene.context, fitted=fitted))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_moves_toward_the_prototype(scene: Any) -> None:
    attack = build_attack("tha", **SHORT)
    context = replace(scene.context, fitted=attack.fit(scene.model, scene.context))
    result = attack.run(scene.model, scene.images, context=context)
    codes = torch.where(scene.model(result.images) >= 0, 1.0, -1.0)
    clean = torch.where(scene.model(scene.images) >= 0, 1.0, -1.0)
    prototypes = attack.theory_codes(clean, None, context)
    assert prototypes is not None
    torch.testing.assert_close(result.objective, -(codes * prototypes).mean(dim=1))
    assert (result.objective < result.clean_objective).float().mean() > 0.8
    assert (codes * prototypes).mean() > (clean * prototypes).mean() + 0.1


def test_the_same_target_has_the_same_prototype_and_needs_no_model(scene: Any) -> None:
    attack = build_attack("tha", **SHORT)
    context = replace(scene.context, targets=torch.tensor([0, 1, 0, 1, 2, 3]))
    codes = torch.ones(6, 12)
    anew = attack.theory_codes(codes, None, context)
    handed = attack.theory_codes(codes, None, replace(context, fitted=attack.fit(scene.model, context)))
    assert anew is not None and handed is not None and torch.equal(anew, handed)
    assert torch.equal(anew[0], anew[2]) and torch.equal(anew[1], anew[3])
    assert len(torch.unique(anew, dim=0)) > 1


def test_classes_that_no_training_image_has_do_not_matter(scene: Any) -> None:
    attack = build_attack("tha", **SHORT)
    hot = torch.nn.functional.one_hot
    wide = replace(
        scene.context,
        train_labels=hot(scene.context.train_labels, 9),
        database_labels=None,
        database_codes=None,
    )
    narrow = attack.fit(scene.model, scene.context)
    assert all(torch.equal(tensor, narrow[name]) for name, tensor in attack.fit(scene.model, wide).items())
    targets = hot(torch.tensor([0, 1, 2, 3, 0, 1]), 9)
    more = targets.clone()
    more[:, 7] = 1
    first, second = (
        attack.theory_codes(torch.ones(6, 12), None, replace(wide, targets=given, fitted=narrow))
        for given in (targets, more)
    )
    assert first is not None and second is not None and torch.equal(first, second)
    with pytest.raises(InputError, match="without any label that a training image has"):
        attack(scene.model, scene.images, context=replace(wide, targets=hot(torch.full((6,), 7), 9)))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"prototype_steps": 0}, "prototype_steps is 0"),
        ({"prototype_steps": 2.5}, "prototype_steps of attack tha is 2.5"),
        ({"prototype_rate": 0.0}, "prototype_rate 0 learns nothing"),
        ({"steps": 1, "step_size": 1e-4}, "cannot cross"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build_attack("tha", **wrong)


def test_what_does_not_fit_is_refused(scene: Any) -> None:
    attack = build_attack("tha", **SHORT)
    fitted = attack.fit(scene.model, replace(scene.context, train_labels=torch.arange(40) % 3))
    with pytest.raises(InputError, match="weights 'prototype' of other shapes"):
        attack(scene.model, scene.images, context=replace(scene.context, fitted=fitted))
    blank = AttackContext(train_codes=scene.context.train_codes, train_labels=torch.zeros(40, 4).byte())
    with pytest.raises(InputError, match="train_labels hold no label"):
        attack.fit(scene.model, blank)


def test_fitting_leaves_the_random_state_of_every_device_alone(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a device was seeded"))
    state = torch.get_rng_state()
    build_attack("tha", prototype_steps=1).fit(scene.model, scene.context)
    assert torch.equal(torch.get_rng_state(), state)
