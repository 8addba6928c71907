"""Giving a model's layers a rule, in place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hashrobust.errors import InputError
from hashrobust.rules._draws import keyed_uniform
from hashrobust.rules._layers import FEEDBACK_KIND, PLAIN_KIND, Assignment, FeedbackLayer, feedback_weight
from hashrobust.rules._rule import Rule, rules

SCALES = ("xavier", "matched")


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did."""

    rule: str
    converted: tuple[str, ...]
    """Names of the layers that follow the rule now; for "bp", of those that were made plain again."""
    left: dict[str, str]
    """Names of the modules that hold weights and stay on backpropagation, and why they do."""


def convert(
    model: nn.Module, rule: str, *, seed: int = 0, scale: str = "xavier", probe: Tensor | None = None
) -> ConversionReport:
    """Let the error travel back through `model` by `rule`; outputs and state_dict() stay as they are.

    The model is changed in place: its convolution and linear layers change class, so that parameters,
    hooks, tied weights and what optimizers hold stay. Converting again replaces the rule; "bp" gives the
    plain layers back. A layer that the model holds under several names is converted once, by the first.

    Args:
        model: any module.
        rule: a registered name, such as "frsf".
        seed: with the layer's name it determines what is drawn for the layer.
        scale: "xavier", the rule's own scale, or "matched", which gives V the norm that W has now.
        probe: an input batch; layers that its forward pass (in eval mode) never calls are left.

    Raises:
        UnknownNameError: no such rule.
        InputError: an unknown scale, no layer that could be converted, or weights without a norm to match.
    """
    built = rules.build(rule)
    if scale not in SCALES:
        raise InputError(f"feedback scale '{scale}' is unknown: choose one of {', '.join(SCALES)}")
    if built.exact:
        return ConversionReport(rule, tuple(_restore(model, keep=set())), {})
    chosen, left = _choose(model, None if probe is None else _called(model, probe))
    if not chosen:
        raise InputError(
            f"rule '{rule}' converts no layer of this {type(model).__name__}: it needs a plain "
            f"{', '.join(kind.__name__ for kind in FEEDBACK_KIND)} layer; {_listing(left)}"
        )
    prepared = [
        (layer, *_prepare(name, layer, rule, built, seed=seed, scale=scale)) for name, layer in chosen.items()
    ]
    _restore(model, keep=set(chosen))
    for layer, assignment, drawn in prepared:
        _assign(layer, assignment, drawn)
    return ConversionReport(rule, tuple(chosen), left)


def feedback_layers(model: nn.Module) -> dict[str, FeedbackLayer]:
    """The converted layers by their first name in `model`."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, FeedbackLayer)}


def draw_feedback(layer: nn.Module, assignment: Assignment, *key: int) -> Tensor | None:
    """What the rule draws for `layer` under this key, at the scale of its assignment."""
    weight = _weight(layer)
    drawn = assignment.rule.draw(
        weight.shape, lambda bound: keyed_uniform(weight.shape, bound, assignment.seed, assignment.name, *key)
    )
    if drawn is None:
        return None
    drawn = drawn.to(weight)
    if assignment.norm is not None:
        drawn *= assignment.norm / float(norm(feedback_weight(assignment.rule, weight, drawn, weight.dtype)))
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
    name: str, layer: nn.Module, rule_name: str, rule: Rule, *, seed: int, scale: str
) -> tuple[Assignment, Tensor | None]:
    """The assignment of one layer and its first draw; the layer is not changed yet."""
    target = float(norm(_weight(layer))) if scale == "matched" else None
    if target == 0:
        raise InputError(
            f"layer '{name}' has zero weights, whose norm feedback cannot match: use scale 'xavier'"
        )
    assignment = Assignment(name, rule_name, rule, seed, scale, target)
    return assignment, draw_feedback(layer, assignment, 0)


def _assign(layer: nn.Module, assignment: Assignment, drawn: Tensor | None) -> None:
    if not isinstance(layer, FeedbackLayer):
        layer.__class__ = FEEDBACK_KIND[type(layer)]
    assert isinstance(layer, FeedbackLayer)
    layer.assignment = assignment
    layer.register_buffer("feedback", drawn, persistent=False)


def _restore(model: nn.Module, keep: set[str]) -> list[str]:
    """Make all converted layers plain but those to keep; the names of those that changed."""
    restored = [name for name in feedback_layers(model) if name not in keep]
    for name in restored:
        layer = model.get_submodule(name)
        del layer.assignment, layer.feedback
        layer.__class__ = PLAIN_KIND[type(layer)]
    return restored


def _choose(model: nn.Module, called: set[nn.Module] | None) -> tuple[dict[str, nn.Module], dict[str, str]]:
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
    return chosen, left


def _obstacle(layer: nn.Module) -> str | None:
    """Why this module cannot be converted; None if it can."""
    kind = PLAIN_KIND.get(type(layer), type(layer))
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


def _called(model: nn.Module, probe: Tensor) -> set[nn.Module]:
    """The modules that a forward pass calls; the model and the random state are as before."""
    called: set[nn.Module] = set()
    training = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_pre_hook(lambda module, _: called.add(module)) for module in training]
    # On their fast path torch's transformer layers call no submodule.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        model.eval()
        with torch.no_grad(), torch.random.fork_rng():
            model(probe)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    return called


def _listing(left: dict[str, str]) -> str:
    if not left:
        return "the model holds no weights"
    return "; ".join(f"'{name}': {reason}" for name, reason in list(left.items())[:5])
