"""Faults planted in classifiers and in attacks on them: the audit must see each; without the fault it passes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor, nn

import hashrobust as hr
from hashrobust.attacks import attacks
from hashrobust.attacks.pgd import PGD
from hashrobust.experiments.audit import AuditReport

from .conftest import trained_classifier
from .test_planted import MODELS, Wrapped

Audited = Callable[..., AuditReport]


@pytest.mark.parametrize("fault", ["wrong straight-through", "backward zeroed", "random noise"])
def test_a_planted_fault_of_a_classifier_is_caught(
    fault: str, classifier: hr.Classifier, classes_audited: Audited
) -> None:
    plant, check = MODELS[fault]
    report = classes_audited(plant(deepcopy(classifier)))
    assert report.status(check) == "FAIL", str(report)
    assert report.verdict == "FAIL"


def test_the_classifier_without_a_fault_passes(classifier: hr.Classifier, classes_audited: Audited) -> None:
    models = {"itself": classifier, "wrapped": Wrapped(deepcopy(classifier), nn.Identity())}
    for name, model in models.items():  # models of equal answers under one name would be one run
        report = classes_audited(model, name=name)
        assert report.verdict == "PASS", str(report)
        assert report.headline["worst_accuracy"] <= report.headline["exact_accuracy"]


def test_random_feedback_is_caught_and_passes_by_backpropagation(
    class_data: Any, classifier: hr.Classifier, classes_audited: Audited
) -> None:
    model = trained_classifier(class_data, rule="fa")
    report = classes_audited(model, control=classifier)
    assert report.status("masking") == "FAIL" and report.verdict == "FAIL", str(report)
    assert report.headline["rule_accuracy"] > report.headline["exact_accuracy"] + 0.1
    hr.convert(model, "bp")
    healed = classes_audited(model, control=classifier)
    assert healed.status("masking") == "PASS" and healed.verdict == "PASS", str(healed)


@dataclass(frozen=True, kw_only=True)
class SignError(PGD):
    """Goes down the loss instead of up."""

    def objective(self, u: Tensor, images: Tensor, clean: Any, state: Any) -> Tensor:
        return -super().objective(u, images, clean, state)


def test_a_sign_error_of_an_attack_is_caught(classifier: hr.Classifier, classes_audited: Audited) -> None:
    name = "planted-sign-error-on-classes"
    if name not in attacks:
        attacks.register(name)(SignError)
    report = classes_audited(classifier, attack=name)
    for check in ("control", "black box vs white box", "epsilon 0.5"):
        assert report.status(check) == "FAIL", str(report)
    assert report.verdict == "FAIL"
    healed = classes_audited(classifier, attack="pgd")
    assert healed.verdict == "PASS", str(healed)
