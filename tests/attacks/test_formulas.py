"""Objectives and guide codes against slow loops over the published formulas."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hashrobust.attacks import AttackContext, Clean, build_attack, center_codes

K = 10


def scores(codes: int = 5, seed: int = 0) -> tuple[Tensor, Clean]:
    generator = torch.Generator().manual_seed(seed)
    z0 = torch.randn(codes, K, generator=generator, dtype=torch.float64)
    u = torch.tanh(torch.randn(codes, K, generator=generator, dtype=torch.float64))
    images = torch.rand(codes, 1, 4, 4, generator=generator, dtype=torch.float64)
    return u.requires_grad_(True), Clean(images, z0, torch.where(z0 >= 0, 1.0, -1.0).double())


def table(rows: int = 30, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Codes with repeats and multi-hot labels of five classes, the last of which no code has."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.where(torch.rand(rows // 2, K, generator=generator) > 0.5, 1.0, -1.0).double()
    labels = (torch.rand(rows, 5, generator=generator) > 0.6).to(torch.uint8)
    labels[:, 4] = 0
    labels[labels.sum(dim=1) == 0, 0] = 1
    return torch.cat([codes, codes]), labels


def check(values: Tensor, reference: list[Tensor], u: Tensor) -> None:
    """Same values and same gradients."""
    expected = torch.stack(reference)
    torch.testing.assert_close(values, expected)
    ours, theirs = (torch.autograd.grad(v.sum(), u, retain_graph=True)[0] for v in (values, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("alpha", "size"), [(1.0, 1.0), ("A10", 0.01), ("auto", 5.0), ("auto", 1.0), ("auto", 0.01)]
)
def test_hag(alpha: float | str, size: float) -> None:
    u, clean = scores()
    clean = replace(clean, outputs=size * clean.outputs)
    reference = []
    for b in range(len(u)):
        total, balance, m = torch.zeros(()).double(), torch.zeros(()).double(), 0
        # As published u0 = tanh(z0), but for "auto" outputs that are small on the mean are taken as of size 1.
        mean = sum(abs(z) for z in clean.outputs[b].tolist()) / K
        scale = 1 / mean if alpha == "auto" and mean < 1 else 1.0
        for k in range(K):
            if abs(u[b, k].item() - clean.codes[b, k].item()) < 1.5:
                total = total + u[b, k] * math.tanh(scale * clean.outputs[b, k].item())
                balance = balance + u[b, k]
                m += 1
        reference.append((total / m + 1) ** 2 + 0.7 * (balance / K) ** 2)
    attack: Any = build_attack("hag", beta=0.7, alpha=alpha)
    check(attack.objective(u, clean.images, clean, {}), reference, u)


def test_hag_with_all_bits_done_is_zero_and_not_nan() -> None:
    _, clean = scores()
    u = (-clean.codes).requires_grad_(True)
    attack: Any = build_attack("hag")
    loss = attack.objective(u, clean.images, clean, {})
    assert torch.equal(loss, torch.zeros_like(loss))
    assert torch.autograd.grad(loss.sum(), u)[0].isfinite().all()
    assert attack.finished(u, clean, {}).all()
    assert not attack.finished(torch.full_like(u, float("nan")), clean, {}).any()


@pytest.mark.parametrize(
    ("name", "params", "targeted"),
    [("center", {}, False), ("center", {"targeted": True}, True), ("center-multi", {}, True)],
)
@pytest.mark.parametrize("loss", ["masked", "saat", "dot", "logit"])
def test_a_masked_loss_is_at_its_goal_where_its_gradient_is_zero(
    name: str, params: dict[str, bool], targeted: bool, loss: str
) -> None:
    attack: Any = build_attack(name, loss=loss, **params)
    _, clean = scores()
    goal = clean.codes if targeted else -clean.codes
    state = {"center": clean.codes}
    for u, there in (
        (0.6 * goal, loss in ("masked", "saat")),
        (0.4 * goal, False),
        (goal * torch.nan, False),
    ):
        u = u.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(attack.objective(u, clean.images, clean, state).sum(), u)
        assert attack.at_goal(u.detach(), clean, state).tolist() == [there] * len(u)
        assert not there or not gradient.any()


@pytest.mark.parametrize("weight", ["clamped", "smoothed", "targeted"])
def test_sdha(weight: str) -> None:
    targeted = weight == "targeted"
    u, clean = scores()
    codes, code_labels = table()
    labels = torch.eye(5, dtype=torch.uint8)
    labels[4] = labels[0] if targeted else labels[4]
    attack: Any = build_attack("sdha", **({"targeted": True} if targeted else {"weight": weight}))
    context = AttackContext(train_codes=codes, train_labels=code_labels, targets=labels)
    state = attack.prepare(clean.codes, labels, context)
    images = torch.rand_like(clean.images)
    reference = []
    for b in range(5):
        relevant = [r for r, own in zip(codes, code_labels, strict=True) if (own & labels[b]).any()]
        relevant = relevant or [clean.codes[b]]
        total = torch.zeros(()).double()
        for r in relevant:
            distance = sum(1 for k in range(K) if (1.0 if u[b, k].item() >= 0 else -1.0) != r[k].item())
            power = (max(distance, 1) if weight == "clamped" else distance + 1e-8) ** -0.5
            if targeted:
                gate = torch.sigmoid(-10 * u[b] * r)
                total = total - distance**0.3 * ((u[b] - r).abs() / 2 * gate).sum()
                continue
            gate = torch.sigmoid(5 * u[b] * r)
            total = total + power * (((u[b] - r).abs() / 2 * gate).sum() + (1 - gate).sum())
        mse = ((images[b] - clean.images[b]) ** 2).mean()
        reference.append(mse - 25 / K * total / len(relevant))
    assert len([b for b in range(5) if (code_labels & labels[b]).any()]) == (5 if targeted else 4)
    check(attack.objective(u, images, clean, state), reference, u)


@pytest.mark.parametrize("targeted", [False, True])
def test_sdha_theory_code_is_best_by_its_own_objective(targeted: bool) -> None:
    _, clean = scores()
    codes, code_labels = table()
    labels = torch.eye(5, dtype=torch.uint8)
    labels[4] = labels[0] if targeted else labels[4]
    attack: Any = build_attack("sdha", targeted=targeted)
    context = AttackContext(train_codes=codes, train_labels=code_labels, targets=labels)
    state = attack.prepare(clean.codes, labels, context)
    theory = attack.theory_codes(clean.codes, labels, context).double()
    found = attack.hard_objective(theory, clean, state)
    everything = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=K)), dtype=torch.float64)
    for b in range(5):
        one = Clean(clean.images[b : b + 1], clean.outputs[b : b + 1], clean.codes[b : b + 1])
        row = {"codes": state["codes"]} | {name: state[name][b : b + 1] for name in ("shares", "alone")}
        values = torch.stack([attack.hard_objective(code[None], one, row)[0] for code in everything])
        flips = theory[b].repeat(K, 1) * (1 - 2 * torch.eye(K, dtype=torch.float64))
        flipped = torch.stack([attack.hard_objective(code[None], one, row)[0] for code in flips])
        assert (flipped >= found[b] - 1e-9).all()
        # A climb may end on another hill, but not far below the summit.
        assert found[b] <= values.min() + 0.02 * values.min().abs()
    assert targeted or torch.equal(theory[4], -clean.codes[4])


def slow_center(label: Tensor, codes: Tensor, code_labels: Tensor, own: Tensor) -> Tensor:
    if not label.any():
        return own
    near, far, weights = torch.zeros(K).double(), torch.zeros(K).double(), [0.0, 0]
    for r, other in zip(codes, code_labels, strict=True):
        shared = float((label * other).sum())
        if shared > 0:
            cosine = shared / math.sqrt(float(label.sum()) * float(other.sum()))
            near, weights[0] = near + cosine * r, weights[0] + cosine
        else:
            far, weights[1] = far + r, weights[1] + 1
    difference = (near / weights[0] if weights[0] else near) - (far / weights[1] if weights[1] else far)
    return torch.where(difference >= 0, 1.0, -1.0).double()


def test_center_codes() -> None:
    _, clean = scores(6)
    codes, code_labels = table()
    labels = torch.tensor(
        [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]
    )
    got = center_codes(labels, codes, code_labels, fallback=clean.codes)
    expected = [slow_center(labels[b], codes, code_labels, clean.codes[b]) for b in range(6)]
    assert torch.equal(got, torch.stack(expected))
    assert torch.equal(got[4], clean.codes[4])


def test_center_code_of_a_tied_bit_is_plus_one() -> None:
    codes = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, -1.0]])
    got = center_codes(torch.ones(1, 1), codes, torch.ones(4, 1), fallback=torch.ones(1, 2))
    assert got.tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["masked", "dot", "logit", "saat"])
def test_center_losses(loss: str, targeted: bool) -> None:
    u, clean = scores()
    state = {"center": scores(seed=3)[1].codes}
    reference = []
    for b in range(len(u)):
        total, count = torch.zeros(()).double(), 0
        for k in range(K):
            s = u[b, k] * state["center"][b, k]
            if loss in ("dot", "logit"):
                total, count = total + (-s if targeted else s), count + 1
            elif not targeted and s > -0.5:
                total, count = total + s * (s + 2), count + 1
            elif targeted and s < 0.5:
                total, count = total + (-s * (s + 2) if loss == "saat" else s * (s - 2)), count + 1
        reference.append(total / count)
    attack: Any = build_attack("center", loss=loss, targeted=targeted)
    check(attack.objective(u, clean.images, clean, state), reference, u)
    assert (
        attack.objective(state["center"] * (1 if targeted else -1), clean.images, clean, state)
        .isfinite()
        .all()
    )


def test_published_targeted_loss_has_no_gradient_at_the_start_and_the_fixed_one_has() -> None:
    _, clean = scores()
    state = {"center": -clean.codes}
    for loss, vanishes in (("saat", True), ("masked", False), ("dot", False)):
        u = clean.codes.clone().requires_grad_(True)
        attack: Any = build_attack("center", loss=loss, targeted=True)
        value = attack.objective(u, clean.images, clean, state)
        gradient = torch.autograd.grad(value.sum(), u)[0]
        assert bool((gradient == 0).all()) == vanishes, loss


@pytest.mark.parametrize(("name", "votes"), [("p2p", 1), ("dhta", 9)])
def test_anchors(name: str, votes: int) -> None:
    u, clean = scores(40)
    codes, code_labels = table()
    targets = code_labels[:20].repeat(2, 1)
    attack: Any = build_attack(name)
    assert attack.anchors == votes
    context = AttackContext(
        database_codes=codes, database_labels=code_labels, targets=targets, sample_ids=torch.arange(40)
    )
    state = attack.prepare(clean.codes, None, context)
    check(
        attack.objective(u, clean.images, clean, state),
        [-(u[b] @ state["anchor"][b]) / K for b in range(40)],
        u,
    )
    for b in range(40):
        pool = codes[(code_labels == targets[b]).all(dim=1)]
        unanimous = (pool == pool[0]).all(dim=0)
        assert torch.equal(state["anchor"][b][unanimous], pool[0][unanimous])
        if votes == 1:
            assert (pool == state["anchor"][b]).all(dim=1).any()
    assert not torch.equal(state["anchor"][:20], state["anchor"][20:])
