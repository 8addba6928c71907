"""The checks of an audit: what was measured, against thresholds that were set before any result.

Sources: Athalye et al., arXiv 1802.00420; Carlini et al., arXiv 1902.06705; Croce and Hein, arXiv 2003.01690;
Tramer et al., arXiv 2002.08347; Pintor et al., arXiv 2106.09947. All scores are fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashrobust.metrics import paired_bootstrap_interval

Scores = NDArray[np.float64]
"""One average precision a query."""

ONE_STEP_GAIN = 0.01
BLACK_BOX_GAIN, BLACK_BOX_SHARE = 0.05, 0.05
NOISE_SHARE = 0.25
MORE_WORK_GAIN = 0.01
SWEEP_RISE, FULL_EPSILON_MISS = 0.01, 0.03
DEAD_GRADIENTS = 0.01
FINITE_DIFFERENCES = 0.999
CLEAN_MATCH, CLEAN_MATCH_NAME = 0.01, "clean match"
MASKING_GAP = 0.02

PASS, WARN, FAIL, SKIP, INFO = "PASS", "WARN", "FAIL", "SKIP", "INFO"


@dataclass(frozen=True)
class Check:
    """One check: `value` is what `limit` limits, both in words for people; `meaning` is one sentence."""

    name: str
    status: str
    value: float | None
    limit: str
    meaning: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def skipped(name: str, limit: str, why: str) -> Check:
    """A check that could not be made."""
    return Check(name, SKIP, None, limit, why)


def graded(value: float, limit: float) -> str:
    """FAIL above the limit, WARN above half of it."""
    return FAIL if value > limit else WARN if value > limit / 2 else PASS


def one_step(first: Scores, many: Scores) -> Check:
    """One large step must not beat many small ones."""
    gain = float(many.mean() - first.mean())
    return Check(
        "one step vs many",
        graded(gain, ONE_STEP_GAIN),
        gain,
        f"many steps at most {ONE_STEP_GAIN:g} above one",
        "a single step does no better than the iterated attack, as it should"
        if gain <= ONE_STEP_GAIN / 2
        else "a single step does better than many: the iterated attack is led astray",
    )


def black_box(white: Scores, others: Mapping[str, Scores]) -> Check:
    """Attackers who know less must not do better."""
    name, limit = (
        "black box vs white box",
        f"lower by {BLACK_BOX_GAIN:g} on at most {BLACK_BOX_SHARE:.0%} of queries",
    )
    if not others:
        return skipped(name, limit, "no attack without gradients, and none by transfer, was run")
    best = np.min(np.stack(list(others.values())), axis=0)
    share = float((best < white - BLACK_BOX_GAIN).mean())
    difference = float(best.mean() - white.mean())
    _, high = paired_bootstrap_interval(best, white) if len(white) > 1 else (0.0, 0.0)
    beaten = difference < 0 and high < 0
    status = FAIL if beaten else graded(share, BLACK_BOX_SHARE)
    listed = ", ".join(others)
    return Check(
        name,
        status,
        share,
        limit,
        f"attackers who know less ({listed}) beat the white box: its gradient is of little use"
        if status == FAIL
        else f"attackers who know less ({listed}) do worse than the white box, as they should",
    )


def noise(
    clean: Scores, white: Scores, random: Scores, theory: Scores, others: Mapping[str, Scores]
) -> Check:
    """The white box must do more than noise where somebody else does."""
    needed = NOISE_SHARE * float(clean.mean() - theory.mean())
    won = float(random.mean() - white.mean())
    elsewhere = max((float(random.mean() - scores.mean()) for scores in others.values()), default=0.0)
    name, limit = "white box vs noise", f"at least {needed:.3f} below noise, if any other attack is"
    if won >= needed:
        return Check(name, PASS, won, limit, "the white box does clearly more than noise of the same size")
    if elsewhere >= needed:
        return Check(
            name, FAIL, won, limit, "the white box does little more than noise, and others do: it fails"
        )
    return Check(
        name,
        WARN,
        won,
        limit,
        "no attack does much more than noise: robust at this epsilon, or all attacks fail",
    )


def more_work(base: Scores, more: Mapping[str, Scores], words: str = "mAP") -> Check:
    """The attack must have converged."""
    falls = {how: float(base.mean() - scores.mean()) for how, scores in more.items()}
    how = max(falls, key=lambda name: falls[name])
    status = graded(falls[how], MORE_WORK_GAIN)
    return Check(
        "twice the steps, more restarts",
        status,
        falls[how],
        f"{words} falls by at most {MORE_WORK_GAIN:g}",
        "more work finds hardly more: the attack has converged"
        if status == PASS
        else f"with {how} {words} still falls: take a larger budget, the number is an upper bound",
    )


def sweep(
    clean: float, by_epsilon: Mapping[float, float], theory: float, words: str = "mAP"
) -> tuple[Check, Check]:
    """The score must fall with epsilon, and at 0.5 reach what full success would."""
    epsilons = sorted(by_epsilon)
    values = [clean, *(by_epsilon[epsilon] for epsilon in epsilons)]
    rise = max(float(after - before) for before, after in pairwise(values))
    monotone = graded(rise, SWEEP_RISE)
    miss = by_epsilon[epsilons[-1]] - theory
    reached = graded(miss, FULL_EPSILON_MISS)
    return (
        Check(
            "epsilon sweep",
            monotone,
            rise,
            f"{words} rises by at most {SWEEP_RISE:g} from one epsilon to the next",
            "more room helps the attacker"
            if monotone == PASS
            else "more room makes the attack weaker: it does not use its ball",
        ),
        Check(
            f"epsilon {epsilons[-1]:g}",
            reached,
            miss,
            f"at most {FULL_EPSILON_MISS:g} above theory",
            "with half of the pixel range free the attack reaches its goal"
            if reached == PASS
            else "even with half of the pixel range free the attack misses its goal: it does not work here",
        ),
    )


def dead_gradients(affected: NDArray[np.bool_]) -> Check:
    """Gradients must exist: (Q,) whether a query's were zero or not finite."""
    share = float(affected.mean())
    status = graded(share, DEAD_GRADIENTS)
    return Check(
        "zero or non-finite gradients",
        status,
        share,
        f"at most {DEAD_GRADIENTS:.0%} of queries",
        "there is a gradient to follow"
        if status == PASS
        else "the model gives no usable gradient: an attack that follows it stands still, which is not robustness",
    )


def finite_differences(facts: Mapping[str, Any]) -> Check:
    """Gradients must be derivatives."""
    cosine, passed = facts.get("gradient_check_cosine"), facts.get("gradient_check_passed")
    limit = f"cosine at least {FINITE_DIFFERENCES:g}, at most 20% of pairs on kinks"
    if cosine is None:
        why = facts.get("gradient_check_skipped") or "the model could not be run in float64"
        return skipped("finite differences", limit, str(why))
    return Check(
        "finite differences",
        PASS if passed else FAIL,
        float(cosine),
        limit,
        "the gradient is the derivative of the model"
        if passed
        else "too many pairs lie on kinks to tell whether the gradient is the derivative of the model"
        if cosine >= FINITE_DIFFERENCES
        else "the gradient is not the derivative of the model: whatever follows it attacks something else",
    )


def determinism(facts: Mapping[str, Any], name: str = "determinism") -> Check:
    """The same image must get the same answer, whatever is asked before, beside or after it."""
    differing, steady = float(facts["differing_bits"]), bool(facts["gradient_repeats"])
    limit = "no bit differs over repeats; gradients repeat"
    if differing > 0:
        how = facts["differing_how"]
        return Check(
            name,
            FAIL,
            differing,
            limit,
            f"the same images get other answers {how}: a score of such a model is a draw of luck",
        )
    if not steady:
        return Check(name, FAIL, 0.0, limit, "the same images get other gradients when asked again")
    if facts["rule_redraws"]:
        return Check(name, INFO, 0.0, limit, "answers repeat; the rule redraws its own gradient at each step")
    return Check(name, PASS, 0.0, limit, "the same images get the same answers and gradients")


def control(clean: Scores, attacked: Scores, random: Scores, theory: Scores) -> Check:
    """The same attack must break the backpropagation twin."""
    needed = NOISE_SHARE * float(clean.mean() - theory.mean())
    won = float(random.mean() - attacked.mean())
    status = PASS if won >= needed else FAIL
    return Check(
        "control",
        status,
        won,
        f"at least {needed:.3f} below noise on the control",
        "the same attack breaks the backpropagation twin"
        if status == PASS
        else "the same attack does not break the backpropagation twin: it proves nothing about the audited model",
    )


def clean_match(own: float, twin: float, words: str = "mAP") -> Check:
    """Only models that are equally good unattacked can be compared."""
    difference = abs(own - twin)
    status = graded(difference, CLEAN_MATCH)
    return Check(
        CLEAN_MATCH_NAME,
        status,
        difference,
        f"validation {words} differs by at most {CLEAN_MATCH:g}",
        f"validation {words} {own:.3f} and {twin:.3f}: "
        + ("comparable" if status != FAIL else "not matched, no verdict on the difference"),
    )


def masking(rule: Scores | None, exact: Scores) -> Check:
    """What looks robust by the defender's backward pass must be so by the exact gradient."""
    limit = f"gap at most {MASKING_GAP:g}, or its paired interval holds 0"
    if rule is None:
        return Check(
            "masking",
            PASS,
            0.0,
            limit,
            "the model follows no other rule than backpropagation: its own gradient is the exact one",
        )
    gap = float(rule.mean() - exact.mean())
    low, high = paired_bootstrap_interval(rule, exact) if len(exact) > 1 else (gap, gap)
    apart = low > 0 or high < 0
    status = graded(gap, MASKING_GAP) if apart else PASS
    return Check(
        "masking",
        status,
        gap,
        limit,
        f"by its own backward pass the model looks {gap:+.3f} [{low:+.3f}, {high:+.3f}] more robust than it is"
        if status != PASS
        else "the model's own backward pass hides nothing",
    )


def inside_ball(errors: Mapping[str, str], largest: float, epsilon: float) -> Check:
    """All attacks must have run to their end, inside their ball."""
    limit = f"every attack ends, within {255 * epsilon:g}/255"
    if errors:
        part, message = next(iter(errors.items()))
        return Check("attacks", FAIL, largest, limit, f"{len(errors)} failed, first '{part}': {message}")
    return Check("attacks", PASS, largest, limit, "every attack ran to its end and stayed inside its ball")
