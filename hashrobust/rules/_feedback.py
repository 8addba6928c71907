"""What a converted model holds beside its parameters: its rule and what was drawn for its layers."""

from __future__ import annotations

import dataclasses
import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hashrobust.errors import InputError
from hashrobust.options import ALL_LAYERS
from hashrobust.rules._convert import converted_layers, draw_feedback, norm
from hashrobust.rules._layers import FeedbackLayer

_NORM = ".norm"


def rule_of(model: nn.Module) -> str:
    """The name of the rule that the model follows; "bp" for a plain one.

    Raises:
        InputError: parts of the model follow different rules.
    """
    rule: str | None = _common(model, "rule_name")
    return rule or "bp"


def feedback_seed(model: nn.Module) -> int | None:
    """The seed that the model was converted with; None for a plain one.

    Raises:
        InputError: parts of the model were converted with different seeds.
    """
    seed: int | None = _common(model, "seed")
    return seed


def feedback_scale(model: nn.Module) -> str | None:
    """The feedback scale, "xavier" or "matched"; None for a plain model.

    Raises:
        InputError: parts of the model were converted with different scales.
    """
    scale: str | None = _common(model, "scale")
    return scale


def layers_of(model: nn.Module) -> str:
    """The patterns by which the layers that follow the rule were chosen; "*" for all, and for a plain model.

    Raises:
        InputError: parts of the model were converted by different patterns.
    """
    layers: str | None = _common(model, "layers")
    return layers or ALL_LAYERS


def _common(model: nn.Module, field: str) -> Any:
    """The value that the assignments of all layers share; None if there are none."""
    values = {getattr(layer.assignment, field) for layer in converted_layers(model).values()}
    if len(values) > 1:
        listing = ", ".join(sorted(str(value) for value in values))
        raise InputError(f"the model's layers differ in their {field} ({listing}): convert it as a whole")
    return values.pop() if values else None


def _feedback_layers(model: nn.Module) -> dict[str, FeedbackLayer]:
    """The layers that have a V, by their first name in `model`."""
    return {
        name: layer for name, layer in converted_layers(model).items() if isinstance(layer, FeedbackLayer)
    }


def redraw_feedback(model: nn.Module, *key: int) -> None:
    """Draw anew, keyed by the seed, the layer's name and `key`, where the rule redraws; else do nothing.

    `convert` made the first draw with the key (0,). Graphs that exist already keep the draw that they
    were built with.
    """
    numbers = [operator.index(number) for number in key]
    for layer in _feedback_layers(model).values():
        if layer.rule.redraws:
            # Past nn.Module's __setattr__, which takes as long as drawing for a small layer.
            layer._buffers["feedback"] = draw_feedback(layer, layer.rule, layer.assignment, *numbers)


def feedback_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of what is stored for each layer, by its name: a tensor of the weight's shape, or of shape ().

    Of "dfa" it is the matrix (network's outputs, elements of the layer's input); layers that read the image have
    none. With scale "matched" also "<name>.norm", of shape (): the norm of V that later draws are scaled to.
    """
    state: dict[str, Tensor] = {}
    for name, layer in converted_layers(model).items():
        if layer.feedback is not None:
            state[name] = layer.feedback.detach().clone(memory_format=torch.contiguous_format)
        if layer.assignment.norm is not None:
            state[name + _NORM] = torch.tensor(layer.assignment.norm, dtype=torch.float64)
    return state


def load_feedback_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put stored feedback in the place of what `convert` drew.

    Raises:
        InputError: a layer's feedback is missing, unexpected, or of another shape; the model is unchanged.
    """
    present = feedback_state(model)
    _require_same(present, state)
    for name, layer in converted_layers(model).items():
        if layer.feedback is not None:
            layer.feedback = torch.empty_like(layer.feedback).copy_(state[name])
        if layer.assignment.norm is not None:
            layer.assignment = dataclasses.replace(layer.assignment, norm=float(state[name + _NORM]))


def _require_same(present: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Refuse a state whose names or shapes are not those of `present`."""
    shapes = [
        f"'{name}' {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in present.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems = {
        "missing": [f"'{name}'" for name in present if name not in state],
        "unexpected": [f"'{name}'" for name in state if name not in present],
        "of another shape": shapes,
    }
    found = [f"{what}: {', '.join(names)}" for what, names in problems.items() if names]
    if found:
        raise InputError(
            f"the feedback state does not fit the model ({'; '.join(found)}): "
            "convert the same model by the same rule and scale first"
        )


@dataclass(frozen=True)
class LayerAlignment:
    """How the feedback of one layer stands to its weight."""

    layer: str
    angle_degrees: float
    """Between V and W, 0 to 180; not a number if either is zero."""
    norm_ratio: float
    """2-norm of V over that of W."""


@torch.no_grad()
def alignment(model: nn.Module) -> list[LayerAlignment]:
    """The angle between V and W and the ratio of their norms in each layer (after Lillicrap et al. 2014).

    Layers without a V, which are plain or follow "dfa", are left out.
    """
    found = []
    for name, layer in _feedback_layers(model).items():
        weight, v = layer.rule_weight(), layer.feedback_weight()
        norm_w, norm_v = float(norm(weight)), float(norm(v))
        product = float((v * weight).sum(dtype=torch.float64))
        angle = math.nan
        if norm_v * norm_w > 0:
            angle = math.degrees(math.acos(max(-1.0, min(1.0, product / (norm_v * norm_w)))))
        found.append(LayerAlignment(name, angle, norm_v / norm_w if norm_w > 0 else math.nan))
    return found
