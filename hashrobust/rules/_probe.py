"""What a forward pass tells of a network: which layers it calls, and what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hashrobust.rules._exact import exact_gradient


@dataclass
class Reading:
    """What a module read in one forward pass: the shapes of its inputs, and whether weights stand before it."""

    shapes: set[tuple[int, ...]] = field(default_factory=set)
    after_weights: bool = False


def called(model: nn.Module, probe: Tensor) -> set[nn.Module]:
    """The modules that a forward pass calls; the model and the random state are as before."""
    found: set[nn.Module] = set()
    with _evaluating(model, lambda module, _: found.add(module)), torch.no_grad():
        model(probe)
    return found


def readings(model: nn.Module, probe: Tensor) -> tuple[dict[nn.Module, Reading], object]:
    """What each module that a forward pass calls reads first, and the network's output; all else is as before.

    Weights are parameters of two dimensions and more: an input stands after them if it depends on one.
    """
    found: dict[nn.Module, Reading] = {}

    def watch(module: nn.Module, arguments: tuple[object, ...]) -> None:
        if arguments and isinstance(arguments[0], Tensor):
            reading = found.setdefault(module, Reading())
            reading.shapes.add(tuple(arguments[0].shape))
            reading.after_weights |= arguments[0].requires_grad

    needed = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        for parameter in needed:
            parameter.requires_grad_(parameter.dim() >= 2 and parameter.is_floating_point())
        with _evaluating(model, watch), exact_gradient(model), torch.enable_grad():
            return found, model(probe)
    finally:
        for parameter, need in needed.items():
            parameter.requires_grad_(need)


@contextmanager
def _evaluating(model: nn.Module, watch: Callable[[nn.Module, tuple[object, ...]], None]) -> Iterator[None]:
    """Eval mode, and `watch(module, arguments)` before each module that is called; both end with the block."""
    training = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_pre_hook(watch) for module in training]
    # On their fast path torch's transformer layers call no submodule.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        model.eval()
        with torch.random.fork_rng():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
