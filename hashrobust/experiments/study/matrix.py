"""The axes and settings of a study, read from its file and checked for form. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, ClassVar

from hashrobust.errors import InputError
from hashrobust.experiments.study.file import Keys, StudyFile
from hashrobust.experiments.study.keys import KEYS, Choice
from hashrobust.options import ALL_LAYERS
from hashrobust.registry import did_you_mean

MOST_ASKED = 10_000
"""More combinations than anybody would wait for; some short lists ask for more than a plan has room for."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Axes, of which all combinations are asked for, and the settings that they share.

    `max_steps` holds None for the whole training. `finetune` has settings by task; `audits`, if given, the
    fields of an `AuditConfig`.
    """

    datasets: tuple[str, ...]
    backbones: tuple[str, ...]
    rules: tuple[str, ...]
    attacks: tuple[Choice, ...] = ()
    tasks: tuple[str, ...] = ("hashing",)
    weights: tuple[str, ...] = ("pretrained",)
    objectives: tuple[Choice, ...] = (Choice("dpsh"),)
    bits: tuple[int, ...] = (32,)
    scales: tuple[str, ...] = ("xavier",)
    layers: tuple[str, ...] = (ALL_LAYERS,)
    epsilons: tuple[float, ...] = (8 / 255,)
    gradients: tuple[str, ...] = ("exact", "rule")
    seeds: tuple[int, ...] = (0,)
    max_steps: tuple[int | None, ...] = (None,)
    queries: int | None = None
    threads: int = 1
    image_size: int | None = None
    attack: Mapping[str, Any] = field(default_factory=dict)
    pretrain: Mapping[str, Any] = field(default_factory=dict)
    finetune: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    audits: Mapping[str, Any] | None = None
    within: Keys = ()

    required: ClassVar[tuple[str, ...]] = ("datasets", "backbones", "rules")

    @property
    def trainings(self) -> int:
        """How many combinations there are of the axes that say what is trained."""
        axes = (self.seeds, self.tasks, self.datasets, self.backbones, self.weights, self.objectives)
        more = (self.bits, self.rules, self.scales, self.layers, self.max_steps)
        return prod(len(axis) for axis in (*axes, *more))

    @property
    def attacks_each(self) -> int:
        """How many combinations there are of the axes that say how it is attacked."""
        return sum(
            len(attack.epsilons or self.epsilons) * len(attack.gradients or self.gradients)
            for attack in self.attacks
        )


@dataclass(frozen=True)
class Study:
    """A study as its file has it: a name, where results go unless told otherwise, and its matrices."""

    file: StudyFile
    name: str
    results: str
    matrices: tuple[Matrix, ...]


def read_study(file: StudyFile) -> Study:
    """The study of a file, each key of the right type and no axis empty.

    Keys at the top hold for every `[[matrix]]`; without one, the top is the only matrix.

    Raises:
        InputError: with the line and the reason.
    """
    content = dict(file.content)
    blocks = content.pop("matrix", [{}])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise file.error(("matrix",), "matrix is no list of tables: write [[matrix]] above each")
    name = _text(file, "name", content.pop("name", None))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise file.error(("name",), f"name '{name}' is no name for a folder: use letters, digits, - and _")
    results = _text(file, "results", content.pop("results", "results"))
    starts: list[Keys] = [
        ("matrix", place) if "matrix" in file.content else () for place in range(len(blocks))
    ]
    matrices = [
        _Reader(file, within).read(content, block) for within, block in zip(starts, blocks, strict=True)
    ]
    for what, asked in (
        ("trainings", sum(matrix.trainings for matrix in matrices)),
        ("attacks on one of them", max((matrix.attacks_each for matrix in matrices), default=0)),
    ):
        if asked > MOST_ASKED:
            raise InputError(
                f"{file.path}: all combinations are {asked} {what}, more than {MOST_ASKED}: part the study in several"
            )
    return Study(file, name, results, tuple(matrices))


def _text(file: StudyFile, key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        said = f"the study has no {key}" if value is None else f"{key} is {value!r}, no text"
        raise file.error((key,), f'{said}: write {key} = "fashion"')
    return value


@dataclass(frozen=True)
class _Reader:
    """Reads one matrix; `within` is where it stands."""

    file: StudyFile
    within: Keys

    def read(self, top: Mapping[str, Any], block: Mapping[str, Any]) -> Matrix:
        merged = _merge(top, block)
        for key in merged:
            if key not in KEYS:
                raise self.error((key,), f"unknown key '{key}': {did_you_mean(key, sorted(KEYS))}")
        for key in Matrix.required:
            if key not in merged:
                raise self.error((key,), f"{key} are missing: give a list such as {KEYS[key].example}")
        values = {KEYS[key].field or key: self.value(key, merged[key]) for key in merged}
        return Matrix(**values, within=self.within)

    def error(self, keys: Keys, sentence: str, *values: object) -> InputError:
        return self.file.error(keys, sentence, *values, within=self.within)

    def value(self, key: str, value: Any) -> Any:
        kind = KEYS[key]
        if not kind.axis:
            return self._checked(key, value, (key,))
        if not isinstance(value, list):
            raise self.error((key,), f"{key} is no list: write {key} = {kind.example}")
        if not value:
            raise self.error(
                (key,), f"{key} is empty, so that nothing would be run: write {key} = {kind.example}"
            )
        return tuple(self._checked(key, item, (key, place)) for place, item in enumerate(value))

    def _checked(self, key: str, value: Any, keys: Keys) -> Any:
        kind = KEYS[key]
        try:
            return kind.read(value)
        except InputError as error:
            words = _words_of(value)
            mend = "" if ":" in str(error) else f": write {key} = {kind.example}"
            raise self.error(keys, f"{key}: {error}{mend}", *words) from None


def _merge(top: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    """The block's values over those of the top, table by table."""
    merged = dict(top)
    for key, value in block.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _words_of(value: Any) -> list[Any]:
    """The words by which a value is found in the file."""
    if isinstance(value, dict):
        items = [word for item in value.items() for word in item]
        return [word for word in items if isinstance(word, str | int | float)]
    return [value] if isinstance(value, str | int | float) else []


def setting_types(config: type) -> Iterator[tuple[str, tuple[type, ...]]]:
    """The fields of a configuration that take a plain value of TOML, and the types that they take."""
    types = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "tuple": (list,)}
    for known in fields(config):
        kind = str(known.type).partition(" ")[0].partition("[")[0]
        yield known.name, types.get(kind, (dict,))
