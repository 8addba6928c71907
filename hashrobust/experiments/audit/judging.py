"""Every check of an audit, made from its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hashrobust.experiments.audit import checks
from hashrobust.experiments.audit.checks import Check, Scores
from hashrobust.experiments.audit.evidence import Evidence, lowest
from hashrobust.experiments.audit.plan import (
    CONTROL,
    DEFAULT_ATTACKS,
    MAIN,
    NOISE,
    ONE_STEP,
    RESTARTS,
    RULE,
    TWICE,
)

CONTROL_ANSWERS = "control answers"


def all_checks(evidence: Evidence, epsilon: float) -> list[Check]:
    """Every check, in the order in which it is read."""
    largest = max((float(m["linf_max"]) for m in evidence.metrics.values()), default=0.0)
    first = [
        checks.inside_ball(evidence.errors, largest, epsilon),
        checks.determinism(evidence.determinism),
    ]
    if MAIN not in evidence.tables:
        why = evidence.errors.get(MAIN, "the attack was not run")
        return [*first, checks.skipped("all others", "", f"the audited attack gave no result: {why}")]
    main, metrics = evidence.of(MAIN), evidence.metrics[MAIN]
    clean, theory = evidence.of(MAIN, "clean_"), evidence.theory(MAIN)
    others = evidence.scores("gradient-free", "transfer")
    found = [
        *first,
        checks.finite_differences(metrics),
        checks.dead_gradients(_dead(evidence.tables[MAIN])),
        _with(
            evidence, (ONE_STEP,), "one step vs many", lambda: checks.one_step(evidence.of(ONE_STEP), main)
        ),
        checks.black_box(_white_box(evidence), others),
        checks.noise(clean, main, evidence.of(NOISE), theory, others),
        _with(
            evidence,
            (TWICE, RESTARTS),
            "twice the steps, more restarts",
            lambda: checks.more_work(
                main, {part: evidence.of(part) for part in (TWICE, RESTARTS)}, evidence.measure.words
            ),
        ),
        *_sweep(evidence, epsilon),
        *_control(evidence),
    ]
    exact_alone = RULE not in {cell.part for cell in evidence.cells}
    masking = _with(
        evidence, () if exact_alone else (RULE,), "masking",
        lambda: checks.masking(None if exact_alone else evidence.of(RULE), main),
    )  # fmt: skip
    return [*found, masking]


def _white_box(evidence: Evidence) -> Scores:
    """The lowest over the suite; if another attack than the suite's own is audited, that attack alone."""
    if evidence.cells[0].config.attack != DEFAULT_ATTACKS[evidence.measure.task]:
        return evidence.of(MAIN)
    return lowest(evidence.scores("white box"))


def _dead(table: pd.DataFrame) -> NDArray[np.bool_]:
    dead = (table["zero_gradient_share"] > 0) | (table["nonfinite_gradient_share"] > 0)
    return dead.to_numpy(dtype=bool)


def _with(evidence: Evidence, needed: Sequence[str], name: str, make: Any) -> Check:
    missing = [part for part in needed if part not in evidence.tables]
    if missing:
        why = evidence.errors.get(missing[0], "it was not run")
        return checks.skipped(name, "", f"'{missing[0]}' gave no result: {why}")
    made: Check = make()
    return made


def _sweep(evidence: Evidence, epsilon: float) -> list[Check]:
    by_epsilon = {epsilon: float(evidence.of(MAIN).mean())}
    failed = []
    for cell in evidence.cells:
        if not cell.on_epsilon and cell.part in evidence.tables:
            by_epsilon[cell.config.epsilon] = float(evidence.of(cell.part).mean())
        elif not cell.on_epsilon:
            failed.append(cell.part)
    if failed:
        return [checks.skipped("epsilon sweep", "", f"'{failed[0]}' gave no result")]
    clean = float(evidence.of(MAIN, "clean_").mean())
    theory = float(evidence.theory(MAIN).mean())
    return list(checks.sweep(clean, by_epsilon, theory, evidence.measure.words))


def _control(evidence: Evidence) -> list[Check]:
    part, noise = f"{CONTROL}{MAIN}", f"{CONTROL}{NOISE}"
    if evidence.control_validation_score is None:
        why = "no control was given: name the backpropagation twin by --control"
        return [checks.skipped(name, "", why) for name in (CONTROL_ANSWERS, "control", "clean match")]
    assert evidence.control_determinism is not None
    answers = checks.determinism(evidence.control_determinism, CONTROL_ANSWERS)
    broken = _with(
        evidence,
        (part, noise),
        "control",
        lambda: checks.control(
            evidence.of(part, "clean_"), evidence.of(part), evidence.of(noise), evidence.theory(part)
        ),
    )
    scores = evidence.validation_score, evidence.control_validation_score
    return [answers, broken, checks.clean_match(*scores, evidence.measure.words)]
