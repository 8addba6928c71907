"""The checks of an audit: what was measured, against thresholds that were set before any result.

Sources: Athalye et al., arXiv 1802.00420; Carlini et al., arXiv 1902.06705; Croce and Hein, arXiv 2003.01690;
Tramer et al., arXiv 2002.08347; Pintor et al., arXiv 2106.09947. All scores are fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashrobust.metrics import paired_bootstrap_interval

Scores = NDArray[np.float64]
"""One score a query (Q,), in [0, 1]: average precision, or of a classifier whether it is right."""

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
_NOTHING = "there is nothing to take away"


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
    """FAIL above the limit, WARN above half of it; what is not a number passes nothing."""
    return PASS if value <= limit / 2 else WARN if value <= limit else FAIL


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
    _, high = paired_bootstrap_interval(best, white)
    status = FAIL if high < 0 else graded(share, BLACK_BOX_SHARE)
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
    won, needed = _over_noise(clean, white, random, theory)
    elsewhere = max((float(random.mean() - scores.mean()) for scores in others.values()), default=0.0)
    if won >= needed > 0:
        status, meaning = PASS, "the white box does clearly more than noise of the same size"
    elif won < needed <= elsewhere:
        status, meaning = FAIL, "the white box does little more than noise, and others do: it fails"
    elif needed <= 0:
        status, meaning = WARN, f"unattacked it is no better than full success would leave it: {_NOTHING}"
    else:
        status, meaning = (
            WARN,
            "no attack does much more than noise: robust at this epsilon, or all attacks fail",
        )
    limit = f"at least {needed:.3f} below noise, if any other attack is"
    return Check("white box vs noise", status, won, limit, meaning)


def _over_noise(clean: Scores, attacked: Scores, random: Scores, theory: Scores) -> tuple[float, float]:
    """How far an attack is below noise, and how far it has to be: a share of what full success would take."""
    won = float(random.mean() - attacked.mean())
    return won, NOISE_SHARE * float(clean.mean() - theory.mean())


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
    """The score must fall with epsilon, and at the largest, half of the pixel range, reach what full success would."""
    epsilons = sorted(by_epsilon)
    values = [clean, *(by_epsilon[epsilon] for epsilon in epsilons)]
    # Above the lowest so far: small rises one after the other are one.
    rise = max(after - lowest for lowest, after in zip(accumulate(values, min), values[1:], strict=False))
    monotone = graded(rise, SWEEP_RISE)
    miss = by_epsilon[epsilons[-1]] - theory
    reached = graded(miss, FULL_EPSILON_MISS)
    return (
        Check(
            "epsilon sweep",
            monotone,
            rise,
            f"{words} rises by at most {SWEEP_RISE:g} over that of any smaller epsilon",
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
    won, needed = _over_noise(clean, attacked, random, theory)
    if won >= needed > 0:
        status, meaning = PASS, "the same attack breaks the backpropagation twin"
    else:
        status, why = FAIL, "it proves nothing about the audited model"
        meaning = (
            f"the same attack does not break the backpropagation twin: {why if needed > 0 else _NOTHING}"
        )
    return Check("control", status, won, f"at least {needed:.3f} below noise on the control", meaning)


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
    low, high = paired_bootstrap_interval(rule, exact)
    status = PASS if low <= 0 <= high else graded(gap, MASKING_GAP)
    return Check(
        "masking",
        status,
        gap,
        limit,
        f"by its own backward pass the model looks {gap:+.3f} [{low:+.3f}, {high:+.3f}] more robust than it is"
        if status != PASS
        else "the model's own backward pass hides nothing",
    )


def inside_ball(errors: Mapping[str, str], reach: Mapping[str, float]) -> Check:
    """All attacks must have run to their end, inside their ball: `reach` is the share of its radius that each used."""
    farthest = max(reach, key=lambda part: reach[part], default=None)
    share = 0.0 if farthest is None else reach[farthest]
    if errors:
        part, message = next(iter(errors.items()))
        status, meaning = FAIL, f"{len(errors)} failed, first '{part}': {message}"
    elif not share <= 1:
        status, meaning = FAIL, f"'{farthest}' leaves its ball: what it reached is of another epsilon"
    else:
        status, meaning = PASS, "every attack ran to its end and stayed inside its ball"
    return Check(
        "attacks", status, share, "every attack ends, at most once the radius of its ball away", meaning
    )
