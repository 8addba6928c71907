"""What attacks on classifiers do, on a small network that has learned the digits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.attacks import AttackContext, attacks, ball, build_attack
from hashrobust.errors import InputError

CONTEXT = AttackContext(task="classification")
EPSILON = 0.1


def test_a_misclassified_digit_is_done_unless_it_is_meant_for_another_model(trained: Any) -> None:
    attack: Any = build_attack("pgd", epsilon=EPSILON, steps=20)
    given: dict[str, Any] = {"labels": trained.labels}
    alone = attack.run(trained.model, trained.images, context=CONTEXT, **given)
    onward = attack.run(trained.model, trained.images, context=replace(CONTEXT, transfer=True), **given)
    wrong = ~trained.right(trained.images)
    assert wrong.any() and torch.equal(alone.images[wrong], trained.images[wrong])
    assert (alone.gradient_evaluations[wrong] == 0).all()
    for result in (alone, onward):
        assert torch.equal(result.objective, trained.right(result.images).float())
        assert torch.equal(result.clean_objective, (~wrong).float())
    assert torch.equal(alone.finished, alone.objective == 0)
    assert (alone.gradient_evaluations[alone.finished] < 15).float().mean() > 0.9
    assert not onward.finished.any() and (onward.gradient_evaluations == 20).all()
    # As samples leave the batch its shape changes, and float rounding with it.
    assert (onward.objective != alone.objective).sum() <= 2

    def sure(images: Tensor) -> Tensor:
        return F.cross_entropy(trained.model(images), trained.labels, reduction="none")[alone.finished]

    assert sure(onward.images).mean() > 2 * sure(alone.images).mean()


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "apgd-dlr"])
def test_never_worse_than_the_start_it_is_given(trained: Any, name: str) -> None:
    given: dict[str, Any] = {"labels": trained.labels}
    small = build_attack(name, epsilon=0.05, steps=20).run(
        trained.model, trained.images, context=CONTEXT, **given
    )
    context = replace(CONTEXT, start_images=small.images)
    large = build_attack(name, epsilon=EPSILON, steps=20).run(
        trained.model, trained.images, context=context, **given
    )
    assert (large.objective <= small.objective).all() and large.objective.sum() < small.objective.sum()
    assert torch.equal(large.images[small.finished], small.images[small.finished])


def test_fgsm_makes_its_one_step_whatever_it_is_given(trained: Any) -> None:
    attack: Any = build_attack("fgsm", epsilon=EPSILON)
    given: dict[str, Any] = {"labels": trained.labels}
    result = attack.run(trained.model, trained.images, context=CONTEXT, **given)
    assert (result.gradient_evaluations == 1).all() and attack.gradient_steps == 1
    lower, upper = ball(trained.images, EPSILON)
    stands = result.images == trained.images
    assert ((result.images == lower) | (result.images == upper) | stands).all()
    assert not stands.flatten(1).all(dim=1).any()
    context = replace(CONTEXT, start_images=torch.rand_like(trained.images), transfer=True)
    again = attack.run(trained.model, trained.images, context=context, **given)
    assert torch.equal(again.images, result.images)
    assert {"steps", "step_size", "restarts", "random_start", "alpha"}.isdisjoint(attacks.parameters("fgsm"))


def test_madry_keeps_the_last_iterate(trained: Any) -> None:
    attack: Any = build_attack("pgd", preset="madry")
    assert (attack.steps, attack.step_size, attack.epsilon) == (10, 2 / 255, 8 / 255)
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return trained.model(x)

    result = attack.run(model, trained.images, labels=trained.labels, context=CONTEXT)
    assert torch.equal(result.images, seen[-1]) and not result.finished.any()
    assert (result.gradient_evaluations == 10).all() and len(seen) == 12


@pytest.mark.parametrize(("epsilon", "steps", "size"), [(8, 100, 2), (32, 20, 4), (64, 10, 16)])
def test_the_step_size_of_pgd_is_constant(epsilon: float, steps: int, size: float) -> None:
    attack: Any = build_attack("pgd", epsilon=epsilon / 255, steps=steps)
    assert attack.step_size_at(0) == attack.step_size_at(steps - 1) == pytest.approx(size / 255)


def test_several_passes_a_step_and_restarts_are_counted_and_announced(classifier: Any) -> None:
    keys: list[Any] = []
    context = replace(classifier.context, before_step=lambda *key: keys.append(key), transfer=True)
    attack = build_attack("apgd-ce", steps=3, restarts=2, eot=2)
    result = attack.run(classifier.model, classifier.images, labels=classifier.labels, context=context)
    places = [(restart, step) for restart in range(2) for step in range(3)]
    assert keys == [key for place in places for key in (place, (*place, 1))]
    assert (result.gradient_evaluations == 12).all()


def test_a_batch_may_be_cut_anyhow(trained: Any) -> None:
    for name in ("fgsm", "pgd", "apgd-ce", "apgd-dlr", "square"):
        short = {"budget": 60} if name == "square" else {"steps": 15} if name != "fgsm" else {}
        attack = build_attack(name, epsilon=EPSILON, **short)
        whole = trained.attack(name, epsilon=EPSILON, **short)
        ids = torch.arange(200)
        parts = [
            attack(
                trained.model,
                trained.images[rows],
                labels=trained.labels[rows],
                context=replace(CONTEXT, sample_ids=rows),
            )
            for rows in ids.split(70)
        ]
        # Equal but for float rounding, which the shape of a batch decides.
        assert (trained.right(torch.cat(parts)) != trained.right(whole)).sum() <= 2, name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce", "apgd-dlr", "square", "random-search"])
def test_answers_that_are_not_numbers_are_never_the_best(name: str, value: float, classifier: Any) -> None:
    calls = 0

    def model(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        z = classifier.model(x)
        # An infinite logit of another class would be a success.
        return z if calls == 1 else z.index_fill(1, (classifier.labels[:1] + 1) % z.shape[1], value)

    short = {"budget": 9} if "budget" in attacks.parameters(name) else {}
    result = build_attack(name, **short).run(
        model, classifier.images, labels=classifier.labels, context=classifier.context
    )
    assert torch.equal(result.images, classifier.images)
    assert torch.equal(result.objective, result.clean_objective)


@pytest.mark.parametrize(("params", "words"), [
    ({"keep": "first"}, "'best' or 'last'"), ({"keep": "last", "restarts": 2}, "keep='best'"),
    ({"alpha": 1.0}, "alpha"), ({"optimizer": "adam"}, "optimizer"),
    ({"steps": 10, "step_size": 1 / 255}, "cannot cross"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(params: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_attack("pgd", **params)


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(InputError, match="'hashing' or 'classification'"):
        AttackContext(task="classify")


@pytest.mark.parametrize("name", ["square", "random-search"])
def test_a_search_stops_at_the_first_misclassified_image(trained: Any, name: str) -> None:
    attack: Any = build_attack(name, epsilon=EPSILON, budget=80)
    result = attack.run(trained.model, trained.images, labels=trained.labels, context=CONTEXT)
    fooled = ~trained.right(result.images)
    assert torch.equal(result.finished, fooled) and fooled.sum() > 20
    assert (result.queries[~fooled] == 80).all() and (result.queries[fooled] < 80).any()
    assert (result.queries[~trained.right(trained.images)] == 1).all()
    onward = attack.run(
        trained.model, trained.images, labels=trained.labels, context=replace(CONTEXT, transfer=True)
    )
    assert (onward.queries == 80).all() and (onward.objective != result.objective).sum() <= 2


def test_what_a_search_is_told_of_a_classifier(trained: Any) -> None:
    blunt = build_attack("square", epsilon=EPSILON, budget=60, oracle="codes")

    def run(attack: Any, model: Any, **given: Any) -> Any:
        return attack.run(model, trained.images, context=CONTEXT, **given)

    def predicted(x: Tensor) -> Tensor:
        return F.one_hot(trained.model(x).argmax(dim=1), 10).float()

    given = {"labels": trained.labels}
    told = run(blunt, trained.model, **given)
    assert torch.equal(told.images, run(blunt, predicted, **given).images)
    seeing = run(replace(blunt, oracle="relaxed"), trained.model, **given)
    assert seeing.objective.sum() < told.objective.sum() < told.clean_objective.sum()
    # Without labels the class to leave is the one that is predicted.
    own = run(blunt, trained.model)
    assert (own.clean_objective == 1).all()
    assert torch.equal(own.images, run(blunt, trained.model, labels=predicted(trained.images)).images)
    with pytest.raises(InputError, match="leave targeted unset"):
        run(build_attack("square", targeted=True), trained.model)


def test_noise_measures_whether_the_classifier_is_still_right(trained: Any) -> None:
    attack = build_attack("noise", epsilon=0.3, kind="sign")
    result = attack.run(trained.model, trained.images, labels=trained.labels, context=CONTEXT)
    assert torch.equal(result.objective, trained.right(result.images).float())
    assert torch.equal(result.clean_objective, trained.right(trained.images).float())
    assert result.objective.mean() < result.clean_objective.mean()
    alone = attack.run(trained.model, trained.images, context=CONTEXT)
    assert torch.equal(alone.images, result.images) and (alone.clean_objective == 1).all()
