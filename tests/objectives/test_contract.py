"""What every registered objective promises."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hashrobust.errors import InputError, UnknownNameError
from hashrobust.objectives import Objective, build_objective, objectives

PAIRWISE = ("cel", "dch", "dhn", "dpsh", "dsh", "hashnet", "wglhh")
TRIPLETS = ("dtsh",)
CENTRED = ("csq", "dpn", "greedyhash", "hyp2", "orthohash")
"""Whose classes have a centre, fixed or learnt, that images are drawn to."""
SINGLE_LABEL = ("greedyhash",)
NAMES = (*PAIRWISE, *TRIPLETS, *CENTRED)
BITS, CLASSES = 16, 4
every_objective = pytest.mark.parametrize("name", NAMES)


def build(name: str, bits: int = BITS, classes: int = CLASSES, share: float = 0.3) -> Objective:
    torch.manual_seed(5)
    return build_objective(name, bits=bits, num_classes=classes, similar_share=share).double()


def outputs(rows: int, seed: int = 0, bits: int = BITS) -> Tensor:
    return torch.randn(rows, bits, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_for(name: str, labels: Tensor) -> Tensor:
    """The labels, or where the objective takes one label an image the first of each."""
    return F.one_hot(labels.int().argmax(dim=1), CLASSES) if name in SINGLE_LABEL else labels


def gradient(objective: Objective, z: Tensor, labels: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_()
    loss = objective(z, labels, step)
    (slope,) = torch.autograd.grad(loss, z)
    return loss.detach(), slope


def test_the_registry_holds_these_objectives():
    assert set(NAMES) == set(objectives)


@every_objective
def test_describes_itself_with_a_source(name):
    assert len(objectives.describe(name)) > 20
    assert "Source:" in (objectives[name].__doc__ or "")


@every_objective
def test_loss_is_a_scalar_of_the_dtype_of_z(name):
    for dtype in (torch.float32, torch.float64):
        loss = build(name).to(dtype)(outputs(6).to(dtype), torch.tensor([0, 0, 1, 1, 2, 3]))
        assert loss.shape == ()
        assert loss.dtype == dtype


@every_objective
def test_classes_and_multi_hot_labels_of_any_dtype_are_the_same(name):
    objective, z = build(name), outputs(6)
    classes = torch.tensor([0, 0, 1, 1, 2, 3])
    expected = objective(z, classes)
    for dtype in (torch.uint8, torch.bool, torch.int64, torch.float32, torch.float64):
        assert torch.equal(objective(z, F.one_hot(classes, CLASSES).to(dtype)), expected)
    assert torch.equal(objective(z, classes.to(torch.uint8)), expected)


@every_objective
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 9))
def test_order_of_the_batch_does_not_matter(name, seed, rows):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, BITS, generator=generator, dtype=torch.float64)
    labels = labels_for(name, torch.rand(rows, CLASSES, generator=generator) < 0.4)
    order = torch.randperm(rows, generator=generator)
    objective = build(name)
    torch.testing.assert_close(objective(z[order], labels[order], 300), objective(z, labels, 300))


@pytest.mark.parametrize("name", [*PAIRWISE, *TRIPLETS])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_names_and_signs_of_bits_and_names_of_classes_do_not_matter(name, seed):
    generator = torch.Generator().manual_seed(seed)
    z, labels = outputs(7, seed), torch.rand(7, CLASSES, generator=generator) < 0.4
    bits = torch.randperm(BITS, generator=generator)
    signs = 2 * torch.randint(2, (BITS,), generator=generator) - 1
    classes = torch.randperm(CLASSES, generator=generator)
    objective = build(name)
    torch.testing.assert_close(objective(z[:, bits] * signs, labels[:, classes]), objective(z, labels))


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in SINGLE_LABEL])
def test_gradient_agrees_with_finite_differences(name, multi_label):
    objective, z = build(name), outputs(5, seed=3).requires_grad_()
    labels = F.one_hot(torch.tensor([0, 0, 1, 2, 2]), CLASSES)
    if multi_label:
        labels = labels | F.one_hot(torch.tensor([1, 0, 1, 3, 0]), CLASSES)
    assert torch.autograd.gradcheck(lambda z: objective(z, labels, 700), (z,))


def mean_cosine(z: Tensor, labels: Tensor, similar: bool) -> float:
    """Mean cosine of relaxed codes over the similar or the dissimilar pairs, pair by pair."""
    u = torch.tanh(z)
    pairs = [(i, j) for i in range(len(z)) for j in range(i) if bool(labels[i] == labels[j]) == similar]
    cosines = [float(F.cosine_similarity(u[i], u[j], dim=0)) for i, j in pairs]
    return sum(cosines) / max(1, len(cosines))


def changes_by_one_step(name: str, labels: Tensor, lean: float = 0.0) -> list[tuple[float, float]]:
    """What one gradient step does to the mean cosine of similar and of dissimilar pairs, from 20 starts.

    Starts share a random direction with weight `lean`; the step moves the fastest output by 1.
    """
    changes = []
    for seed in range(20):
        z = (1 - lean) * outputs(len(labels), seed) + lean * outputs(1, seed + 100)
        objective = build(name)
        _, slope = gradient(objective, z, labels)
        moved = z - slope / slope.abs().max()
        changes.append(
            tuple(mean_cosine(moved, labels, kind) - mean_cosine(z, labels, kind) for kind in (True, False))
        )
    return changes


@pytest.mark.parametrize("name", [*PAIRWISE, *CENTRED])
def test_one_gradient_step_joins_similar_images(name):
    """From every start if pairs attract each other, on average if a common centre attracts them."""
    joined = [similar for similar, _ in changes_by_one_step(name, torch.full((4,), 2))]
    assert sum(joined) / len(joined) > 0.05
    assert name not in PAIRWISE or min(joined) > 0


@pytest.mark.parametrize("name", [*PAIRWISE, *CENTRED])
def test_one_gradient_step_parts_dissimilar_images(name):
    """From outputs that lean to one common side, so that they have something to give up."""
    parted = [dissimilar for _, dissimilar in changes_by_one_step(name, torch.arange(4), lean=0.4)]
    assert sum(parted) / len(parted) < -0.05
    assert name not in PAIRWISE or max(parted) < 0


@every_objective
def test_one_gradient_step_widens_the_gap_between_the_kinds_of_pairs(name):
    for similar, dissimilar in changes_by_one_step(name, torch.arange(16) % CLASSES):
        assert similar - dissimilar > 0.01


@pytest.mark.parametrize("name", TRIPLETS)
def test_one_gradient_step_of_triplets_joins_similar_and_parts_dissimilar_images(name):
    """Which needs both kinds; from outputs that lean to one common side, and from spread ones to be joined."""
    parted = [dissimilar for _, dissimilar in changes_by_one_step(name, torch.arange(8) % CLASSES, lean=0.4)]
    joined = [similar for similar, _ in changes_by_one_step(name, torch.arange(8) % CLASSES)]
    assert max(parted) < -0.05
    assert min(joined) > 0.05


@every_objective
def test_descent_separates_the_classes(name):
    """Plain gradient descent on free outputs ends with codes that tell the classes apart."""
    objective, z = build(name).float(), (0.1 * outputs(16)).float().requires_grad_()
    labels = torch.arange(16) % CLASSES
    optimizer = torch.optim.Adam([z, *objective.parameters()], lr=0.05)
    for step in range(300):
        optimizer.zero_grad()
        objective(z, labels, step).backward()
        optimizer.step()
    codes = torch.where(z >= 0, 1, -1)
    agreement = (codes @ codes.T).float() / BITS
    same = labels[:, None] == labels
    assert agreement[same].min() > agreement[~same].max() + 0.25


BATCHES = {
    "all similar": torch.zeros(4, dtype=torch.long),
    "none similar": torch.arange(4),
    "no labels": torch.zeros(4, CLASSES),
    "all labels": torch.ones(4, CLASSES),
}
EXTREMES = {
    "zero": torch.zeros(4, BITS),
    "equal": torch.full((4, BITS), 0.3),
    "huge": 1e4 * outputs(4).sign().float(),
    "astronomic": 1e30 * outputs(4).float(),
    "tiny": 1e-30 * outputs(4).float(),
    "equal and huge": torch.full((4, BITS), 1e4),
}


@every_objective
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("share", [0.0, 1e-6, 0.5, 1.0])
def test_extreme_inputs_give_finite_losses_and_gradients(name, batch, extreme, share):
    objective = build(name, share=share).float()
    labels = BATCHES[batch]
    labels = labels if labels.dim() == 1 else labels_for(name, labels)
    loss, slope = gradient(objective, EXTREMES[extreme], labels, step=10**6)
    assert loss.isfinite()
    assert slope.isfinite().all()


@every_objective
def test_gradient_at_zero_output_is_moderate(name):
    _, slope = gradient(build(name), torch.zeros(4, BITS, dtype=torch.float64), torch.tensor([0, 0, 1, 2]))
    assert slope.abs().max() < 1e3


@every_objective
def test_one_image_has_no_pairs(name):
    """A batch of one gives a finite loss; those of pairs and triplets keep only their quantisation."""
    objective, z = build(name), outputs(1)
    loss, slope = gradient(objective, z, torch.tensor([2]))
    assert loss.isfinite()
    assert slope.isfinite().all()
    if name not in CENTRED:
        objective.quantization_weight = 0.0
        assert objective(z, torch.tensor([2])) == 0


@every_objective
@pytest.mark.parametrize("bits", [4, 12, 36])
def test_any_number_of_bits(name, bits):
    loss = build(name, bits=bits, classes=10)(outputs(6, bits=bits), torch.arange(6))
    assert loss.isfinite()


@every_objective
@pytest.mark.parametrize(
    ("z", "labels"),
    [
        (torch.zeros(3, BITS + 1), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(BITS), torch.zeros(1, dtype=torch.long)),
        (torch.zeros(3, BITS), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(3, BITS), torch.zeros(3, CLASSES + 1)),
        (torch.zeros(3, BITS), torch.tensor([0, 1, CLASSES])),
        (torch.zeros(3, BITS), torch.tensor([0, 1, -1])),
        (torch.zeros(3, BITS), torch.tensor([0.0, 1.0, 2.0])),
    ],
)
def test_inputs_that_do_not_fit_are_refused(name, z, labels):
    with pytest.raises(InputError):
        build(name).float()(z, labels)


@every_objective
@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 0},
        {"num_classes": 0},
        {"similar_share": -0.1},
        {"similar_share": 1.1},
        {"similar_share": float("nan")},
        {"no_such_parameter": 1},
    ],
)
def test_wrong_parameters_are_refused(name, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        build_objective(name, **{"bits": 8, "num_classes": 4, "similar_share": 0.5, **wrong})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("dpsh", {"inner_scale": 0.0}),
        ("dpsh", {"quantization_weight": -1.0}),
        ("hashnet", {"inner_scale": -1.0}),
        ("hashnet", {"continuation_steps": 0}),
        ("dch", {"gamma": 0.0}),
        ("dch", {"quantization_weight": float("nan")}),
        ("hyp2", {"pair_weight": float("inf")}),
        ("hyp2", {"margin": 1.5}),
        ("hyp2", {"proxy_learning_rate": 0.0}),
        ("csq", {"quantization_weight": -1.0}),
        ("cel", {"margin": -1.5}),
        ("dhn", {"inner_scale": 0.0}),
        ("dhn", {"quantization_weight": -1.0}),
        ("dpn", {"margin": 0.0}),
        ("dsh", {"margin": -1.0}),
        ("dsh", {"quantization_weight": -1.0}),
        ("dtsh", {"margin": -1.0}),
        ("dtsh", {"quantization_weight": float("inf")}),
        ("greedyhash", {"quantization_weight": -1.0}),
        ("greedyhash", {"classifier_learning_rate": 0.0}),
        ("orthohash", {"margin": 2.0}),
        ("orthohash", {"scale": 0.0}),
        ("wglhh", {"gaussian_scale": 0.0}),
        ("wglhh", {"quantization_weight": -1.0}),
    ],
)
def test_wrong_own_parameters_are_refused(name, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        build_objective(name, bits=8, num_classes=4, similar_share=0.5, **wrong)


@pytest.mark.parametrize("name", SINGLE_LABEL)
@pytest.mark.parametrize("count", [0, 2])
def test_images_without_exactly_one_label_are_refused_where_the_method_has_no_place_for_them(name, count):
    labels = torch.eye(CLASSES)
    labels[1] = torch.arange(CLASSES) < count
    with pytest.raises(InputError, match=f"exactly one label an image, and here an image has {count}"):
        build(name)(outputs(CLASSES), labels)


def test_a_mistyped_name_is_suggested():
    with pytest.raises(UnknownNameError, match="did you mean 'dpsh'"):
        build_objective("dpsch", bits=8, num_classes=4, similar_share=0.5)
