"""A copy of a network that computes the same, made to be attacked fast: no BatchNorm, images laid out as the CPU likes.

Attacks are crafted on it; what is scored is always the network itself.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import fx, nn

from hashrobust.models.image_model import frozen
from hashrobust.models.layout import stay_channels_last
from hashrobust.models.network import Network
from hashrobust.rules import ConvertedLayer, FeedbackLayer, Folding, fix_weights

AnyNetwork = TypeVar("AnyNetwork", bound=Network)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

# Outputs of the copy differ from the network's by float rounding; more, in units of their mean size, is a fault.
_ROUNDING = 1e-3


def attackable(network: AnyNetwork) -> AnyNetwork:
    """A frozen copy in eval mode, of equal outputs and input gradients (exact or by rule) up to float rounding.

    Each BatchNorm that follows nothing but one convolution is folded into it: W becomes gain o W, and where the
    convolution has feedback, V becomes gain o V, which sends back what both layers did. On the CPU
    weights are laid out channels last. The copy's weights must stay as they are, since its V are made once a draw
    and not at each step. A network that cannot be traced, or whose copy would answer otherwise, is copied as it is.
    """
    copied = _frozen_copy(network)
    for convolution, norm in _pairs(copied):
        _fold(copied, convolution, norm)
    stay_channels_last(copied)
    copied = copied if _same(copied, network) else _frozen_copy(network)
    fix_weights(copied)
    return copied


def _frozen_copy(network: AnyNetwork) -> AnyNetwork:
    copied = copy.deepcopy(network).eval()
    copied.requires_grad_(False)
    return copied


class _Tracer(fx.Tracer):
    """Looks into every module but those of torch and those with feedback."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, ConvertedLayer) or super().is_leaf_module(module, name)


def _pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Names of convolutions and of the BatchNorm that alone reads the output of each; none if nobody can tell."""
    try:
        graph = _Tracer().trace(network)
    except Exception:  # anything may happen in tracing the code of others
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    modules = dict(network.named_modules())
    found = []
    for node in calls:
        before = node.args[0] if node.args else None
        if (
            isinstance(before, fx.Node)
            and before.op == "call_module"
            and list(before.users) == [node]
            and targets.count(node.target) == targets.count(before.target) == 1
            and _is_convolution(modules[str(before.target)])
            and _is_fixed_norm(modules[str(node.target)])
        ):
            found.append((str(before.target), str(node.target)))
    return found


def _is_convolution(module: nn.Module) -> bool:
    known = type(module) in _CONVOLUTIONS or isinstance(module, ConvertedLayer)
    return known and isinstance(module, _CONVOLUTIONS) and not _has_hooks(module)


def _is_fixed_norm(module: nn.Module) -> bool:
    return type(module) in _NORMS and module.running_var is not None and not _has_hooks(module)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


@torch.no_grad()
def _fold(network: nn.Module, convolution: str, norm: str) -> None:
    """y -> gain (y - mean) + beta with gain = gamma / sqrt(variance + eps), Ioffe and Szegedy, arXiv 1502.03167."""
    layer, batch_norm = network.get_submodule(convolution), network.get_submodule(norm)
    assert isinstance(layer, _CONVOLUTIONS) and isinstance(batch_norm, _NORMS)
    mean, variance = batch_norm.running_mean, batch_norm.running_var
    assert mean is not None and variance is not None
    gain = 1 / (variance + batch_norm.eps).sqrt()
    gain = gain if batch_norm.weight is None else gain * batch_norm.weight
    shift = -gain * mean if batch_norm.bias is None else batch_norm.bias - gain * mean
    if layer.bias is not None:
        shift = shift + gain * layer.bias
    gain = gain.view(-1, *[1] * (layer.weight.ndim - 1))
    if isinstance(layer, FeedbackLayer):
        layer.folding = Folding(layer.weight.detach().clone(), gain)
    layer.weight = nn.Parameter(gain * layer.weight, requires_grad=False)
    layer.bias = nn.Parameter(shift, requires_grad=False)
    parent, _, name = norm.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Identity())


@torch.no_grad()
def _same(copied: Network, network: Network) -> bool:
    """Whether the outputs of two images agree up to rounding."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, *network.input_shape, generator=generator).to(network.device)
    with frozen(network):
        expected, found = network(images), copied(images)
    tolerance = _ROUNDING * float(expected.abs().mean())
    return bool(((found - expected).abs() <= tolerance).all())
