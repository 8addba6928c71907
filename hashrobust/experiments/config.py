"""What can be asked for: one frozen configuration a step, stored as TOML in its run folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, Self

from hashrobust.errors import InputError, UnknownNameError
from hashrobust.experiments.store import config_hash
from hashrobust.options import (
    ALL_LAYERS,
    BACKPROPAGATION,
    MOST_BITS,
    MOST_THREADS,
    TrainingOptions,
    added,
    check_at_most,
    check_fit,
    own_feedback,
    parse_stages,
)
from hashrobust.registry import did_you_mean

BERRICHE2025: Mapping[str, Any] = {
    "optimizer": "adam",
    "learning_rate": 1e-5,
    "head_learning_rate_factor": 10.0,
    "weight_decay": 5e-4,
    "batch_size": 128,
    "epochs": 20,
    "patience": 10,
    "objective_params": {"quantization_weight": 0.01},
}
"""The training of Berriche, Adjal and Baghdadi (arXiv 2502.05925) as far as the paper tells it."""

BERRICHE2025_UNKNOWN = (
    "The paper leaves unknown: the epsilons, steps and step sizes of its attacks, whose gradient they "
    "used (exact or the rule's), the seeds, and the scale of the feedback weights (BioTorch's Xavier assumed)."
)

PRESETS: Mapping[str, tuple[Mapping[str, Any], str]] = {"berriche2025": (BERRICHE2025, BERRICHE2025_UNKNOWN)}


def preset_values(name: str) -> tuple[Mapping[str, Any], str]:
    """The settings of a training preset, and what is to be said of it.

    Raises:
        UnknownNameError: no such preset.
    """
    if name not in PRESETS:
        raise UnknownNameError(f"unknown preset '{name}': {did_you_mean(name, sorted(PRESETS))}")
    return PRESETS[name]


def stored_values(config: Any) -> dict[str, Any]:
    """A configuration as plain values, without `added` fields that have their default."""
    defaults = {f.name: f.metadata["added"] for f in fields(config) if "added" in f.metadata}
    return {
        key: value for key, value in asdict(config).items() if key not in defaults or value != defaults[key]
    }


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(TrainingOptions):
    """What pre-training and fine-tuning share: the data, the backbone, and the loop's options."""

    dataset: str = "digits"
    image_size: int | None = None
    backbone: str = "lenet"
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_threads(self.threads)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return stored_values(self)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """A configuration from stored values; keys that belong to the store are passed over.

        What TOML cannot hold is left out of it: a field whose absence means None comes back as None.
        """
        known = {f.name: f for f in fields(cls)}
        optional = {name for name, f in known.items() if "None" in str(f.type)}
        absent: dict[str, Any] = dict.fromkeys(optional - set(config))
        return cls(**absent, **{key: value for key, value in config.items() if key in known})

    @property
    def options(self) -> TrainingOptions:
        """The loop's part of the configuration."""
        return TrainingOptions(**{f.name: getattr(self, f.name) for f in fields(TrainingOptions)})


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Training of a backbone as a classifier with backpropagation, on the train split of a protocol alone."""

    epochs: int = 30
    learning_rate: float = 2e-3
    head_learning_rate_factor: float = 1.0
    schedule: str = "cosine"
    augment: str = "crop"
    patience: int | None = None
    protocol: str = added("retrieval")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol not in ("retrieval", "classification"):
            raise InputError(f"unknown protocol '{self.protocol}': use retrieval or classification")

    @property
    def run_name(self) -> str:
        """`<dataset>-<backbone>-[classifier-]pretrained-s<seed>-<hash8>`."""
        kind = "pretrained" if self.protocol == "retrieval" else "classifier-pretrained"
        stem = f"{slug(self.dataset)}-{slug(self.backbone)}-{kind}-s{self.seed}"
        return f"{stem}-{config_hash({'task': 'pretrain', **self.to_dict()})}"


@dataclass(frozen=True, kw_only=True)
class RuleConfig(TrainingConfig):
    """Training by a learning rule, from weights.

    `weights` is `none`, `imagenet`, a safetensors file, or `run:NAME`; `weights_digest` is the
    SHA-256 of what it stands for, so that a run's name changes with the weights it starts from. `rule` is a
    learning rule, or several with the epochs that they end with, such as `bp@5,frsf`; `layers` are comma-separated
    patterns over names of modules: layers that none of them fits stay on backpropagation.
    """

    weights: str = "none"
    weights_digest: str = ""
    rule: str = "bp"
    feedback_scale: str = "xavier"
    layers: str = added(ALL_LAYERS)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rule", "layers"):
            parts = (part.strip() for part in getattr(self, name).split(","))
            object.__setattr__(self, name, ",".join(parts))
        stages = parse_stages(self.rule, self.epochs)
        if self.layers != ALL_LAYERS and {stage.rule for stage in stages} == {BACKPROPAGATION}:
            raise InputError("rule bp is plain backpropagation in all layers: leave layers out")
        if self.feedback_scale not in ("xavier", "matched"):
            raise InputError(f"unknown feedback scale '{self.feedback_scale}': use xavier or matched")

    @property
    def feedback(self) -> str:
        """What an attack's gradient `rule` follows, as in `rule:NAME` (see `own_feedback`)."""
        return own_feedback(self.rule, self.layers)

    @property
    def rule_slug(self) -> str:
        """The rule as part of a folder name: `frsf`, `bp5-frsf`, `frsf-on-backbone`."""
        stem = self.rule.replace("@", "").replace(",", "-")
        return stem if self.layers == ALL_LAYERS else f"{stem}-on-{_slug_of_patterns(self.layers)}"


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(RuleConfig):
    """Fine-tuning, or training from scratch, of a classifier with a learning rule."""

    head_learning_rate_factor: float = 1.0

    @property
    def run_name(self) -> str:
        """`<dataset>-<backbone>-classifier-<rule>-s<seed>-<hash8>`."""
        stem = f"{slug(self.dataset)}-{slug(self.backbone)}-classifier-{self.rule_slug}-s{self.seed}"
        return f"{stem}-{config_hash({'task': 'classify', **self.to_dict()})}"


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RuleConfig):
    """Fine-tuning of a hashing model with a learning rule.

    `defence` is `none` or a registered one, `defence_params` its own parameters; `rotate` is `none` or a
    registered rotation of the outputs, fitted after training.
    """

    objective: str = "dpsh"
    objective_params: dict[str, Any] = field(default_factory=dict)
    bits: int = 32
    defence: str = added("none")
    defence_params: Mapping[str, Any] = added({})
    rotate: str = added("none")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits < 1:
            raise InputError(f"bits is {self.bits}: give a code length of at least 1, such as 32")
        check_at_most("bits", self.bits, MOST_BITS)

    @property
    def run_name(self) -> str:
        """`<dataset>-<backbone>-<objective>-<bits>-<rule>[+<defence>][+<rotation>]-s<seed>-<hash8>`."""
        parts = (part for part in (self.defence, self.rotate) if part != "none")
        training = "+".join([self.rule_slug, *parts])
        stem = (
            f"{slug(self.dataset)}-{slug(self.backbone)}-{self.objective}-{self.bits}-{training}-s{self.seed}"
        )
        return f"{stem}-{config_hash({'task': 'finetune', **self.to_dict()})}"


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """One attack at one epsilon, in pixel units, with one kind of gradient, on a fixed subset of the queries.

    `gradient` is `exact`, `rule`, `rule:NAME`, or `none` for attacks that follow none; `params` are the
    attack's own parameters after its preset; `queries` is None for all of them. `surrogate` names the run
    whose gradients are followed in place of the attacked one's, `surrogate_digest` the SHA-256 of its codes.
    `start_epsilons` are the smaller epsilons, ascending, through which it is warm-started; `version` is its class's.
    """

    attack: str
    epsilon: float
    gradient: str = "exact"
    preset: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    queries: int | None = None
    query_seed: int = 0
    batch_size: int = 100
    threads: int | None = None
    surrogate: str | None = added(None)
    surrogate_digest: str = added("")
    start_epsilons: tuple[float, ...] = added(())
    version: int = added(1)

    def __post_init__(self) -> None:
        check_fit(self)
        chain = (*self.start_epsilons, self.epsilon)
        if any(after <= before for before, after in pairwise(chain)):
            listed = ",".join(f"{255 * epsilon:g}/255" for epsilon in chain)
            raise InputError(
                f"epsilons {listed} do not ascend: a warm start goes upward, list them from small to large, each once"
            )
        if self.queries is not None and self.queries < 1:
            raise InputError(f"queries is {self.queries}: give at least 1, or leave it out for all")
        if self.query_seed < 0:
            raise InputError(f"query_seed is {self.query_seed}: give 0 or more")
        if self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}: give at least 1")
        _check_threads(self.threads)
        for name in ("epsilon", "seed"):
            if name in self.params:
                raise InputError(f"{name} stands among the attack's own parameters: give it as --{name}")

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return stored_values(self)

    @property
    def folder_name(self) -> str:
        """`<attack>-<hash8>`."""
        return f"{self.attack}-{config_hash(self.to_dict())}"


def _check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}: give at least 1, or leave it out for torch's choice")
    check_at_most("threads", threads, MOST_THREADS)


def slug(name: str) -> str:
    """A dataset's or backbone's name as part of a folder name: `folder:/data/birds` becomes `folder-birds`."""
    kind, colon, path = name.partition(":")
    if not colon:
        return kind
    stem = "".join(letter if letter.isalnum() else "-" for letter in path.rstrip("/").rpartition("/")[2])
    return f"{kind}-{stem.strip('-') or 'data'}"


def _slug_of_patterns(layers: str) -> str:
    """Letters and digits of patterns; of many the first, since the digest tells them apart."""
    words = re.findall(r"[A-Za-z0-9_]+", layers)
    return "-".join(words)[:24].strip("-") or "some"


def parse_epsilon(text: str) -> float:
    """`8/255` or `0.03` as a number in pixel units of images in [0, 1].

    Raises:
        InputError: it is no number, not above 0, or above 1 (most likely written in 255ths).
    """
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"epsilon '{text}' is no number: write it as 8/255 or 0.031") from None
    if not 0 < value <= 1:
        mend = f"write {text}/255" if not slash and value > 1 else "write it as 8/255 or 0.031"
        raise InputError(f"epsilon '{text}' is outside (0, 1], pixels are in [0, 1]: {mend}")
    return value
