"""The formulas that the other objectives state, written out image by image and bit by bit."""

from __future__ import annotations

import math
from itertools import permutations
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hashrobust.errors import InputError
from hashrobust.objectives import Objective, build_objective
from hashrobust.objectives.greedyhash import straight_through
from hashrobust.training import objective_for

BITS, CLASSES, SHARE = 6, 4, 0.3
weights = st.floats(0, 2)
scales = st.floats(0.05, 3)
margins = st.floats(-0.9, 0.9)


@st.composite
def batches(draw: st.DrawFn, *, single: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (B, BITS) and multi-hot labels (B, CLASSES); with `single` one label an image, else any number."""
    rows = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z = rng.normal(size=(rows, BITS)) * draw(st.floats(0.1, 3))
    labels = (rng.random((rows, CLASSES)) < 0.4).astype(int)
    if single:
        labels = np.eye(CLASSES, dtype=int)[rng.integers(CLASSES, size=rows)]
    return z, labels


def build(name: str, bits: int = BITS, **own: Any) -> Objective:
    torch.manual_seed(1)
    return build_objective(name, bits=bits, num_classes=CLASSES, similar_share=SHARE, **own).double()


def value(objective: Objective, z: np.ndarray, labels: np.ndarray) -> float:
    return float(objective(torch.tensor(z), torch.tensor(labels)).detach())


def mean(values: Any) -> float:
    values = list(values)
    return fmean(values) if values else 0.0


def share_a_label(a: np.ndarray, b: np.ndarray) -> int:
    return int(any(x and y for x, y in zip(a, b, strict=True)))


def pairs(labels: np.ndarray) -> list[tuple[int, int, int]]:
    """(i, j, S) for all ordered pairs of different images."""
    return [(i, j, share_a_label(labels[i], labels[j])) for i, j in permutations(range(len(labels)), 2)]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def to_corners(u: np.ndarray) -> float:
    """Mean over images of |u - sign u|^2."""
    return mean(sum((x - (1 if x >= 0 else -1)) ** 2 for x in row) for row in u)


examples = settings(max_examples=40, deadline=None)


@examples
@given(batches(), scales, weights)
def test_dsh(batch, share_of_margin, weight):
    z, labels = batch
    u, margin = np.tanh(z), 2 * BITS * share_of_margin
    contrast = []
    for i, j, s in pairs(labels):
        distance = sum((a - b) ** 2 for a, b in zip(u[i], u[j], strict=True))
        contrast.append(distance / 2 if s else max(0, margin - distance) / 2)
    expected = mean(contrast) + weight * mean(sum(abs(abs(x) - 1) for x in row) for row in u)
    assert value(build("dsh", margin=margin, quantization_weight=weight), z, labels) == pytest.approx(
        expected
    )


def test_the_margin_of_dsh_is_two_bits_a_bit():
    assert build_objective("dsh", bits=24, num_classes=4, similar_share=0.3).margin == 48


@examples
@given(batches(), scales, weights)
def test_dhn(batch, scale, weight):
    z, labels = batch
    u = np.tanh(z)
    likelihood = mean(
        s * scale * (u[i] @ u[j]) - softplus(scale * (u[i] @ u[j])) for i, j, s in pairs(labels)
    )
    quantization = mean(sum(math.log(math.cosh(abs(x) - 1)) for x in row) for row in u)
    objective = build("dhn", inner_scale=scale, quantization_weight=weight)
    assert value(objective, z, labels) == pytest.approx(-likelihood + weight * quantization)


def test_the_quantisation_of_dhn_draws_outputs_away_from_zero():
    """Where log cosh(|u|) - 1, as found elsewhere, draws them to it."""
    z = torch.tensor([[0.3, -0.3, 1.0, -1.0, 0.1, -0.1]], dtype=torch.float64, requires_grad=True)
    build("dhn", quantization_weight=1.0)(z, torch.tensor([0])).backward()
    assert (-z.grad * z.detach() > 0).all()


def wglhh_term(cos: float, similar: int, bits: int, scale: float) -> float:
    """The loss of one pair, before the weight of its kind."""
    x = scale * (bits * (1 - cos) / 2) ** 2
    hardness = math.exp(abs((1 + cos) / 2 - similar))
    apart = -(1 + math.exp(-x)) * softplus(-x) - x * math.exp(-x) + 2 * math.log(2)
    return hardness * (apart if similar else math.exp(-x))


@examples
@given(batches(), scales, weights)
def test_wglhh(batch, scale, weight):
    z, labels = batch
    u = np.tanh(z)
    likelihood = mean(
        (1 / SHARE if s else 1 / (1 - SHARE)) * wglhh_term(cosine(u[i], u[j]), s, BITS, scale)
        for i, j, s in pairs(labels)
    )
    objective = build("wglhh", gaussian_scale=scale, quantization_weight=weight)
    assert value(objective, z, labels) == pytest.approx(likelihood + weight * to_corners(u), abs=1e-12)


def pair_at(angle: torch.Tensor, bits: int) -> torch.Tensor:
    """Two outputs at an angle, as tanh gives them back."""
    u = 0.1 * F.one_hot(torch.zeros(2, dtype=torch.long), bits).double()
    turned = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.tensor([1.0, 0.0]).to(angle)])
    return torch.atanh(torch.cat([0.1 * turned, u[:, 2:]], dim=1))


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 0.9), st.sampled_from([12, 32, 64]))
def test_wglhh_joins_similar_images_however_near_and_parts_the_others(share, bits):
    """The published formula pushes similar images apart that differ by less than 10/bits bits."""
    objective = build("wglhh", bits=bits, quantization_weight=0.0)
    distance = share * 10  # in bits; beyond that all is flat
    angle = torch.tensor(math.acos(1 - 2 * distance / bits), dtype=torch.float64, requires_grad=True)
    for labels, towards in (([0, 0], 1), ([0, 1], -1)):
        loss = objective(pair_at(angle, bits), torch.tensor(labels))
        (slope,) = torch.autograd.grad(loss, angle)
        assert towards * slope > 0


def test_the_published_similar_part_of_wglhh_has_the_wrong_sign_for_near_images():
    def published(distance: float) -> float:
        cos = 1 - 2 * distance / 12
        return wglhh_term(cos, 1, 12, 0.1) - 2 * math.log(2) * math.exp(abs((1 + cos) / 2 - 1))

    assert published(0.5) < published(0.1)
    assert published(4) > published(2)


@examples
@given(batches(), margins)
def test_cel(batch, margin):
    z, labels = batch
    u = np.tanh(z)
    expected = mean(
        1 - cosine(u[i], u[j]) if s else max(0, cosine(u[i], u[j]) - margin) for i, j, s in pairs(labels)
    )
    assert value(build("cel", margin=margin), z, labels) == pytest.approx(expected, abs=1e-12)


@examples
@given(batches(), margins)
def test_cel_is_the_loss_of_torch(batch, margin):
    z, labels = batch
    found = pairs(labels)
    if not found:
        return
    u = torch.tanh(torch.tensor(z))
    first, second = u[[i for i, _, _ in found]], u[[j for _, j, _ in found]]
    signs = torch.tensor([1 if s else -1 for _, _, s in found])
    expected = F.cosine_embedding_loss(first, second, signs, margin=margin)
    assert value(build("cel", margin=margin), z, labels) == pytest.approx(float(expected), abs=1e-9)


@examples
@given(batches(), st.floats(0, 6), weights)
def test_dtsh(batch, margin, weight):
    z, labels = batch
    u = np.tanh(z)
    triplets = [
        softplus(-((u[q] @ u[p]) / 2 - (u[q] @ u[n]) / 2 - margin))
        for q, p, n in permutations(range(len(z)), 3)
        if share_a_label(labels[q], labels[p]) and not share_a_label(labels[q], labels[n])
    ]
    objective = build("dtsh", margin=margin, quantization_weight=weight)
    assert value(objective, z, labels) == pytest.approx(mean(triplets) + weight * to_corners(u))


def test_the_margin_of_dtsh_is_half_the_bits():
    assert build("dtsh", bits=32).margin == 16


def target_of(objective: Objective, labels: np.ndarray, bit: int) -> int:
    vote = sum(int(objective.centres[c, bit]) for c in range(CLASSES) if labels[c])
    return int(objective.tie_bits[bit]) if vote == 0 else int(math.copysign(1, vote))


@examples
@given(batches(), scales)
def test_dpn(batch, margin):
    z, labels = batch
    objective = build("dpn", margin=margin)
    hinges = [
        max(0, margin - z[i][k] * target_of(objective, labels[i], k))
        for i in range(len(z))
        for k in range(BITS)
        if labels[i].any()
    ]
    assert value(objective, z, labels) == pytest.approx(mean(hinges))


def test_dpn_leaves_outputs_alone_that_are_past_the_margin():
    objective = build("dpn")
    z = (1.01 * objective.centres[[1, 2]]).double().requires_grad_()
    loss = objective(z, torch.tensor([1, 2]))
    assert loss == 0 and not torch.autograd.grad(loss, z)[0].any()


@examples
@given(batches(), scales, st.floats(0, 1))
def test_orthohash(batch, scale, margin):
    z, labels = batch
    objective = build("orthohash", scale=scale, margin=margin)
    entropies = []
    for row, own in zip(z, labels, strict=True):
        logits = [
            scale * (cosine(row, objective.centres[c].numpy()) - margin * own[c]) for c in range(CLASSES)
        ]
        total = math.log(sum(map(math.exp, logits)))
        if own.any():
            entropies.append(sum(total - logits[c] for c in range(CLASSES) if own[c]) / sum(own))
    assert value(objective, z, labels) == pytest.approx(mean(entropies), abs=1e-9)


@examples
@given(batches(single=True), weights)
def test_greedyhash(batch, weight):
    z, labels = batch
    objective = build("greedyhash", quantization_weight=weight)
    classifier = objective.classifier.detach().numpy()
    entropies = []
    for row, own in zip(z, labels, strict=True):
        logits = [float(classifier[c] @ np.where(row >= 0, 1.0, -1.0)) for c in range(CLASSES)]
        entropies.append(math.log(sum(map(math.exp, logits))) - logits[int(own.argmax())])
    quantization = mean(abs(abs(x) - 1) ** 3 for x in z.ravel())
    assert value(objective, z, labels) == pytest.approx(mean(entropies) + weight * quantization)


@examples
@given(batches(single=True), weights)
def test_the_gradient_of_greedyhash_is_that_of_the_codes_and_of_the_quantisation(batch, weight):
    z, labels = torch.tensor(batch[0]), torch.tensor(batch[1])
    objective = build("greedyhash", quantization_weight=weight)
    codes = torch.where(z >= 0, 1.0, -1.0).double().requires_grad_()
    classification = F.cross_entropy(codes @ objective.classifier.T, labels.argmax(dim=1))
    (expected,) = torch.autograd.grad(classification, codes)
    expected = expected + 3 * weight * (z.abs() - 1) * (z.abs() - 1).abs() * z.sign() / z.numel()
    z = z.requires_grad_()
    (found,) = torch.autograd.grad(objective(z, labels), z)
    torch.testing.assert_close(found, expected)


def test_straight_through_gives_exact_signs():
    z = torch.tensor([[1e30, -1e-30, 0.0, -0.0, 3.0]])
    assert straight_through(z).tolist() == [[1, -1, 1, 1, 1]]


def test_greedyhash_learns_its_classifier_at_its_own_rate():
    objective = build("greedyhash", classifier_learning_rate=0.5)
    assert objective.own_learning_rate == 0.5
    assert [tuple(p.shape) for p in objective.parameters()] == [(CLASSES, BITS)]
    objective(torch.ones(2, BITS).double(), torch.tensor([0, 1])).backward()
    assert objective.classifier.grad.abs().sum() > 0


@pytest.mark.parametrize("count", [0, 2])
def test_data_without_exactly_one_label_an_image_are_refused_before_any_training(count):
    labels = torch.eye(CLASSES, dtype=torch.uint8)
    data = SimpleNamespace(
        classes=list("abcd"), similar_share=0.0, train=SimpleNamespace(labels=labels), multi_label=count > 1
    )
    assert objective_for(data, "greedyhash", 8, {}, seed=0).bits == 8
    labels[3] = torch.arange(CLASSES) < count
    assert objective_for(data, "csq", 8, {}, seed=0).bits == 8
    with pytest.raises(InputError, match=f"needs exactly one label an image, and here an image has {count}"):
        objective_for(data, "greedyhash", 8, {}, seed=0)
