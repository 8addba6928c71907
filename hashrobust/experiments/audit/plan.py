"""What an audit runs: budgets, and the suite of attacks as configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hashrobust.attacks import attacks
from hashrobust.errors import InputError, UnknownNameError
from hashrobust.experiments.attack_runs import build
from hashrobust.experiments.config import AttackConfig, stored_values
from hashrobust.experiments.store import config_hash
from hashrobust.options import MOST_THREADS, added, check_at_most, check_fit
from hashrobust.registry import did_you_mean

DEFAULT_ATTACKS: Mapping[str, str] = {"hashing": "center", "classification": "pgd"}
"""The attack whose numbers are audited unless told otherwise, by task."""
FULL_EPSILON = 0.5
"""Where half of the pixel range is free: an attack that does not reach its goal here does not work."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of each attack: gradient steps, starts, model queries of a search, images attacked."""

    queries: int
    steps: int
    restarts: int
    search: int


BUDGETS: Mapping[str, Budget] = {
    "quick": Budget(queries=50, steps=30, restarts=1, search=300),
    "standard": Budget(queries=200, steps=50, restarts=4, search=1000),
    "thorough": Budget(queries=1000, steps=100, restarts=10, search=5000),
}


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """One audit of one run at one epsilon, in pixel units.

    `attack` is the one whose numbers are audited: the checks are made on it, and the suite's other attacks
    stand beside it. A run with fewer queries than the budget asks for is attacked on all of them.
    `control` names the backpropagation twin; `version` tells those of all attacks (see `with_version`). None in
    `queries`, `steps`, `restarts`, `search`: the budget's.
    """

    epsilon: float = 8 / 255
    attack: str = DEFAULT_ATTACKS["hashing"]
    budget: str = "standard"
    queries: int | None = None
    steps: int | None = None
    restarts: int | None = None
    search: int | None = None
    control: str | None = None
    control_digest: str = ""
    seed: int = 0
    query_seed: int = 0
    batch_size: int = 100
    threads: int | None = None
    also: tuple[str, ...] = added(())
    version: int = added(1)

    def __post_init__(self) -> None:
        check_fit(self)
        check_at_most("threads", self.threads, MOST_THREADS)
        if self.budget not in BUDGETS:
            raise UnknownNameError(
                f"unknown budget '{self.budget}': {did_you_mean(self.budget, list(BUDGETS))}"
            )
        if not 0 < self.epsilon < FULL_EPSILON:
            raise InputError(
                f"epsilon {self.epsilon:g} is outside (0, {FULL_EPSILON}): give the budget that the claim is "
                "about in pixel units, such as 8/255"
            )
        if isinstance(self.also, str):
            raise InputError(
                f"also is the text '{self.also}': give a tuple of names, such as ('hag', 'sdha')"
            )
        for name in (self.attack, *self.also):
            if "targeted" not in attacks.parameters(name) and _is_targeted(name):
                raise InputError(
                    f"attack '{name}' is targeted: an audit asks for lost retrieval, name a non-targeted one"
                )
        if not _follows_gradient(self.attack):
            raise InputError(
                f"attack '{self.attack}' follows no gradient, which is what an audit checks: name one that does, and "
                "this one among the further attacks (also)"
            )
        if self.queries == 1:
            raise InputError("queries is 1: give at least 2, intervals are over queries")

    @property
    def amounts(self) -> Budget:
        """The budget with what was given explicitly."""
        given = {name: getattr(self, name) for name in ("queries", "steps", "restarts", "search")}
        chosen = vars(BUDGETS[self.budget]) | {name: n for name, n in given.items() if n is not None}
        return Budget(**chosen)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return stored_values(self)

    @property
    def folder_name(self) -> str:
        """`audit-<hash8>`."""
        return f"audit-{config_hash(self.to_dict())}"


def _is_targeted(name: str) -> bool:
    return attacks.build(name).goal == "targeted"


def _follows_gradient(name: str) -> bool:
    return attacks.build(name).follows_gradient


def _has_one_start(name: str) -> bool:
    """Whether an attack is fitted once, or has no starts at all."""
    return attacks.build(name).fits or "restarts" not in attacks.parameters(name)


def check_attacks(config: AuditConfig, task: str) -> None:
    """Refuse attacks that do not serve a task, and amounts that they cannot have.

    Raises:
        InputError: there are such.
    """
    for cell in plan(config, queries=config.amounts.queries, rule="bp", control=None, task=task):
        if task not in build(cell.config).tasks:
            raise InputError(
                f"attack '{cell.config.attack}' is not for {task}: name another one, such as {DEFAULT_ATTACKS[task]}"
            )


@dataclass(frozen=True)
class Cell:
    """One attack of the audit: its part, on which model it runs, and what the attacker knows.

    `access` is "white box" (exact gradient), "rule" (the defender's backward pass), "transfer",
    "gradient-free" or "noise". Cells with `on_epsilon` false run at another epsilon and count for no score.
    """

    part: str
    access: str
    config: AttackConfig
    on_control: bool = False
    on_epsilon: bool = True


MAIN, ONE_STEP, TWICE, RESTARTS, RULE, TRANSFER, NOISE = (
    *("main", "one step", "twice the steps", "more restarts", "by rule", "transfer", "noise"),
)
CONTROL = "control: "
ZERO_STEP = f"{CONTROL}by rule"


Suite = tuple[tuple[str, str, Mapping[str, Any]], ...]

SUITES: Mapping[str, Suite] = {
    "hashing": (
        ("center, logit loss", "center", {"loss": "logit", "restarts": 1}),
        ("center, dot loss", "center", {"loss": "dot", "restarts": 1}),
        ("center-multi", "center-multi", {"restarts": 1}),
        ("ap", "ap", {"restarts": 1}),
        ("hag", "hag", {"restarts": 1}),
        ("sdha", "sdha", {"restarts": 1}),
    ),
    "classification": (
        ("apgd-ce", "apgd-ce", {"restarts": 1}),
        ("apgd-dlr", "apgd-dlr", {"restarts": 1}),
    ),
}
"""The attacks by exact gradient beside the audited one, by task: part, attack, parameters."""
SEARCHES = ("square", "random-search")
"""The attacks of every suite that know answers alone."""


def plan(
    config: AuditConfig, *, queries: int, rule: str, control: str | None, task: str = "hashing"
) -> list[Cell]:
    """The cells of an audit, in the order in which they run.

    `queries` is how many there are, `rule` the audited run's own feedback (see `own_feedback`), `control` the name of
    the twin, if any.
    """
    return list(_Cells(config, task, min(queries, config.amounts.queries), rule, control).cells())


def with_version(config: AuditConfig, task: str) -> AuditConfig:
    """The configuration with the version of its suite, which rises with that of any of its attacks."""
    names = {cell.config.attack for cell in plan(config, queries=2, rule="bp", control=None, task=task)}
    return replace(config, version=1 + sum(attacks.build(name).version - 1 for name in names))


@dataclass(frozen=True)
class _Cells:
    config: AuditConfig
    task: str
    queries: int
    rule: str
    control: str | None

    def cells(self) -> Iterator[Cell]:
        amounts, main = self.config.amounts, self.config.attack
        yield Cell(MAIN, "white box", self._attack(main))
        if self.rule != "bp":
            yield Cell(RULE, "rule", self._attack(main, gradient="rule"))
        yield Cell(NOISE, "noise", self._attack("noise", kind="sign"))
        known = attacks.parameters(main)
        if "steps" in known:
            step = 2 * self.config.epsilon
            one = self._attack(main, steps=1, restarts=1, step_size=step, random_start=False)
            yield Cell(ONE_STEP, "white box", one)
            yield Cell(TWICE, "white box", self._attack(main, steps=2 * amounts.steps))
        if not _has_one_start(main):
            yield Cell(RESTARTS, "white box", self._attack(main, restarts=2 * amounts.restarts))
        yield from self._others()
        for factor in (0.25, 0.5, 2.0):
            if factor * self.config.epsilon < FULL_EPSILON:
                yield self._at(factor * self.config.epsilon)
        yield self._at(FULL_EPSILON)
        if self.control is not None:
            yield from self._on_control()

    def _others(self, on_control: bool = False) -> Iterator[Cell]:
        """The attacks beside the main one that know the exact gradient, or nothing but answers."""
        before = CONTROL if on_control else ""
        # Under a part of its own: the suite may have the attack already, at other amounts.
        further: Suite = tuple((f"also {name}", name, {}) for name in dict.fromkeys(self.config.also))
        searches: Suite = tuple((name, name, {}) for name in SEARCHES)
        default = DEFAULT_ATTACKS[self.task]
        own: Suite = () if self.config.attack == default else ((default, default, {}),)
        suite = (*own, *SUITES[self.task], *further, *searches)
        for part, name, params in suite:
            access = "white box" if _follows_gradient(name) else "gradient-free"
            yield Cell(f"{before}{part}", access, self._attack(name, **params), on_control)

    def _on_control(self) -> Iterator[Cell]:
        main = self.config.attack
        transfer = self._attack(main, surrogate=self.control, surrogate_digest=self.config.control_digest)
        yield Cell(TRANSFER, "transfer", transfer)
        yield Cell(f"{CONTROL}{MAIN}", "white box", self._attack(main), on_control=True)
        yield Cell(f"{CONTROL}{NOISE}", "noise", self._attack("noise", kind="sign"), on_control=True)
        if self.rule != "bp":
            through = self._attack(main, gradient=f"rule:{self.rule}")
            yield Cell(ZERO_STEP, "rule", through, on_control=True)
        yield from self._others(on_control=True)

    def _at(self, epsilon: float) -> Cell:
        config = self._attack(self.config.attack, epsilon=epsilon, restarts=1)
        return Cell(f"epsilon {_epsilon_name(epsilon)}", "white box", config, on_epsilon=False)

    def _attack(
        self,
        name: str,
        *,
        gradient: str = "exact",
        epsilon: float | None = None,
        surrogate: str | None = None,
        surrogate_digest: str = "",
        **params: Any,
    ) -> AttackConfig:
        """The attack at the budget's amounts, as far as it has such parameters."""
        amounts = self.config.amounts
        known = attacks.parameters(name)
        restarts = 1 if _has_one_start(name) else amounts.restarts
        wanted = {"steps": amounts.steps, "restarts": restarts, "budget": amounts.search} | params
        return AttackConfig(
            attack=name,
            epsilon=epsilon or self.config.epsilon,
            gradient=gradient,
            params={key: value for key, value in wanted.items() if key in known},
            seed=self.config.seed,
            queries=self.queries,
            query_seed=self.config.query_seed,
            batch_size=self.config.batch_size,
            threads=self.config.threads,
            surrogate=surrogate,
            surrogate_digest=surrogate_digest,
        )


def _epsilon_name(epsilon: float) -> str:
    return f"{epsilon:g}" if epsilon == FULL_EPSILON else f"{255 * epsilon:.4g}/255"
