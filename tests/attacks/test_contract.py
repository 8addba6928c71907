"""What every registered attack keeps in each task that it serves, with its modern default and each preset."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from hashrobust.attacks import (
    Attack,
    AttackContext,
    GradientAttack,
    SearchAttack,
    attacks,
    build_attack,
    inside_ball,
)
from hashrobust.errors import InputError

CASES = [(name, preset) for name in attacks for preset in [None, *sorted(attacks[name].presets)]]
VARIANTS = [
    *CASES,
    ("pgd", "restarts"),
    ("center", "targeted"),
    ("center", "logit"),
    ("center-multi", "logit"),
    ("sdha", "targeted"),
    ("noise", "sign"),
    ("prosgan", "unbounded"),
    ("random-search", "codes"),
    ("square", "codes"),
    ("square", "targeted"),
    ("uap", "targeted"),
]
EXTRA: dict[str, dict[str, Any]] = {
    # Enough for some class to change: until one does there is nothing to keep.
    "codes": {"oracle": "codes", "epsilon": 0.3},
    "logit": {"loss": "logit"},
    "restarts": {"restarts": 3},
    "sign": {"kind": "sign"},
    "targeted": {"targeted": True},
    "unbounded": {"bounded": False},
}
# Two steps of training: what matters here is not whether they get anywhere.
TRAINING: dict[str, dict[str, Any]] = {
    "prosgan": {"prototype_steps": 2, "epochs": 1, "decay_epochs": 0},
    "tha": {"prototype_steps": 2},
}
TASKS = [
    (name, preset, task)
    for name, preset in VARIANTS
    for task in sorted(attacks[name].tasks)
    if (preset, task) != ("targeted", "classification")
]
# Attacks that do not choose among images by their objective.
UNCHOSEN = ("FGSM", "Noise", "ProSGAN", "Universal")
# Those without a random draw.
CERTAIN = ("fgsm",)


def build(name: str, preset: str | None, **params: Any) -> Attack:
    """The attack cut to a dozen steps that still cross the ball, or to 40 queries, and little training."""
    short: dict[str, Any] = dict(TRAINING.get(name, {}))
    if issubclass(attacks[name], GradientAttack):  # type: ignore[arg-type]
        short |= {"steps": 12} | ({"step_size": 0.05} if preset and preset not in EXTRA else {})
        short = {key: value for key, value in short.items() if key in attacks.parameters(name)}
    elif issubclass(attacks[name], SearchAttack):  # type: ignore[arg-type]
        short |= {"budget": 40}
    if preset in EXTRA:
        return build_attack(name, **(EXTRA[preset] | short | params))
    return build_attack(name, preset=preset, **(short | params))


@pytest.fixture(params=TASKS, ids=lambda case: "-".join(filter(None, case)))
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def attack(case: Any) -> Attack:
    return build(*case[:2])


@pytest.fixture
def scene(case: Any, scene: Any, classifier: Any) -> Any:
    return classifier if case[2] == "classification" else scene


def rows_of(context: AttackContext, rows: Any) -> AttackContext:
    """What is known of some of the samples."""
    targets = None if context.targets is None else context.targets[rows]
    assert context.sample_ids is not None
    return replace(context, sample_ids=context.sample_ids[rows], targets=targets)


def test_images_stay_in_the_ball_and_in_range(attack: Attack, scene: Any) -> None:
    result = attack.run(scene.model, scene.images, labels=scene.labels, context=scene.context)
    images = result.images
    assert images.shape == scene.images.shape and images.dtype == torch.float32
    assert not images.requires_grad
    assert result.bounded == attack.bounded
    assert inside_ball(images, scene.images, attack.epsilon if attack.bounded else 1.0)
    assert not torch.equal(images, scene.images)


def test_repeats_bit_for_bit(attack: Attack, scene: Any) -> None:
    first = attack(scene.model, scene.images, labels=scene.labels, context=scene.context)
    torch.rand(7)
    second = attack(scene.model, scene.images, labels=scene.labels, context=scene.context)
    assert torch.equal(first, second)


def test_a_sample_does_not_depend_on_its_batch_mates(attack: Attack, scene: Any) -> None:
    whole = attack(scene.model, scene.images, labels=scene.labels, context=scene.context)
    order = torch.tensor([0, 4, 3, 2, 1, 5])
    ids, images = scene.context.sample_ids.clone(), scene.images.clone()
    ids[1:], images[1:] = ids[1:] + 50, torch.rand_like(images[1:])
    context = replace(rows_of(scene.context, order), sample_ids=ids)
    mixed = attack(scene.model, images, labels=scene.labels[order], context=context)
    assert torch.equal(mixed[0], whole[0])
    assert not torch.equal(mixed[1], whole[1])


def test_cutting_the_batch_changes_no_code(attack: Attack, scene: Any) -> None:
    whole = attack(scene.model, scene.images, labels=scene.labels, context=scene.context)
    rows = slice(3, 5)
    context = rows_of(scene.context, rows)
    part = attack(scene.model, scene.images[rows], labels=scene.labels[rows], context=context)
    assert torch.equal(scene.model(part) >= 0, scene.model(whole[rows]) >= 0)


def test_no_worse_than_the_clean_start_and_counted_truthfully(attack: Attack, scene: Any) -> None:
    result = attack.run(scene.model, scene.images, labels=scene.labels, context=scene.context)
    if type(attack).__name__ not in UNCHOSEN and getattr(attack, "keep", "best") == "best":
        assert (result.objective <= result.clean_objective).all()
    if isinstance(attack, GradientAttack):
        assert (result.gradient_evaluations <= attack.gradient_steps).all()
        assert (result.gradient_evaluations > 0).any()
        assert (result.queries == 0).all()
    else:
        assert (result.gradient_evaluations == 0).all()
        assert ((result.queries > 0) == isinstance(attack, SearchAttack)).all()
    for field in ("objective", "finished", "zero_gradients", "nonfinite_gradients", "queries"):
        assert getattr(result, field).shape == (6,)
    assert (result.nonfinite_gradients == 0).all()


def test_model_is_left_as_it_was(attack: Attack, scene: Any) -> None:
    scene.model.train()
    before = {name: value.clone() for name, value in scene.model.state_dict().items()}
    images, labels = scene.images.clone(), scene.labels.clone()
    attack(scene.model, images, labels=labels, context=scene.context)
    assert scene.model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in scene.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in scene.model.state_dict().items())
    assert torch.equal(images, scene.images) and not images.requires_grad


def test_needs_are_enforced_by_name(attack: Attack, scene: Any) -> None:
    assert attack.needs <= {"labels", "train_codes", "train_images", "database_codes", "targets"}
    for need in attack.needs:
        labels = None if need == "labels" else scene.labels
        context = scene.context if need == "labels" else replace(scene.context, **{need: None})
        with pytest.raises(InputError, match=need):
            attack(scene.model, scene.images, labels=labels, context=context)
    given = {need: getattr(scene.context, need) for need in attack.needs - {"labels"}}
    for side in ("train", "database"):
        if f"{side}_codes" in given:
            given[f"{side}_labels"] = getattr(scene.context, f"{side}_labels")
    labels = scene.labels if "labels" in attack.needs else None
    given["task"] = scene.context.task
    attack(scene.model, scene.images, labels=labels, context=AttackContext(**given))


def test_a_model_in_double_precision_is_attacked_in_it(attack: Attack, scene: Any) -> None:
    model, images = copy.deepcopy(scene.model).double(), scene.images.double()
    context = scene.context
    if context.train_images is not None:
        context = replace(context, train_images=context.train_images.double())
    result = attack.run(model, images, labels=scene.labels, context=context)
    assert result.images.dtype == torch.float64
    assert inside_ball(result.images, images, attack.epsilon if attack.bounded else 1.0)
    assert not torch.equal(result.images, images)


def test_goal_and_theory_codes(attack: Attack, scene: Any) -> None:
    assert attack.goal in ("non-targeted", "targeted")
    assert (attack.goal == "targeted") == ("targets" in attack.needs)
    codes = torch.where(scene.model(scene.images) >= 0, 1.0, -1.0)
    theory = attack.theory_codes(codes, scene.labels, scene.context)
    if type(attack).__name__ == "Noise" or scene.context.task == "classification":
        assert theory is None
    else:
        assert theory is not None and theory.shape == codes.shape
        assert set(theory.flatten().tolist()) <= {-1.0, 1.0}


def test_what_is_fitted_can_be_stored_and_handed_back(attack: Attack, scene: Any) -> None:
    training = replace(scene.context, targets=None, sample_ids=None)
    fitted = attack.fit(scene.model, training)
    assert attack.fits == bool(fitted)
    assert {tensor.dtype for tensor in fitted.values()} <= {torch.float32, torch.int64}
    again = attack.fit(scene.model, rows_of(scene.context, torch.arange(5, -1, -1)))
    assert fitted.keys() == again.keys() and all(torch.equal(fitted[name], again[name]) for name in fitted)
    if not attack.fits:
        return
    stored = load(save(fitted))
    handed = replace(scene.context, fitted=stored)
    anew = attack(scene.model, scene.images, labels=scene.labels, context=scene.context)
    assert torch.equal(attack(scene.model, scene.images, labels=scene.labels, context=handed), anew)
    with pytest.raises(InputError, match="fitted holds no"):
        attack(scene.model, scene.images, labels=scene.labels, context=replace(scene.context, fitted={}))


def test_integer_and_multi_hot_labels_are_the_same(attack: Attack, scene: Any) -> None:
    hot = nn.functional.one_hot
    context, classes = scene.context, scene.model(scene.images).shape[1]
    if context.task == "hashing":
        classes = 4
        context = replace(
            context,
            train_labels=hot(context.train_labels, 4),
            database_labels=hot(context.database_labels, 4).bool(),
        )
    first = attack(scene.model, scene.images, labels=scene.labels, context=scene.context)
    second = attack(scene.model, scene.images, labels=hot(scene.labels, classes), context=context)
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "case",
    [case for case in TASKS if case[1] is None and case[0] not in CERTAIN],
    ids=lambda case: f"{case[0]}-{case[2]}",
)
def test_seed_changes_the_random_start(case: Any, scene: Any) -> None:
    one, two = (
        build(case[0], None, seed=seed)(scene.model, scene.images, labels=scene.labels, context=scene.context)
        for seed in (1, 2)
    )
    assert not torch.equal(one, two)


def test_a_task_that_it_does_not_serve_is_refused_with_those_that_do(attack: Attack, scene: Any) -> None:
    for task in {"hashing", "classification"} - attack.tasks:
        with pytest.raises(InputError, match=f"not made for {task}: use one of .*square"):
            attack(scene.model, scene.images, labels=scene.labels, context=replace(scene.context, task=task))


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_published_settings_build(name: str, preset: str | None) -> None:
    attack = build_attack(name, preset=preset)
    assert attacks.describe(name)
    if preset is not None:
        for key, value in attacks[name].presets[preset].items():
            assert getattr(attack, key) == value
