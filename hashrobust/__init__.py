"""Deep hashing with sign-symmetry learning rules, and an honest measure of its robustness.

The public names are resolved when first used, so that importing the package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashrobust.attacks import AttackContext, build_attack
    from hashrobust.backbones import build_backbone
    from hashrobust.datasets import load_classification, load_dataset
    from hashrobust.errors import HashRobustError, InputError
    from hashrobust.experiments.audit import audit
    from hashrobust.experiments.opened import load_run
    from hashrobust.metrics import average_precision, chance, retrieval_metrics
    from hashrobust.models import Classifier, HashModel, load_model, save_model
    from hashrobust.objectives import build_objective
    from hashrobust.reports.frame import results_frame
    from hashrobust.retrieval import HammingIndex
    from hashrobust.rules import alignment, convert, exact_gradient
    from hashrobust.training import finetune, finetune_classifier, pretrain

_HOMES = {
    "AttackContext": "attacks",
    "build_attack": "attacks",
    "build_backbone": "backbones",
    "load_classification": "datasets",
    "load_dataset": "datasets",
    "HashRobustError": "errors",
    "InputError": "errors",
    "audit": "experiments.audit",
    "load_run": "experiments.opened",
    "average_precision": "metrics",
    "chance": "metrics",
    "retrieval_metrics": "metrics",
    "Classifier": "models",
    "HashModel": "models",
    "load_model": "models",
    "save_model": "models",
    "build_objective": "objectives",
    "results_frame": "reports.frame",
    "HammingIndex": "retrieval",
    "alignment": "rules",
    "convert": "rules",
    "exact_gradient": "rules",
    "finetune": "training",
    "finetune_classifier": "training",
    "pretrain": "training",
}

__all__ = [  # noqa: RUF022 - grouped by what they are for
    "load_dataset",
    "load_classification",
    "HashModel",
    "Classifier",
    "load_model",
    "save_model",
    "build_backbone",
    "build_objective",
    "convert",
    "exact_gradient",
    "alignment",
    "finetune",
    "finetune_classifier",
    "pretrain",
    "HammingIndex",
    "AttackContext",
    "build_attack",
    "audit",
    "load_run",
    "results_frame",
    "average_precision",
    "chance",
    "retrieval_metrics",
    "HashRobustError",
    "InputError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hashrobust' has no attribute '{name}'")
    value = getattr(import_module(f"hashrobust.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
