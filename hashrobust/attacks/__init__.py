"""Attacks: images to adversarial images inside an L-infinity ball."""

from __future__ import annotations

from typing import Any

from hashrobust.errors import InputError
from hashrobust.registry import Registry, did_you_mean

attacks: Registry[Attack] = Registry("attack", "hashrobust.attacks")

# After the registry, which the modules of this folder import from here.
from ._alpha import auto_alpha  # noqa: E402
from ._ball import ball, inside_ball, outward, project, round_to_8_bits  # noqa: E402
from ._base import Attack, input_gradient  # noqa: E402
from ._center import center_codes  # noqa: E402
from ._classifier import ClassifierAttack  # noqa: E402
from ._context import AttackContext, AttackResult, Clean  # noqa: E402
from ._gradient_check import GradientCheck, check_gradient  # noqa: E402
from ._logits import classification_objective  # noqa: E402
from ._loop import GradientAttack  # noqa: E402
from ._perturbation import perturbation  # noqa: E402
from ._random import uniform_noise  # noqa: E402
from ._search import OracleError, SearchAttack  # noqa: E402
from ._targets import draw_targets  # noqa: E402

__all__ = [
    "Attack",
    "AttackContext",
    "AttackResult",
    "ClassifierAttack",
    "Clean",
    "GradientAttack",
    "GradientCheck",
    "OracleError",
    "SearchAttack",
    "attacks",
    "auto_alpha",
    "ball",
    "build_attack",
    "center_codes",
    "check_gradient",
    "classification_objective",
    "draw_targets",
    "input_gradient",
    "inside_ball",
    "outward",
    "perturbation",
    "project",
    "round_to_8_bits",
    "uniform_noise",
]


def build_attack(name: str, *, preset: str | None = None, **params: Any) -> Attack:
    """Build a registered attack; `params` win over those of the preset, no preset is the modern default.

    Raises:
        UnknownNameError: no such attack.
        InputError: no such preset or parameter, or a value out of range.
    """
    published: dict[str, dict[str, Any]] = getattr(attacks[name], "presets", {})
    if preset is None:
        return attacks.build(name, **params)
    if preset not in published:
        hint = did_you_mean(preset, sorted(published)) if published else "it has none"
        raise InputError(f"attack '{name}' has no preset '{preset}': {hint}")
    return attacks.build(name, **{**published[preset], **params})
