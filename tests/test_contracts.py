"""What every registered component keeps, whichever it is."""

from __future__ import annotations

import pytest
import torch

from hashrobust import HashModel, build_attack, build_objective, convert, exact_gradient, load_dataset
from hashrobust.attacks import AttackContext, attacks, draw_targets, inside_ball
from hashrobust.backbones import backbones
from hashrobust.datasets import dataset_info, datasets
from hashrobust.errors import InputError
from hashrobust.models import frozen
from hashrobust.objectives import objectives
from hashrobust.registry import Registry
from hashrobust.rotations import rotations
from hashrobust.rules import feedback_state, load_feedback_state, redraw_feedback, rules
from hashrobust.training.defences import defences

REGISTRIES: dict[str, Registry] = {
    "attacks": attacks,
    "backbones": backbones,
    "datasets": datasets,
    "defences": defences,
    "objectives": objectives,
    "rotations": rotations,
    "rules": rules,
}
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def hash_model(bits: int = 12) -> HashModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HashModel("lenet", bits, image_size=16).eval()


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, registry in REGISTRIES.items() for name in registry]
)
def test_the_first_line_says_what_it_is(kind: str, name: str) -> None:
    line = REGISTRIES[kind].describe(name)
    assert line.strip() == line and line.endswith(".") and len(line) > 10, line


@pytest.mark.parametrize("rule", list(rules))
def test_every_rule_converts_and_leaves_the_function(rule: str, images: torch.Tensor) -> None:
    plain, model = hash_model(), hash_model()
    report = convert(model, rule, seed=1)
    assert report.rule == rule and report.left == {}
    assert torch.equal(model(images), plain(images))
    assert model.state_dict().keys() == plain.state_dict().keys()

    def gradient(network: HashModel) -> torch.Tensor:
        x = images.clone().requires_grad_()
        return torch.autograd.grad(network(x).square().sum(), x)[0]

    with exact_gradient(model):
        assert torch.equal(gradient(model), gradient(plain))
    if rule != "bp":
        assert report.converted == (
            "backbone.conv1",
            "backbone.conv2",
            "backbone.conv3",
            "backbone.fc1",
            "head",
        )
        assert not torch.equal(gradient(model), gradient(plain))
    redraw_feedback(model, 3)
    twin = hash_model()
    convert(twin, rule, seed=2)
    load_feedback_state(twin, feedback_state(model))
    assert torch.equal(gradient(twin), gradient(model))


@pytest.mark.parametrize("bits", [12, 32])
@pytest.mark.parametrize("name", list(objectives))
def test_every_objective_takes_usual_code_lengths(name: str, bits: int) -> None:
    objective = build_objective(name, bits=bits, num_classes=3, similar_share=1 / 3)
    z = torch.randn(6, bits, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for labels in (LABELS, torch.nn.functional.one_hot(LABELS)):
        loss = objective(z, labels, 7)
        (gradient,) = torch.autograd.grad(loss, z)
        assert loss.shape == () and loss.isfinite() and gradient.isfinite().all() and gradient.any()
    own = list(objective.parameters())
    assert bool(own) == (objective.own_learning_rate is not None)


@pytest.mark.parametrize("name", list(objectives))
def test_one_bit_is_taken_or_refused_in_words(name: str) -> None:
    try:
        objective = build_objective(name, bits=1, num_classes=3, similar_share=1 / 3)
    except InputError as error:
        assert "bits" in str(error)
        return
    assert objective(torch.tensor([[0.5], [-1.0], [0.0]]), torch.tensor([0, 1, 0])).isfinite()


@pytest.mark.parametrize("rule", ["bp", "frsf"])
@pytest.mark.parametrize(
    ("name", "task"), [(name, task) for name in attacks for task in sorted(attacks[name].tasks)]
)
def test_every_attack_runs_on_a_model_and_stays_in_the_ball(
    name: str, task: str, rule: str, images: torch.Tensor
) -> None:
    model = hash_model()
    convert(model, rule)
    known = torch.rand(30, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    codes = model.encode(known)
    labels = torch.arange(30) % 3
    context = AttackContext(
        train_codes=codes,
        train_labels=labels,
        train_images=known,
        database_codes=codes,
        database_labels=labels,
        targets=draw_targets(LABELS, labels),
    )
    asked = LABELS
    if task == "classification":
        # Those that are misclassified already have nothing to gain.
        context, asked = AttackContext(task=task), model(images).argmax(dim=1)
    few = {"steps": 8, "budget": 200}
    short = {key: value for key, value in few.items() if key in attacks.parameters(name)}
    attack = build_attack(name, epsilon=0.1, **short)
    with frozen(model):
        found = attack(model, images, labels=asked, context=context)
    assert inside_ball(found, images, 0.1) and not torch.equal(found, images)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", list(datasets))
def test_every_dataset_tells_what_it_is(name: str) -> None:
    info = dataset_info(name)
    for field in ("name", "source", "size", "protocol", "licence", "fetch"):
        assert getattr(info, field), field
    assert (info.present is None) == (not info.places)  # nothing to look for before a folder is named


def test_the_splits_of_the_dataset_at_hand_are_apart() -> None:
    data = load_dataset("digits")
    splits = {
        split: set(getattr(data, split).ids.tolist())
        for split in ("train", "query", "validation", "database")
    }
    assert all(splits.values())
    assert not splits["query"] & (splits["train"] | splits["validation"] | splits["database"])
    assert not splits["validation"] & (splits["train"] | splits["database"])
    images = data.train.load([0, len(data.train) - 1])
    assert images.shape == (2, *data.image_shape) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize("name", list(backbones))
def test_every_backbone_takes_grey_and_colour_parameters(name: str) -> None:
    assert {"channels", "image_size"} <= set(backbones.parameters(name))
