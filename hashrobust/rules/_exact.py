"""Which models are, for the moment, to be differentiated exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

# Kept apart from the modules, so that a copy made inside the context does not stay exact for ever.
_depth: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def is_exact(module: nn.Module) -> bool:
    """Whether the module is inside `exact_gradient`."""
    return module in _depth


@contextmanager
def exact_gradient(model: nn.Module) -> Iterator[None]:
    """Give `model` the gradient of backpropagation, whatever its rule; plain models are unaffected.

    The choice is made in the forward pass: a graph built inside stays exact when its backward pass runs
    outside, and one built outside keeps the rule's feedback when its backward pass runs inside.
    Contexts nest, end with exceptions, and concern this model only.
    """
    modules = list(model.modules())
    for module in modules:
        _depth[module] = _depth.get(module, 0) + 1
    try:
        yield
    finally:
        for module in modules:
            _depth[module] -= 1
            if not _depth[module]:
                del _depth[module]
