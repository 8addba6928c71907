"""The keys of a study's matrix: how the value of each is read, or each item of an axis. No torch here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hashrobust.errors import InputError
from hashrobust.experiments.config import parse_epsilon
from hashrobust.options import MOST_BITS, MOST_IMAGE_SIZE, MOST_THREADS
from hashrobust.registry import did_you_mean

TASKS = ("hashing", "classification")
WEIGHTS = ("pretrained", "none", "imagenet")
SCALES = ("xavier", "matched")
ALL_STEPS = "all"
"""Among the steps of an axis: the whole training."""


@dataclass(frozen=True)
class Choice:
    """A component with parameters of its own, as an attack or an objective stands on an axis.

    An attack may have epsilons and gradients of its own, in place of those of the matrix.
    """

    name: str
    preset: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    epsilons: tuple[float, ...] = ()
    gradients: tuple[str, ...] = ()


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{value!r} is no name")
    return value


def _one_of(*known: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if _name(value) not in known:
            raise InputError(f"unknown '{value}': {did_you_mean(value, list(known))}")
        return str(value)

    return read


def _whole(least: int, most: int | None = None) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{value!r} is no whole number of at least {least}")
        if most is not None and value > most:
            raise InputError(f"{value} is more than {most}")
        return value

    return read


def _objective(value: Any) -> Choice:
    if not isinstance(value, dict):
        return Choice(_name(value))
    if "objective" not in value:
        raise InputError('the table lacks its objective: write { objective = "NAME", ... }')
    return Choice(_name(value["objective"]), params={k: v for k, v in value.items() if k != "objective"})


def _attack(value: Any) -> Choice:
    if not isinstance(value, dict):
        return Choice(_name(value))
    if "attack" not in value:
        raise InputError('the table lacks its attack: write { attack = "NAME", ... }')
    params = {key: _number(item) for key, item in value.items()}
    own = {key: params.pop(key) for key in ("epsilons", "gradients") if key in params}
    for key, items in own.items():
        if not isinstance(items, list) or not items:
            raise InputError(f"{key} of an attack are a list that is not empty, such as {KEYS[key].example}")
    return Choice(
        name=_name(params.pop("attack")),
        preset=_name(params.pop("preset")) if "preset" in params else None,
        params=params,
        **{key: tuple(KEYS[key].read(item) for item in items) for key, items in own.items()},
    )


def _number(value: Any) -> Any:
    """`1/255` as a number; any other value as it is."""
    if isinstance(value, str) and re.fullmatch(r"[\d.]+/[\d.]+", value):
        return parse_epsilon(value)
    return value


def _epsilon(value: Any) -> float:
    return parse_epsilon(value if isinstance(value, str) else f"{_real(value)}")


def _real(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{value!r} is no number")
    return value


def _steps(value: Any) -> int | None:
    return None if value == ALL_STEPS else _whole(0)(value)


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{value!r} is no table")
    return value


def _tables(value: Any) -> Mapping[str, Mapping[str, Any]]:
    for task, settings in _table(value).items():
        _one_of(*TASKS)(task)
        _table(settings)
    return dict(value)


@dataclass(frozen=True)
class Key:
    """How one key of a matrix is read: each item of an axis, or the value of a setting."""

    read: Callable[[Any], Any]
    example: str
    axis: bool = True
    field: str = ""


KEYS: Mapping[str, Key] = {
    "tasks": Key(_one_of(*TASKS), '["hashing"]'),
    "datasets": Key(_name, '["digits"]'),
    "backbones": Key(_name, '["lenet"]'),
    "weights": Key(_one_of(*WEIGHTS), '["pretrained"]'),
    "objectives": Key(_objective, '["dpsh"]'),
    "bits": Key(_whole(1, MOST_BITS), "[32]"),
    "rules": Key(_name, '["bp", "frsf"]'),
    "scales": Key(_one_of(*SCALES), '["xavier"]'),
    "layers": Key(_name, '["*", "backbone.*"]'),
    "attacks": Key(_attack, '["center", { attack = "hag", steps = 50 }]'),
    "epsilons": Key(_epsilon, '["8/255"]'),
    "gradients": Key(_name, '["exact", "rule"]'),
    "seeds": Key(_whole(0), "[0, 1, 2]"),
    "steps": Key(_steps, f'[0, 100, "{ALL_STEPS}"]', field="max_steps"),
    "queries": Key(_whole(1), "200", axis=False),
    "threads": Key(_whole(1, MOST_THREADS), "1", axis=False),
    "image_size": Key(_whole(1, MOST_IMAGE_SIZE), "224", axis=False),
    "attack": Key(_table, "{ batch_size = 100 }", axis=False),
    "pretrain": Key(_table, "{ epochs = 30 }", axis=False),
    "finetune": Key(_tables, "{ hashing = { epochs = 20 } }", axis=False),
    "audits": Key(_table, '{ budget = "standard" }', axis=False),
}
