"""Wrong settings and inputs are refused, each with a way out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hashrobust.attacks import AttackContext, attacks, build_attack, draw_targets, outward
from hashrobust.attacks._alpha import alpha_at
from hashrobust.attacks._optimizers import OPTIMIZERS
from hashrobust.errors import InputError, UnknownNameError


@pytest.mark.parametrize(("params", "words"), [
    ({"epsilon": 8}, "8/255"), ({"epsilon": 0}, "epsilon"), ({"epsilon": -0.1}, "epsilon"),
    ({"epsilon": float("nan")}, "epsilon"), ({"steps": 0}, "steps"), ({"steps": 2.5}, "steps"),
    ({"restarts": 0}, "restarts"), ({"restarts": 2, "random_start": False}, "random_start"),
    ({"optimizer": "sing"}, "sign"), ({"alpha": 0}, "alpha"), ({"alpha": "A11"}, "A10"),
    ({"step_size": 0.0}, "step_size"), ({"steps": 10, "step_size": 1 / 255}, "cannot cross"),
    ({"step": 3}, "steps"), ({"preset": "orignal"}, "original"),
    ({"alpha": float("inf")}, "alpha is inf: give a finite number"),
    ({"step_size": float("inf")}, "step_size is inf"), ({"beta": float("nan")}, "beta is nan"),
    ({"step_size": np.float32("inf")}, "step_size is inf"), ({"beta": -1.0}, "beta -1"),
    ({"threshold": -0.5}, "threshold -0.5"),
    ({"optimizer": "gradient"}, "'gradient' .*give step_size"), ({"optimizer": "momentum"}, "give step_size"),
    ({"optimizer": "normalized"}, "give step_size"),
])  # fmt: skip
def test_wrong_settings_are_refused_with_a_way_out(params: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_attack("hag", **params)


@pytest.mark.parametrize("params", [
    {"code_weight": 0.0}, {"code_weight": -25.0}, {"code_weight": -25.0, "targeted": True}
])  # fmt: skip
def test_sdha_without_a_weight_on_codes_is_refused(params: Any) -> None:
    with pytest.raises(InputError, match="code_weight"):
        build_attack("sdha", **params)


def test_any_integer_is_a_whole_number(scene: Any) -> None:
    """As a sweep over numpy's ranges gives them."""
    plain: Any = build_attack("hag", steps=4, restarts=2)
    given: Any = build_attack("hag", steps=np.int64(4), restarts=np.int32(2))
    assert torch.equal(given(scene.model, scene.images), plain(scene.model, scene.images))
    for name, params in {
        "square": {"budget": np.int64(9)}, "uap": {"fit_batch": np.int64(3)}, "dhta": {"anchors": np.int64(3)},
        "center-multi": {"others": np.int64(2)}, "tha": {"prototype_steps": np.int64(2)},
        "prosgan": {"epochs": np.int64(2)},
    }.items():  # fmt: skip
        build_attack(name, **params)


def test_unknown_attack_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="hag"):
        build_attack("hgg")
    with pytest.raises(InputError, match="none"):
        build_attack("noise", preset="saat")


def test_parameters_win_over_the_preset() -> None:
    attack: Any = build_attack("hag", preset="original", steps=50, seed=4)
    assert (attack.steps, attack.seed, attack.optimizer) == (50, 4, "gradient")


def test_wrong_inputs_are_refused(scene: Any) -> None:
    attack, model = build_attack("hag", steps=2), scene.model
    for images in (
        scene.images * 255,
        scene.images[0],
        scene.images.int(),
        scene.images - 1,
        scene.images[:0],
    ):
        with pytest.raises(InputError, match="images"):
            attack(model, images)
    with pytest.raises(InputError, match="rows"):
        attack(model, scene.images, context=AttackContext(sample_ids=torch.arange(3)))
    with pytest.raises(InputError, match="no gradient"):
        attack(lambda x: model(x).detach(), scene.images)
    with pytest.raises(InputError, match="outputs of shape"):
        attack(lambda x: x, scene.images)
    center = build_attack("center", steps=2)
    with pytest.raises(InputError, match=r"train_codes must be"):
        context = replace(scene.context, train_codes=scene.context.train_codes * 0.5)
        center(model, scene.images, labels=scene.labels, context=context)
    with pytest.raises(InputError, match=r"train_codes have \d+ bits and the model \d+ outputs"):
        context = replace(scene.context, train_codes=scene.context.train_codes[:, 1:])
        center(model, scene.images, labels=scene.labels, context=context)


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown optimizer 'adan': .*adam"):
        build_attack("hag", optimizer="adan")


def test_steps_that_cross_the_ball_but_for_rounding_are_enough() -> None:
    assert sum([0.01] * 10) < 2 * 0.05
    build_attack("hag", epsilon=0.05, steps=10, step_size=0.01)
    with pytest.raises(
        InputError, match=r"10 steps of 0.00999 cannot cross a ball of radius 0.05: take more steps"
    ):
        build_attack("hag", epsilon=0.05, steps=10, step_size=0.00999)


def test_outputs_of_zero_leave_alpha_at_1() -> None:
    outputs = torch.tensor([[0.0, 0.0], [2.0, -4.0]])
    assert torch.equal(alpha_at("auto", 0, 1, outputs), torch.tensor([[1.0], [1 / 3]]))
    assert alpha_at(3, 0, 1, outputs) == 3.0 and type(alpha_at(3, 0, 1, outputs)) is float


@pytest.mark.parametrize("alpha", [0.25, 1, 3.5])
def test_any_alpha_above_0_is_allowed(alpha: float) -> None:
    attack: Any = build_attack("hag", alpha=alpha)
    assert attack.alpha == alpha
    outputs = torch.tensor([[1 / alpha, -1 / alpha]])
    assert torch.equal(alpha_at("auto", 0, 1, outputs), 1 / outputs[:, :1])


def test_alpha_that_follows_the_outputs_is_a_constant_to_their_gradient() -> None:
    outputs = torch.tensor([[0.5, -0.1]], requires_grad=True)
    alpha = alpha_at("auto", 0, 1, outputs)
    assert isinstance(alpha, torch.Tensor) and not alpha.requires_grad


def test_images_are_left_as_they_are(scene: Any) -> None:
    images, before = scene.images, scene.images.clone()
    build_attack("hag", steps=2, random_start=False).run(scene.model, images)
    assert torch.equal(images, before) and not images.requires_grad


def test_theory_codes_of_codes_of_any_type(scene: Any) -> None:
    attack = build_attack("center")
    codes = torch.where(scene.model(scene.images) >= 0, 1.0, -1.0)
    found = attack.theory_codes(codes, scene.labels, scene.context)
    of_bytes = attack.theory_codes(codes.to(torch.int8), scene.labels, scene.context)
    assert found is not None and of_bytes is not None
    assert torch.equal(found, of_bytes) and found.dtype == of_bytes.dtype == torch.float32


def test_adam_of_all_but_no_gradient_equals_torch_s() -> None:
    direction, pixel = OPTIMIZERS["adam"](), torch.zeros(1, 1, 1, 1, requires_grad=True)
    adam = torch.optim.Adam([pixel], lr=1.0)
    for gradient in (1e-9, -3e-9, 1e-8):
        before = pixel.detach().clone()
        pixel.grad = torch.full_like(pixel, gradient)
        adam.step()
        torch.testing.assert_close(before - pixel.detach(), direction(pixel.grad), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("params", "words"), [
    ({"step_size": 0.0}, "step_size 0 moves nothing"), ({"step_size": -0.1}, "step_size -0.1 moves nothing"),
    ({"alpha": -1.0}, "alpha is -1.0: give a number above 0"),
    ({"steps": 10**6 + 1}, "steps is more than 1000000"), ({"eot": 10**6 + 1}, "eot is more than"),
    ({"restarts": 10**6 + 1}, "restarts is more than"),
])  # fmt: skip
def test_numbers_beyond_what_makes_sense(params: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_attack("hag", **params)


def test_the_most_steps_are_allowed() -> None:
    attack: Any = build_attack("hag", steps=10**6, step_size=0.1)
    assert attack.steps == 10**6


def test_a_smaller_ball_without_a_radius_is_refused() -> None:
    with pytest.raises(InputError, match=r"epsilon 0.1 to 0 has no ratio"):
        outward(torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2), 0.1, 0.0)


def given(scene: Any, part: str, value: Any) -> dict[str, Any]:
    """Labels and context of an attack, one part replaced."""
    if part == "labels":
        return {"labels": value, "context": scene.context}
    return {"labels": scene.labels, "context": replace(scene.context, **{part: value})}


@pytest.mark.parametrize("part", ["labels", "train_labels", "train_codes", "sample_ids", "start_images"])
@pytest.mark.parametrize("convert", [lambda tensor: tensor.numpy(), lambda tensor: tensor.tolist()])
def test_what_is_no_tensor_is_refused_by_name(part: str, convert: Any, scene: Any) -> None:
    tensors = {"labels": scene.labels, **vars(scene.context), "start_images": scene.images}
    with pytest.raises(InputError, match=rf"{part} is a (ndarray|list): give a tensor"):
        build_attack("center", steps=2)(
            scene.model, scene.images, **given(scene, part, convert(tensors[part]))
        )


def test_images_and_labels_of_other_kinds_are_refused_in_words_that_help(scene: Any) -> None:
    attack = build_attack("noise")
    with pytest.raises(InputError, match="images is a ndarray: give a tensor"):
        attack(scene.model, scene.images.numpy())
    with pytest.raises(InputError, match="labels is a ndarray"):
        draw_targets(scene.labels.numpy(), scene.context.database_labels)


@pytest.mark.parametrize("part", ["labels", "targets", "train_labels", "database_labels"])
def test_integer_classes_in_a_column_are_not_taken_for_multi_hot(part: str, scene: Any) -> None:
    """Class 0 would be no label and all others the same one."""
    columns = {
        name: labels[:, None]
        for name, labels in (("labels", scene.labels), *vars(scene.context).items())
        if name in ("labels", "targets", "train_labels", "database_labels")
    }
    context = replace(scene.context, **{name: columns[name] for name in columns if name != "labels"})
    with pytest.raises(InputError, match="values other than 0 and 1"):
        build_attack("center", steps=2)(scene.model, scene.images, labels=columns["labels"], context=context)
    hot = nn.functional.one_hot(scene.labels, 4).double()
    for value in (hot * 0.5, hot * float("nan"), 2 * hot):
        rows = value.repeat(10, 1)[: len(columns[part])]
        with pytest.raises(InputError, match=rf"{part} of shape .* other than 0 and 1"):
            build_attack("center", steps=2)(scene.model, scene.images, **given(scene, part, rows))


def test_codes_and_ids_of_other_types_are_refused(scene: Any) -> None:
    attack = build_attack("center", steps=2)
    with pytest.raises(InputError, match=r"train_codes must be .* -1 and \+1"):
        attack(scene.model, scene.images, **given(scene, "train_codes", scene.context.train_codes > 0))
    for ids in (
        scene.context.sample_ids.float(),
        scene.context.sample_ids > 0,
        scene.context.sample_ids[:, None],
    ):
        with pytest.raises(InputError, match=r"sample_ids have shape .*: give integers"):
            attack(scene.model, scene.images, **given(scene, "sample_ids", ids))


@pytest.mark.parametrize(
    "name", [name for name in attacks if name not in ("hag", "noise", "random-search", "square")]
)
def test_messages_call_an_attack_as_its_user_does(name: str, scene: Any, classifier: Any) -> None:
    own = classifier if "classification" in attacks[name].tasks else scene  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=f"attack {name} needs"):
        build_attack(name)(own.model, own.images, context=AttackContext(task=own.context.task))
    with pytest.raises(InputError, match=rf"attack {name} is not made for .*context=AttackContext\(task='"):
        other = {"hashing", "classification"} - attacks[name].tasks  # type: ignore[attr-defined]
        build_attack(name)(own.model, own.images, context=AttackContext(task=other.pop()))


def test_an_attack_on_classifiers_alone_need_not_be_told_so(classifier: Any) -> None:
    attack = build_attack("pgd", steps=5)
    told = attack(
        classifier.model,
        classifier.images,
        labels=classifier.labels,
        context=AttackContext(task="classification"),
    )
    assert torch.equal(attack(classifier.model, classifier.images, labels=classifier.labels), told)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Dropout2d(0.5)])
@pytest.mark.parametrize("name", ["hag", "square", "noise", "uap"])
def test_a_network_in_training_mode_is_refused_where_that_matters(
    name: str, layer: nn.Module, scene: Any
) -> None:
    model = nn.Sequential(layer, scene.model)
    attack, known = build_attack(name), {"labels": scene.labels, "context": scene.context}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"training mode, in which its layer '0' .*model.eval\(\)"):
        attack(model.train(), scene.images, **known)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if name == "uap":
        with pytest.raises(InputError, match="training mode"):
            attack.fit(model, scene.context)


def test_parts_in_training_mode_of_a_network_that_is_not_are_meant_so(scene: Any) -> None:
    model = nn.Sequential(nn.Dropout(0.1), scene.model).eval()
    model[0].train()
    build_attack("hag", steps=2)(model, scene.images)
    build_attack("hag", steps=2)(scene.model.train(), scene.images)


def test_defaults_are_those_of_the_field() -> None:
    attack: Any = build_attack("hag")
    assert (attack.epsilon, attack.steps, attack.restarts, attack.eot) == (8 / 255, 100, 1, 1)
    assert (attack.optimizer, attack.alpha, attack.random_start, attack.seed) == ("sign", "auto", True, 0)
