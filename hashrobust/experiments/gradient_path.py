"""Whose gradient an attacker follows: the exact one, the model's own rule's, or a named rule's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from hashrobust.experiments.opened import Model
from hashrobust.models import Network, attackable, frozen
from hashrobust.options import ALL_LAYERS
from hashrobust.rules import convert, exact_gradient, feedback_scale, feedback_seed, takes_scale


def named_rule(gradient: str) -> tuple[str, str]:
    """The rule and the patterns of layers of `rule:NAME` or `rule:NAME:PATTERNS`, patterns joined by +.

    `rule:frsf:head+backbone.fc*` is frsf in the layers `head,backbone.fc*`.
    """
    name, _, patterns = gradient.removeprefix("rule:").partition(":")
    return name, patterns.replace("+", ",") or ALL_LAYERS


def differentiated(model: Model, gradient: str) -> Model:
    """What the attacker differentiates: the model or, for `rule:NAME`, a copy converted to that rule.

    The forward pass, and so the answers, are the same (up to float rounding: networks of our own are copied, see
    `attackable`; models of others are attacked as they are). A named rule's feedback is drawn with the seed and
    scale of the model's own (0 and "xavier" if it has none), in the layers that are named with it, or in all.
    """
    through = model
    if gradient.startswith("rule:"):
        through = copy.deepcopy(model)
        name, layers = named_rule(gradient)
        scale = feedback_scale(model) if takes_scale(name) else None
        convert(through, name, seed=feedback_seed(model) or 0, scale=scale or "xavier", layers=layers)
    return attackable(through) if isinstance(through, Network) else through


@contextmanager
def gradient_path(through: Model, gradient: str) -> Iterator[Model]:
    """The model that the attacker differentiates, frozen: exactly, or by the rule that it follows."""
    exact = exact_gradient(through) if gradient in ("exact", "none") else nullcontext()
    with exact, frozen(through):
        yield through
