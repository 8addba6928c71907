"""The input gradient of all outputs of a model, however large these are."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.attacks import auto_alpha
from hashrobust.models import ClassifyingModel, Hasher, frozen, told_of
from hashrobust.rules import exact_gradient


def scaled_gradient(model: Hasher | ClassifyingModel, images: Tensor) -> Tensor | None:
    """The exact gradient at images (B, C, H, W) of the sum of tanh(alpha z), alpha by `auto_alpha`.

    Of outputs far from 0 tanh(z) is flat, and any two gradients are equal. Zeros where the outputs do not depend on the
    images; None where nothing was differentiated at all.

    Raises:
        ModelError: a model of others fails on the way back.
    """
    images = images.detach().to(model.device).requires_grad_()
    with frozen(model), exact_gradient(model), torch.enable_grad():
        z = model(images)
        if not z.requires_grad:
            return None
        total = torch.tanh(auto_alpha(z.detach()) * z).sum()
        with told_of(model):
            found = torch.autograd.grad(total, images, allow_unused=True)[0]
    return torch.zeros_like(images) if found is None else found
