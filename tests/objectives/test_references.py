"""Each objective against its formula written out pair by pair and bit by bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hashrobust.objectives import build_objective

BITS, CLASSES, SHARE = 8, 4, 0.3
CASES = [(seed, rows) for seed in range(4) for rows in (2, 5)]


def batch(seed: int, rows: int):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, BITS)) * 1.5, (rng.random((rows, CLASSES)) < 0.4).astype(int)


def build(name: str, **own):
    torch.manual_seed(1)
    return build_objective(name, bits=BITS, num_classes=CLASSES, similar_share=SHARE, **own).double()


def value(objective, z, labels, step=0) -> float:
    return float(objective(torch.tensor(z), torch.tensor(labels), step).detach())


def pairs(labels):
    """(i, j, S, w) for all ordered pairs of different images."""
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i != j:
                similar = int(any(a and b for a, b in zip(labels[i], labels[j], strict=True)))
                yield i, j, similar, similar / SHARE + (1 - similar) / (1 - SHARE)


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def cosine(a, b) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0


@pytest.mark.parametrize(("seed", "rows"), CASES)
@pytest.mark.parametrize("own", [{}, {"inner_scale": 1.0, "quantization_weight": 0.2}])
def test_dpsh(seed, rows, own):
    z, labels = batch(seed, rows)
    u = np.tanh(z)
    scale, weight = own.get("inner_scale", 0.5), own.get("quantization_weight", 0.01)
    likelihood = mean(
        s * scale * (u[i] @ u[j]) + log_sigmoid(-scale * (u[i] @ u[j])) for i, j, s, _ in pairs(labels)
    )
    quantization = mean(sum((x - math.copysign(1, x)) ** 2 for x in row) for row in u)
    assert value(build("dpsh", **own), z, labels) == pytest.approx(-likelihood + weight * quantization)


def test_dpsh_takes_the_sign_of_zero_as_plus_one():
    objective = build("dpsh", quantization_weight=1.0)
    z = torch.zeros(1, BITS, dtype=torch.float64, requires_grad=True)
    objective(z, torch.tensor([0])).backward()
    assert (z.grad == -2).all()


@pytest.mark.parametrize(("seed", "rows"), CASES)
@pytest.mark.parametrize("step", [0, 199, 200, 1700])
@pytest.mark.parametrize("own", [{}, {"inner_scale": 0.7, "continuation_steps": 50}])
def test_hashnet(seed, rows, step, own):
    z, labels = batch(seed, rows)
    u = np.tanh(math.sqrt(1 + math.floor(step / own.get("continuation_steps", 200))) * z)
    scale = own.get("inner_scale", 10 / BITS)
    expected = -mean(
        w * (s * scale * (u[i] @ u[j]) + log_sigmoid(-scale * (u[i] @ u[j]))) for i, j, s, w in pairs(labels)
    )
    assert value(build("hashnet", **own), z, labels, step) == pytest.approx(expected)


@pytest.mark.parametrize(("seed", "rows"), CASES)
@pytest.mark.parametrize("own", [{}, {"gamma": 3.0, "quantization_weight": 0.5}])
def test_dch(seed, rows, own):
    z, labels = batch(seed, rows)
    u = np.tanh(z)
    gamma, weight = own.get("gamma", 10.0), own.get("quantization_weight", 0.01)

    def distance(a, b) -> float:
        return BITS * (1 - cosine(a, b)) / 2

    likelihood = mean(
        w * (s * math.log(distance(u[i], u[j]) / gamma) + math.log(1 + gamma / distance(u[i], u[j])))
        for i, j, s, w in pairs(labels)
    )
    quantization = mean(math.log(1 + distance(abs(row), np.ones(BITS)) / gamma) for row in u)
    assert value(build("dch", **own), z, labels) == pytest.approx(likelihood + weight * quantization)


@pytest.mark.parametrize(("seed", "rows"), CASES)
@pytest.mark.parametrize("own", [{"margin": 0.1}, {"margin": -0.3, "pair_weight": 0.01}])
def test_hyp2(seed, rows, own):
    z, labels = batch(seed, rows)
    objective = build("hyp2", **own)
    u, proxies = np.tanh(z), np.tanh(objective.proxies.detach().numpy())
    margin = own["margin"]
    between = mean(max(0, cosine(u[i], u[j]) - margin) for i, j, s, _ in pairs(labels) if not s)
    cells = [(i, c) for i in range(rows) for c in range(CLASSES)]
    attract = mean(-cosine(u[i], proxies[c]) for i, c in cells if labels[i][c])
    repel = mean(max(0, cosine(u[i], proxies[c]) - margin) for i, c in cells if not labels[i][c])
    expected = own.get("pair_weight", 1.25) * between + attract + repel
    assert value(objective, z, labels) == pytest.approx(expected)


def test_hyp2_learns_its_proxies_at_their_own_rate():
    objective = build("hyp2")
    assert objective.own_learning_rate == 1e-3
    assert [tuple(p.shape) for p in objective.parameters()] == [(CLASSES, BITS)]
    z, labels = batch(0, 6)
    objective(torch.tensor(z), torch.tensor(labels)).backward()
    assert objective.proxies.grad.abs().sum() > 0
    assert build("hyp2", proxy_learning_rate=0.5).own_learning_rate == 0.5


@pytest.mark.parametrize("name", ["csq", "dch", "dpsh", "hashnet"])
def test_the_others_have_nothing_to_learn(name):
    assert build(name).own_learning_rate is None
    assert not list(build(name).parameters())


def test_hyp2_turns_with_its_proxies():
    """Permuting and flipping bits of outputs and proxies together changes nothing."""
    z, labels = batch(3, 6)
    objective = build("hyp2")
    before = value(objective, z, labels)
    order, signs = np.random.default_rng(0).permutation(BITS), np.array([1, -1] * (BITS // 2))
    with torch.no_grad():
        objective.proxies.copy_(objective.proxies[:, order] * torch.tensor(signs))
    assert value(objective, z[:, order] * signs, labels) == pytest.approx(before)


@pytest.mark.parametrize(("seed", "rows"), CASES)
@pytest.mark.parametrize("own", [{}, {"quantization_weight": 0.3}])
def test_csq(seed, rows, own):
    z, labels = batch(seed, rows)
    objective = build("csq", **own)
    centres, ties = objective.centres.numpy(), objective.tie_bits.numpy()
    u = np.tanh(z)
    entropies = []
    for i in range(rows):
        for k in range(BITS):
            vote = sum(centres[c][k] for c in range(CLASSES) if labels[i][c])
            target = ties[k] if vote == 0 else math.copysign(1, vote)
            if labels[i].any():
                entropies.append(-math.log((1 + u[i][k]) / 2 if target > 0 else 1 - (1 + u[i][k]) / 2))
    quantization = mean(sum((abs(x) - 1) ** 2 for x in row) for row in u)
    expected = mean(entropies) + own.get("quantization_weight", 1e-4) * quantization
    assert value(objective, z, labels) == pytest.approx(expected)
