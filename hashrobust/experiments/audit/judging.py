"""Every check of an audit, made from its evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hashrobust.experiments.audit import checks
from hashrobust.experiments.audit.checks import Check, Scores
from hashrobust.experiments.audit.evidence import Evidence, lowest
from hashrobust.experiments.audit.plan import (
    CONTROL,
    DEFAULT_ATTACKS,
    FULL_EPSILON,
    MAIN,
    NOISE,
    ONE_STEP,
    RESTARTS,
    RULE,
    TWICE,
)

CONTROL_ANSWERS = "control answers"
SWEEP_CHECKS = ("epsilon sweep", f"epsilon {FULL_EPSILON:g}")


def all_checks(evidence: Evidence) -> list[Check]:
    """Every check, in the order in which it is read."""
    reach = {
        cell.part: float(evidence.metrics[cell.part]["linf_max"]) / cell.config.epsilon
        for cell in evidence.cells
        if cell.part in evidence.metrics
    }
    first = [checks.inside_ball(evidence.errors, reach), checks.determinism(evidence.determinism)]
    if MAIN not in evidence.tables:
        why = evidence.errors.get(MAIN, "the attack was not run")
        return [*first, checks.skipped("all others", "", f"the audited attack gave no result: {why}")]
    main, clean, theory = evidence.of(MAIN), evidence.of(MAIN, "clean_"), evidence.theory(MAIN)
    others, words = evidence.scores("gradient-free", "transfer"), evidence.measure.words
    made = partial(_made, evidence)
    follows_rule = RULE in {cell.part for cell in evidence.cells}
    return [
        *first,
        checks.finite_differences(evidence.metrics[MAIN]),
        checks.dead_gradients(_dead(evidence.tables[MAIN])),
        made("one step vs many", [ONE_STEP], lambda step: checks.one_step(step, main)),
        checks.black_box(_white_box(evidence), others),
        made("white box vs noise", [NOISE], lambda noise: checks.noise(clean, main, noise, theory, others)),
        made(
            "twice the steps, more restarts",
            [TWICE, RESTARTS],
            lambda twice, more: checks.more_work(main, {TWICE: twice, RESTARTS: more}, words),
        ),
        *_sweep(evidence),
        *_control(evidence),
        made("masking", [RULE], lambda rule: checks.masking(rule, main))
        if follows_rule
        else checks.masking(None, main),
    ]


def _white_box(evidence: Evidence) -> Scores:
    """The lowest over the suite; if another attack than the suite's own is audited, that attack alone."""
    if evidence.cells[0].config.attack != DEFAULT_ATTACKS[evidence.measure.task]:
        return evidence.of(MAIN)
    return lowest(evidence.scores("white box"))


def _dead(table: pd.DataFrame) -> NDArray[np.bool_]:
    dead = (table["zero_gradient_share"] > 0) | (table["nonfinite_gradient_share"] > 0)
    return dead.to_numpy(dtype=bool)


def _made(evidence: Evidence, name: str, parts: Sequence[str], check: Callable[..., Check]) -> Check:
    """The check of this name, of the scores of these parts; skipped where one of them has none."""
    for part in parts:
        if part not in evidence.tables:
            why = evidence.errors.get(part, "the audited attack has no such setting")
            return checks.skipped(name, "", f"'{part}' gave no result: {why}")
    return check(*(evidence.of(part) for part in parts))


def _sweep(evidence: Evidence) -> list[Check]:
    swept = [cell for cell in evidence.cells if not cell.on_epsilon]
    lost = [cell.part for cell in swept if cell.part not in evidence.tables]
    if lost:
        return [checks.skipped(name, "", f"'{lost[0]}' gave no result") for name in SWEEP_CHECKS]
    cells = (evidence.cells[0], *swept)
    by_epsilon = {cell.config.epsilon: float(evidence.of(cell.part).mean()) for cell in cells}
    clean, theory = evidence.of(MAIN, "clean_").mean(), evidence.theory(MAIN).mean()
    return list(checks.sweep(float(clean), by_epsilon, float(theory), evidence.measure.words))


def _control(evidence: Evidence) -> list[Check]:
    part, noise = f"{CONTROL}{MAIN}", f"{CONTROL}{NOISE}"
    if evidence.control_validation_score is None:
        why = "no control was given: name the backpropagation twin by --control"
        return [checks.skipped(name, "", why) for name in (CONTROL_ANSWERS, "control", "clean match")]
    assert evidence.control_determinism is not None
    answers = checks.determinism(evidence.control_determinism, CONTROL_ANSWERS)
    broken = _made(
        evidence,
        "control",
        [part, noise],
        lambda attacked, random: checks.control(
            evidence.of(part, "clean_"), attacked, random, evidence.theory(part)
        ),
    )
    scores = evidence.validation_score, evidence.control_validation_score
    return [answers, broken, checks.clean_match(*scores, evidence.measure.words)]
