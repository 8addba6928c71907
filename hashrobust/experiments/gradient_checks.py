"""What every attack records of its gradients: are they derivatives, and how far from the exact ones?"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.attacks import auto_alpha, check_gradient, classification_objective, input_gradient
from hashrobust.errors import InputError, ModelError
from hashrobust.experiments.opened import Model
from hashrobust.models import ClassifyingModel, frozen
from hashrobust.rules import exact_gradient


def gradient_facts(
    model: Model, through: Model, images: Tensor, against_differences: dict[str, Any]
) -> dict[str, Any]:
    """Checks on a few images (B, C, H, W), as flat numbers: those of `difference_facts`, and of the attacker.

    `gradient_cosine` and `gradient_sign_agreement`: the gradient of `through` (the attacker's, equal
    codes) against the exact one, mean over images; 1 where the attacker differentiates exactly. Both
    gradients are those of `agreement` with the images' own answers.
    """
    with frozen(model), exact_gradient(model):
        exact = _agreement_gradient(model, images, model)
    attacker = _agreement_gradient(through, images, model)
    return {
        **against_differences,
        "gradient_cosine": float(F.cosine_similarity(exact, attacker).mean()),
        "gradient_sign_agreement": float((exact.sign() == attacker.sign()).double().mean()),
    }


def difference_facts(model: Model, images: Tensor, epsilon: float) -> dict[str, Any]:
    """`gradient_check_*`: the exact gradient of `model` against finite differences in float64 on the CPU.

    At the images (B, C, H, W) and at a random start in the ball of radius `epsilon` (see `GradientCheck`). The
    numbers are None, and a reason is given, where that cannot be done.
    """
    try:
        precise = copy.deepcopy(model).double().cpu()
        with frozen(precise), exact_gradient(precise):
            own = precise(images.cpu().double()).detach()
            check = check_gradient(
                precise, images.cpu(), lambda z: agreement(model, z, own), epsilon=epsilon, inputs=len(images)
            )
    except (
        InputError,
        ModelError,
        RuntimeError,
        TypeError,
    ) as error:  # models of others may refuse copies or float64
        names = ("cosine", "kink_share", "clean_kink_share", "passed")
        return dict.fromkeys([f"gradient_check_{name}" for name in names]) | {
            "gradient_check_skipped": f"the model could not be run in float64 ({error.__cause__ or error})"
        }
    return {
        "gradient_check_cosine": check.cosine,
        "gradient_check_kink_share": check.kink_share,
        "gradient_check_clean_kink_share": check.clean.kink_share,
        "gradient_check_passed": check.passed,
    }


def agreement(model: Model, z: Tensor, own: Tensor) -> Tensor:
    """How far outputs z (B, K) keep to the answers of outputs `own` (B, K), (B,); smooth, for gradients.

    Mean over bits of tanh(alpha z) sign(own), or of a classifier the log-odds, by alpha z, of the class that it gave.
    alpha is such that neither is flat because outputs are large or small, or logits far from zero.
    """
    if isinstance(model, ClassifyingModel):
        alpha = auto_alpha(own - own.mean(dim=1, keepdim=True))
        return classification_objective(own.argmax(dim=1))(alpha * z)
    return (torch.tanh(auto_alpha(own) * z) * torch.where(own >= 0, 1.0, -1.0)).mean(dim=1)


def _agreement_gradient(model: Model, images: Tensor, of: Model) -> Tensor:
    """Gradient (B, pixels) of the agreement with the images' own answers, which are held fixed."""
    images = images.detach().clone().requires_grad_()
    z = model(images)
    return input_gradient(agreement(of, z, z.detach()).sum(), images).flatten(1)
