"""How far the error that a rule carries back is from the exact one, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.rules._convert import converted_layers
from hashrobust.rules._exact import exact_gradient


@dataclass(frozen=True)
class SignalAgreement:
    """The error at the input of one layer, by the rule and exactly; means over images.

    `depth` counts converted layers from the output: 1 is the last. `norm_ratio` is rule over exact.
    """

    layer: str
    depth: int
    cosine: float
    sign_agreement: float
    norm_ratio: float


def signal_agreement(model: nn.Module, images: Tensor) -> list[SignalAgreement]:
    """Compare both errors of the sum of tanh(z / mean |z|) o sign(z) at each converted layer, the last layer first.

    scale = z.detach().abs().mean(dim=1, keepdim=True)
    u = torch.tanh(z / scale.where(scale > 0, scale.new_ones(())))
    score = (u * torch.where(z >= 0, 1.0, -1.0)).sum()
    errors = torch.autograd.grad(score, list(inputs.values())) if inputs else ()
    """
    by_rule = _signals(model, images)
    with exact_gradient(model):
        exact = _signals(model, images)
    names = [name for name in reversed(list(converted_layers(model))) if name in exact]
    return [
        SignalAgreement(
            layer=name,
            depth=depth,
            cosine=float(F.cosine_similarity(by_rule[name], exact[name], dim=1).mean()),
            sign_agreement=float((by_rule[name].sign() == exact[name].sign()).double().mean()),
            norm_ratio=float((by_rule[name].norm(dim=1) / exact[name].norm(dim=1).clamp(min=1e-30)).mean()),
        )
        for depth, name in enumerate(names, start=1)
    ]


def _signals(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The error (B, n) at the input of each converted layer."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if arguments and arguments[0].requires_grad:
                inputs[name] = arguments[0]

        return hook

    handles = [
        layer.register_forward_pre_hook(keep(name))  # type: ignore[arg-type]
        for name, layer in converted_layers(model).items()
    ]
    try:
        with torch.enable_grad():
            z = model(images.detach().clone().requires_grad_(True))
            scale = z.detach().abs().mean(dim=1, keepdim=True)
            u = torch.tanh(z / scale.where(scale > 0, scale.new_ones(())))
            score = (u * torch.where(z >= 0, 1.0, -1.0)).sum()
            errors = torch.autograd.grad(score, list(inputs.values())) if inputs else ()
    finally:
        for handle in handles:
            handle.remove()
    return {name: error.flatten(1) for name, error in zip(inputs, errors, strict=True)}
