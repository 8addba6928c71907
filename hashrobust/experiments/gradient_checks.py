"""What every attack records of its gradients: are they derivatives, and how far from the exact ones?"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.attacks import check_gradient
from hashrobust.errors import InputError
from hashrobust.models import Hasher, frozen
from hashrobust.rules import exact_gradient


def gradient_facts(
    model: Hasher, through: Hasher, images: Tensor, against_differences: dict[str, Any]
) -> dict[str, Any]:
    """Checks on a few images (B, C, H, W), as flat numbers: those of `difference_facts`, and of the attacker.

    `gradient_cosine` and `gradient_sign_agreement`: the gradient of `through` (the attacker's, equal
    codes) against the exact one, mean over images; 1 where the attacker differentiates exactly. Both
    gradients are those of the agreement of tanh(z) with the images' own codes.
    """
    with frozen(model), exact_gradient(model):
        exact = _agreement_gradient(model, images)
    attacker = _agreement_gradient(through, images)
    return {
        **against_differences,
        "gradient_cosine": float(F.cosine_similarity(exact, attacker).mean()),
        "gradient_sign_agreement": float((exact.sign() == attacker.sign()).double().mean()),
    }


def difference_facts(model: Hasher, images: Tensor, epsilon: float) -> dict[str, Any]:
    """`gradient_check_*`: the exact gradient of `model` against finite differences in float64 on the CPU.

    At the images (B, C, H, W) and at a random start in the ball of radius `epsilon` (see `GradientCheck`). The
    numbers are None, and a reason is given, where that cannot be done.
    """
    try:
        precise = copy.deepcopy(model).double().cpu()
        with frozen(precise), exact_gradient(precise):
            check = check_gradient(precise, images.cpu(), epsilon=epsilon)
    except (InputError, RuntimeError, TypeError) as error:  # models of others may refuse copies or float64
        names = ("cosine", "kink_share", "clean_kink_share", "passed")
        return dict.fromkeys([f"gradient_check_{name}" for name in names]) | {
            "gradient_check_skipped": f"the model could not be run in float64 ({error})"
        }
    return {
        "gradient_check_cosine": check.cosine,
        "gradient_check_kink_share": check.kink_share,
        "gradient_check_clean_kink_share": check.clean.kink_share,
        "gradient_check_passed": check.passed,
    }


def _agreement_gradient(model: Hasher, images: Tensor) -> Tensor:
    """Gradient (B, pixels) of sum over bits of tanh(z) sign(z0), z0 held fixed."""
    images = images.detach().clone().requires_grad_()
    z = model(images)
    score = (torch.tanh(z) * torch.where(z >= 0, 1.0, -1.0).detach()).sum()
    return torch.autograd.grad(score, images)[0].flatten(1)
