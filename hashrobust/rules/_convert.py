"""Giving a model's layers a rule, in place."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hashrobust.errors import InputError
from hashrobust.options import ALL_LAYERS
from hashrobust.rules._direct import DIRECT_KIND, Broadcast, DirectLayer, detach, prepare_direct
from hashrobust.rules._draws import keyed_uniform
from hashrobust.rules._layers import (
    FEEDBACK_KIND,
    Assignment,
    ConvertedLayer,
    FeedbackLayer,
    FixedConv2d,
)
from hashrobust.rules._probe import called
from hashrobust.rules._rule import Rule, rules
from hashrobust.rules._select import chosen_names
from hashrobust.rules._steps import feedback_weight
from hashrobust.rules.direct_feedback_alignment import DirectFeedbackAlignment

SCALES = ("xavier", "matched")
_PLAIN_KIND: dict[type[nn.Module], type[nn.Module]] = {
    **{kind: plain for plain, kind in FEEDBACK_KIND.items()},
    **{kind: plain for plain, kind in DIRECT_KIND.items()},
    FixedConv2d: nn.Conv2d,
}


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did."""

    rule: str
    converted: tuple[str, ...]
    """Names of the layers that follow the rule now; for "bp", of those that were made plain again."""
    left: dict[str, str]
    """Names of the modules that hold weights and stay on backpropagation, and why they do."""


def convert(
    model: nn.Module,
    rule: str,
    *,
    seed: int = 0,
    scale: str = "xavier",
    layers: str = ALL_LAYERS,
    probe: Tensor | None = None,
) -> ConversionReport:
    """Let the error travel back through `model` by `rule`; outputs and state_dict() stay as they are.

    The model is changed in place: its convolution and linear layers change class, so that parameters,
    hooks, tied weights and what optimizers hold stay. Converting again replaces the rule; "bp" gives the
    plain layers back. A layer that the model holds under several names is converted once, by the first.

    Args:
        model: any module; for "dfa" the whole network, from images to the outputs that the loss is taken of.
        rule: a registered name, such as "frsf".
        seed: with the layer's name it determines what is drawn for the layer.
        scale: "xavier", the rule's own scale, or "matched", which gives V the norm that W has now.
        layers: patterns over names of modules, comma-separated, such as "backbone.*" or "conv1,head"; all other
            layers stay on backpropagation (see `chosen_names`).
        probe: an input batch of two samples or more; layers that its forward pass (in eval mode) never calls are
            left. "dfa" needs one, and takes zeros where the model tells its `input_shape`.

    Raises:
        UnknownNameError: no such rule.
        InputError: an unknown scale or one that the rule has no use for, a pattern that fits no layer, no layer that
            could be converted, weights without a norm to match, or no probe where one is needed.
    """
    built = rules.build(rule)
    seed = operator.index(seed)  # draws are keyed by its text, and numpy writes its own numbers otherwise
    if scale not in SCALES:
        raise InputError(f"feedback scale '{scale}' is unknown: choose one of {', '.join(SCALES)}")
    if built.exact:
        if layers != ALL_LAYERS:
            raise InputError(f"rule '{rule}' is plain backpropagation in all layers: leave layers out")
        return ConversionReport(rule, tuple(_restore(model)), {})
    chosen, left = _choose(model, layers, None if probe is None else called(model, probe))
    if not chosen:
        raise InputError(
            f"rule '{rule}' converts no layer of this {type(model).__name__}: it needs a plain "
            f"{', '.join(kind.__name__ for kind in FEEDBACK_KIND)} layer; {_listing(left)}"
        )
    prepared: dict[str, tuple[Assignment, Tensor | None]] = {}
    broadcast = None
    if isinstance(built, DirectFeedbackAlignment):
        if scale != "xavier":
            raise InputError(f"rule '{rule}' has no V whose norm could be matched: choose scale 'xavier'")
        broadcast = Broadcast()
        prepared, unfit = prepare_direct(model, chosen, built, seed, layers, _probe_for(model, rule, probe))
        left |= unfit
    else:
        assert isinstance(built, Rule)
        for name, layer in chosen.items():
            prepared[name] = _prepare(name, layer, rule, built, seed=seed, scale=scale, layers=layers)
    _restore(model)
    _assign({chosen[name]: given for name, given in prepared.items()}, broadcast)
    if broadcast is not None:
        broadcast.attach(model)
    return ConversionReport(rule, tuple(prepared), left)


def takes_scale(rule: str) -> bool:
    """Whether a rule's feedback has a scale to choose, which needs a V in the place of W.

    Raises:
        UnknownNameError: no such rule.
    """
    built = rules.build(rule)
    return isinstance(built, Rule) and not built.exact


def converted_layers(model: nn.Module) -> dict[str, ConvertedLayer]:
    """The converted layers by their first name in `model`."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, ConvertedLayer)}


def draw_feedback(layer: nn.Module, rule: Rule, assignment: Assignment, *key: int) -> Tensor | None:
    """What the rule draws for `layer` under this key, at the scale of its assignment."""
    weight = _weight(layer)
    drawn = rule.draw(
        weight.shape, lambda bound: keyed_uniform(weight.shape, bound, assignment.seed, assignment.name, *key)
    )
    if drawn is None:
        return None
    drawn = drawn.to(weight)
    if assignment.norm is not None:
        length = float(norm(feedback_weight(rule, weight, drawn, weight.dtype)))
        drawn *= (
            assignment.norm / length if length else 1.0
        )  # signs of weights that are all zero have no norm
    return drawn


def norm(tensor: Tensor) -> Tensor:
    """The 2-norm of all elements, summed in double precision so that thread counts do not show."""
    length: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return length


def _weight(layer: nn.Module) -> Tensor:
    if isinstance(layer, FeedbackLayer):
        return layer.rule_weight()
    return layer.get_parameter("weight").detach()


def _prepare(
    name: str, layer: nn.Module, rule_name: str, rule: Rule, *, seed: int, scale: str, layers: str
) -> tuple[Assignment, Tensor | None]:
    """The assignment of one layer and its first draw; the layer is not changed yet."""
    target = float(norm(_weight(layer))) if scale == "matched" else None
    if target == 0:
        raise InputError(
            f"layer '{name}' has zero weights, whose norm feedback cannot match: use scale 'xavier'"
        )
    assignment = Assignment(name, rule_name, rule, seed, scale, layers, target)
    return assignment, draw_feedback(layer, rule, assignment, 0)


def _assign(
    prepared: Mapping[nn.Module, tuple[Assignment, Tensor | None]], broadcast: Broadcast | None
) -> None:
    """Make plain layers follow their assignments: through their V, or by the broadcast of the output's error."""
    kinds: Mapping[type[nn.Module], type[ConvertedLayer]] = (
        FEEDBACK_KIND if broadcast is None else DIRECT_KIND
    )
    for layer, (assignment, drawn) in prepared.items():
        layer.__class__ = kinds[_PLAIN_KIND.get(type(layer), type(layer))]
        assert isinstance(layer, ConvertedLayer)
        layer.assignment = assignment
        layer.register_buffer("feedback", drawn, persistent=False)
        if isinstance(layer, DirectLayer):
            assert broadcast is not None
            layer.broadcast = broadcast


def _restore(model: nn.Module) -> list[str]:
    """Make all converted layers plain; the names of those that changed."""
    restored = converted_layers(model)
    for layer in restored.values():
        del layer.assignment, layer.feedback
        if isinstance(layer, DirectLayer):
            del layer.broadcast
        plain = _PLAIN_KIND[type(layer)]
        layer.__class__ = plain  # type: ignore[assignment]
    detach(model)
    return list(restored)


def _probe_for(model: nn.Module, rule: str, probe: Tensor | None) -> Tensor:
    """The probe, or one of zeros for a model that tells the shape of its images."""
    if probe is not None:
        return probe
    shape = getattr(model, "input_shape", None)
    if shape is None:
        raise InputError(
            f"rule '{rule}' draws a matrix for the input of each layer, and this {type(model).__name__} does not tell "
            "the shape of its images: give probe, a batch of two"
        )
    own = next(
        (parameter for parameter in model.parameters() if parameter.is_floating_point()), torch.zeros(1)
    )
    return torch.zeros(2, *shape, dtype=own.dtype, device=own.device)


def _choose(
    model: nn.Module, layers: str, called: set[nn.Module] | None
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The layers to convert, and for all others that hold weights the reason why they are left."""
    chosen: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    for name, layer in model.named_modules():
        obstacle = _obstacle(layer)
        if obstacle is None and called is not None and layer not in called:
            obstacle = "the forward pass of the probe never calls it"
        if obstacle is None:
            chosen[name] = layer
        elif isinstance(layer, tuple(FEEDBACK_KIND)) or _holds_weight(layer):
            left[name] = obstacle
    if layers != ALL_LAYERS:
        named = chosen_names(list(chosen), layers, [name for name, _ in model.named_modules()])
        left |= dict.fromkeys(chosen.keys() - named, f"it is not among the layers '{layers}'")
        chosen = {name: layer for name, layer in chosen.items() if name in named}
    return chosen, left


def _obstacle(layer: nn.Module) -> str | None:
    """Why this module cannot be converted; None if it can."""
    kind = _PLAIN_KIND.get(type(layer), type(layer))
    if kind not in FEEDBACK_KIND:
        bases = [plain.__name__ for plain in FEEDBACK_KIND if issubclass(kind, plain)]
        if bases:
            return f"{kind.__name__} is a subclass of {bases[0]}, which may compute something else"
        return f"{kind.__name__} is not a layer that rules know"
    weight = layer._parameters.get("weight")
    if weight is None:
        return "its weight is computed from other parameters"
    if is_lazy(weight):
        return "its weight has no shape yet"
    if "forward" in vars(layer):
        return "its forward method was replaced"
    return None


def _holds_weight(module: nn.Module) -> bool:
    own = (parameter for parameter in module._parameters.values() if parameter is not None)
    return any(is_lazy(parameter) or parameter.dim() >= 2 for parameter in own)


def _listing(left: dict[str, str]) -> str:
    if not left:
        return "the model holds no weights"
    return "; ".join(f"'{name}': {reason}" for name, reason in list(left.items())[:5])
