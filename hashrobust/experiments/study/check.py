"""A study checked against what there is, before anything runs: names, settings, combinations that cannot be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from hashrobust.attacks import build_attack
from hashrobust.backbones import backbones
from hashrobust.datasets import datasets
from hashrobust.errors import InputError
from hashrobust.experiments.attack_runs import check_gradient_name
from hashrobust.experiments.audit.plan import AuditConfig, check_attacks
from hashrobust.experiments.config import AttackConfig, PretrainConfig, preset_values
from hashrobust.experiments.study.file import Keys
from hashrobust.experiments.study.keys import Choice
from hashrobust.experiments.study.matrix import Matrix, Study, setting_types
from hashrobust.experiments.study.points import (
    audit_config,
    plain_settings,
    points,
    pretrain_config,
    tasks_of,
    train_config,
)
from hashrobust.experiments.study.tasks import TASKS
from hashrobust.models import HashModel
from hashrobust.objectives import build_objective
from hashrobust.options import ALL_LAYERS, parse_stages
from hashrobust.registry import did_you_mean
from hashrobust.rotations import rotation_fit
from hashrobust.rules import convert, rules

_BY_AXES = frozenset(
    {
        *(
            "dataset",
            "image_size",
            "backbone",
            "weights",
            "weights_digest",
            "rule",
            "feedback_scale",
            "layers",
            "threads",
        ),
        *("objective", "objective_params", "bits", "seed", "max_steps", "protocol"),
    }
)
"""Settings of training that follow from axes and other keys."""
_OF_ATTACKS = frozenset({"seed", "query_seed", "batch_size"})
_OF_AUDITS = frozenset({"epsilon", "attack", "also", "budget", "queries", "steps", "restarts", "search"})
_TYPES: Mapping[type, str] = {
    **{int: "a whole number", float: "a number", str: "a text", bool: "true or false"},
    **{list: "a list", dict: "a table"},
}


def check_study(study: Study) -> None:
    """Refuse what cannot be run, as far as that can be told without the data.

    Raises:
        InputError: with the line and the reason.
    """
    for matrix in study.matrices:
        checker = _Checker(study, matrix)
        checker.check_names()
        checker.check_settings()
        checker.check_objectives()
        checker.check_attacks()
        checker.check_combinations()


@dataclass(frozen=True)
class _Checker:
    """Checks one matrix."""

    study: Study
    matrix: Matrix

    def error(self, keys: Keys, sentence: str, *values: object) -> InputError:
        return self.study.file.error(keys, sentence, *values, within=self.matrix.within)

    @contextmanager
    def at(self, *keys: str | int, values: Sequence[object] = ()) -> Iterator[None]:
        """What is wrong within the block is said with the line of the key, or of the values below it."""
        try:
            yield
        except InputError as error:
            raise self.error(keys, str(error), *values) from error

    def check_names(self) -> None:
        for name in self.matrix.backbones:
            with self.at("backbones", values=[name]):
                backbones[name]
        for name in self.matrix.rules:
            with self.at("rules", values=[name]):
                for stage in parse_stages(name):
                    rules[stage.rule]
        for name in self.matrix.datasets:
            with self.at("datasets", values=[name]):
                _check_dataset(name)
        for name in self.matrix.gradients:
            with self.at("gradients", values=[name]):
                check_gradient_name(name)

    def check_settings(self) -> None:
        """Every table of settings, key by key."""
        matrix = self.matrix
        self.check_table(("pretrain",), PretrainConfig, _own(PretrainConfig), matrix.pretrain)
        for task in matrix.tasks:
            config = TASKS[task].config
            settings = dict(matrix.finetune.get(task, {}))
            if "preset" in settings:
                with self.at("finetune", task, "preset"):
                    preset_values(settings.pop("preset"))
            self.check_table(("finetune", task), config, _own(config), settings)
            if "rotate" in settings:
                with self.at("finetune", task, "rotate"):
                    rotation_fit(settings["rotate"])
        self.check_table(("attack",), AttackConfig, _OF_ATTACKS, matrix.attack, attack="noise", epsilon=0.1)
        self.check_table(("audits",), AuditConfig, _OF_AUDITS, matrix.audits or {})

    def check_table(
        self,
        keys: tuple[str, ...],
        config: type,
        known: Collection[str],
        given: Mapping[str, Any],
        **needed: Any,
    ) -> None:
        types = dict(setting_types(config))
        for name, value in given.items():
            if name in _BY_AXES and name not in known:
                raise self.error(
                    (*keys, name), f"'{name}' follows from the axes: leave it out of the settings"
                )
            if name not in known:
                raise self.error(
                    (*keys, name), f"unknown setting '{name}': {did_you_mean(name, sorted(known))}"
                )
            if name == "epsilon":
                continue
            if not isinstance(value, types[name]) or isinstance(value, bool) != (bool in types[name]):
                wanted = _TYPES[types[name][-1]]
                raise self.error((*keys, name), f"{name} is {value!r}, which is not {wanted}: give {wanted}")
            with self.at(*keys, name):
                config(**needed, **plain_settings({name: value}))

    def check_objectives(self) -> None:
        if not any(TASKS[task].coded for task in self.matrix.tasks):
            return
        for place, choice in enumerate(self.matrix.objectives):
            with self.at("objectives", place, *choice.params, values=_words(choice)):
                for taken in sorted({"bits", "num_classes", "similar_share"} & set(choice.params)):
                    raise InputError(
                        f"objective parameter '{taken}' follows from the axes and the data: leave it out"
                    )
                for bits in self.matrix.bits:
                    # Two classes: what depends on their number is checked with the data at hand.
                    build_objective(choice.name, bits=bits, num_classes=2, similar_share=0.5, **choice.params)

    def check_attacks(self) -> None:
        for place, choice in enumerate(self.matrix.attacks):
            with self.at("attacks", place, *choice.params, values=_words(choice)):
                for taken in sorted({"epsilon", "seed"} & set(choice.params)):
                    mend = (
                        "is an axis: write epsilons" if taken == "epsilon" else "is shared: write attack.seed"
                    )
                    raise InputError(f"'{taken}' of attack '{choice.name}' {mend}, outside of attacks")
                for gradient in choice.gradients:
                    check_gradient_name(gradient)
                for epsilon in choice.epsilons or self.matrix.epsilons:
                    build_attack(choice.name, preset=choice.preset, **{**choice.params, "epsilon": epsilon})
            serves = tasks_of(choice)
            # One that stands at the top may be for another matrix.
            asked = {
                task for matrix in self.study.matrices if choice in matrix.attacks for task in matrix.tasks
            }
            if not serves & asked:
                raise self.error(
                    ("attacks", place),
                    f"attack '{choice.name}' is for {' and '.join(sorted(serves))}, the tasks here are "
                    f"{' and '.join(sorted(asked))}: take it off, or add its task",
                    choice.name,
                )

    def check_combinations(self) -> None:
        matrix = self.matrix
        for name in matrix.backbones:
            if "imagenet" in matrix.weights and imagenet_file(name) is None:
                raise self.error(
                    ("weights",),
                    f"there are no ImageNet weights for backbone '{name}': give it a [[matrix]] with other weights",
                    "imagenet",
                )
            with self.at("image_size"):
                check_size(name, matrix.image_size)
        alike = ("seeds", "datasets", "backbones", "weights", "rules", "scales", "layers", "max_steps")
        first = {axis: getattr(matrix, axis)[:1] for axis in alike} | {"rules": ("bp",)}
        for point in points(replace(matrix, **first)):
            # What is wrong only together, such as a rate and its factor.
            with self.at("finetune", point.task, *matrix.finetune.get(point.task, {})):
                config = train_config(matrix, point)
            for rule in matrix.rules:
                with self.at("rules", values=[rule]):
                    parse_stages(rule, config.epochs)
            with self.at("pretrain"):
                pretrain_config(matrix, point)
        self.check_layers()
        if matrix.audits is not None:
            self.check_audits(matrix.audits)

    def check_layers(self) -> None:
        """Patterns of layers, against each network."""
        for name, patterns in product(self.matrix.backbones, self.matrix.layers):
            if patterns != ALL_LAYERS:
                size = max(self.matrix.image_size or 32, getattr(backbones[name], "minimum_image_size", 1))
                with self.at("layers", values=[patterns]), torch.random.fork_rng(devices=[]):
                    convert(HashModel(name, 1, channels=3, image_size=size), "usf", layers=patterns)

    def check_audits(self, settings: Mapping[str, Any]) -> None:
        if "bp" not in self.matrix.rules or len(set(self.matrix.rules)) < 2:
            raise self.error(
                ("audits",), 'audits compare other rules with "bp": write rules = ["bp", ...], or drop them'
            )
        for task in self.matrix.tasks:
            with self.at("audits", *settings):
                check_attacks(audit_config(self.matrix, task), task)


def check_size(backbone: str, size: int | None) -> None:
    """Refuse images that are too small for a backbone.

    Raises:
        InputError: they are.
    """
    least = getattr(backbones[backbone], "minimum_image_size", 1)
    if size is not None and size < least:
        raise InputError(
            f"images of {size} pixels are too small for backbone '{backbone}', which takes {least} or more: "
            "set image_size, or take it off"
        )


def _own(config: type) -> frozenset[str]:
    """The settings of a configuration that do not follow from the axes."""
    return frozenset(known.name for known in fields(config)) - _BY_AXES


def _words(choice: Choice) -> list[object]:
    """What tells the choice from others in the file."""
    return [choice.name, *(value for value in choice.params.values() if isinstance(value, str | int))]


def imagenet_file(backbone: str) -> Path | None:
    """Where a backbone's ImageNet weights lie or will lie; None if it has none."""
    find = getattr(backbones[backbone], "imagenet_file", None)
    return None if find is None else find()


def _check_dataset(name: str) -> None:
    kind, _, path = name.partition(":")
    takes_folder = "path" in datasets.parameters(kind)
    if takes_folder and not path:
        raise InputError(f"dataset '{name}' lacks its folder: write '{kind}:FOLDER'")
    if path and not takes_folder:
        raise InputError(f"dataset '{kind}' takes no folder: write '{kind}'")
