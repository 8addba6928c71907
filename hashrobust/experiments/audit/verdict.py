"""From the scores of all attacks to the headline, the checks and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hashrobust.experiments.audit import checks
from hashrobust.experiments.audit.checks import Check, Scores
from hashrobust.experiments.audit.plan import (
    CONTROL,
    DEFAULT_ATTACKS,
    MAIN,
    NOISE,
    ONE_STEP,
    RESTARTS,
    RULE,
    TWICE,
    ZERO_STEP,
    Cell,
)
from hashrobust.experiments.measures import MEASURES, Measure
from hashrobust.metrics import bootstrap_interval, paired_bootstrap_interval


@dataclass(frozen=True)
class Evidence:
    """All that was measured: a table a finished cell (`queries.parquet`), its metrics, and errors of the others."""

    cells: Sequence[Cell]
    tables: Mapping[str, pd.DataFrame]
    metrics: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, str]
    determinism: Mapping[str, Any]
    validation_score: float
    control_validation_score: float | None = None
    control_determinism: Mapping[str, Any] | None = None
    measure: Measure = MEASURES["hashing"]

    def of(self, part: str, kind: str = "") -> Scores:
        """The attacked, or with a kind the "clean_", "theory_" or "chance_" score a query of one part."""
        values: NDArray[np.float64] = self.tables[part][kind + self.measure.score].to_numpy(dtype=np.float64)
        return values

    def parts(self, *access: str, on_control: bool = False) -> list[str]:
        """Finished parts at the audited epsilon whose attacker knows that much."""
        return [
            cell.part
            for cell in self.cells
            if cell.access in access
            and cell.on_epsilon
            and cell.on_control == on_control
            and cell.part in self.tables
        ]

    def scores(self, *access: str, on_control: bool = False) -> dict[str, Scores]:
        """Scores of those parts."""
        return {part: self.of(part) for part in self.parts(*access, on_control=on_control)}


CONTROL_ANSWERS = "control answers"
ALL = ("white box", "rule", "transfer", "gradient-free", "noise")


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
    clean, theory = evidence.of(MAIN, "clean_"), _theory(evidence, MAIN)
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


def lowest(scores: Mapping[str, Scores]) -> Scores:
    """The lowest score of each query."""
    least: Scores = np.min(np.stack(list(scores.values())), axis=0)
    return least


def _theory(evidence: Evidence, part: str) -> Scores:
    table = evidence.tables[part]
    return evidence.of(part, "theory_" if f"theory_{evidence.measure.score}" in table else "chance_")


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
    theory = float(_theory(evidence, MAIN).mean())
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
            evidence.of(part, "clean_"), evidence.of(part), evidence.of(noise), _theory(evidence, part)
        ),
    )
    scores = evidence.validation_score, evidence.control_validation_score
    return [answers, broken, checks.clean_match(*scores, evidence.measure.words)]


def headline(evidence: Evidence) -> dict[str, Any]:
    """The numbers above the table: worst case over all attacks, beside clean, theory and chance."""
    if MAIN not in evidence.tables:
        return {}
    mean = evidence.measure.mean
    scores = {"clean": evidence.of(MAIN, "clean_"), **evidence.scores(*ALL)}
    worst = lowest(scores)
    low, high = bootstrap_interval(worst)
    found: dict[str, Any] = {
        "queries": len(worst),
        f"clean_{mean}": float(scores["clean"].mean()),
        f"worst_{mean}": float(worst.mean()),
        f"worst_{mean}_low": low,
        f"worst_{mean}_high": high,
        f"theory_{mean}": float(_theory(evidence, MAIN).mean()),
        f"chance_{mean}": float(evidence.of(MAIN, "chance_").mean()),
        f"exact_{mean}": float(evidence.of(MAIN).mean()),
        f"validation_{mean}": evidence.validation_score,
    }
    if RULE in evidence.tables:
        low, high = paired_bootstrap_interval(evidence.of(RULE), evidence.of(MAIN))
        rule = float(evidence.of(RULE).mean())
        found |= {
            f"rule_{mean}": rule,
            "masking_gap": rule - found[f"exact_{mean}"],
            "masking_gap_low": low,
            "masking_gap_high": high,
            "gradient_cosine": evidence.metrics[RULE].get("gradient_cosine"),
            "gradient_sign_agreement": evidence.metrics[RULE].get("gradient_sign_agreement"),
        }
    return found | _comparison(evidence, found)


def _comparison(evidence: Evidence, own: Mapping[str, Any]) -> dict[str, Any]:
    """The audited run against its control on the same queries, by the attacks that both went through."""
    mean = evidence.measure.mean
    on_control = evidence.scores("white box", "gradient-free", "noise", on_control=True)
    shared = [part for part in on_control if part.removeprefix(CONTROL) in evidence.tables]
    if not shared:
        return {}
    twin = lowest({"clean": evidence.of(f"{CONTROL}{MAIN}", "clean_")} | {p: on_control[p] for p in shared})
    mine = lowest(
        {"clean": evidence.of(MAIN, "clean_")}
        | {part: evidence.of(part.removeprefix(CONTROL)) for part in shared}
    )
    low, high = paired_bootstrap_interval(mine, twin)
    found = {
        f"control_clean_{mean}": float(evidence.of(f"{CONTROL}{MAIN}", "clean_").mean()),
        f"control_exact_{mean}": float(evidence.of(f"{CONTROL}{MAIN}").mean()),
        f"control_worst_{mean}": float(twin.mean()),
        f"control_validation_{mean}": evidence.control_validation_score,
        f"shared_worst_{mean}": float(mine.mean()),
        "advantage": float(mine.mean() - twin.mean()),
        "advantage_low": low,
        "advantage_high": high,
        "shared_attacks": len(shared),
    }
    if ZERO_STEP in evidence.tables:
        found[f"zero_step_{mean}"] = float(evidence.of(ZERO_STEP).mean())
    if f"rule_{mean}" in own:
        claimed = own[f"rule_{mean}"] - found[f"control_exact_{mean}"]
        found |= {"claimed_advantage": claimed}
        if claimed > 0:
            found |= {
                name.replace("advantage", "surviving_share"): found[name] / claimed
                for name in ("advantage", "advantage_low", "advantage_high")
            }
    return found


def verdict(found: Sequence[Check]) -> str:
    """PASS, FAIL, or INCOMPLETE where a check was skipped.

    `clean match` is about the comparison alone: models that do not match get no verdict on their difference.
    """
    statuses = {check.name: check.status for check in found if check.name != checks.CLEAN_MATCH_NAME}
    if checks.FAIL in statuses.values():
        return checks.FAIL
    return "INCOMPLETE" if checks.SKIP in statuses.values() else checks.PASS


def matched(found: Sequence[Check]) -> bool:
    """Whether the run and its control may be compared."""
    return any(check.name == checks.CLEAN_MATCH_NAME and check.status != checks.FAIL for check in found)


def verdict_sentence(word: str, found: Sequence[Check], numbers: Mapping[str, Any], measure: Measure) -> str:
    """What the verdict means, with the numbers that it rests on (in percent)."""
    mean = measure.mean
    counted = [check for check in found if check.name != checks.CLEAN_MATCH_NAME]
    failed = [check.name for check in counted if check.status == checks.FAIL]
    skipped = [check.name for check in found if check.status == checks.SKIP]
    said = {
        "PASS": "No check failed: the worst-case number can be quoted.",
        "FAIL": f"Failed: {', '.join(failed)}.",
        "INCOMPLETE": f"No check failed, but these were skipped: {', '.join(skipped)}.",
    }[word]
    if not numbers:
        return said
    sentences = [
        said,
        f"Worst case {_percent(numbers[f'worst_{mean}'])} of {_percent(numbers[f'clean_{mean}'])} clean.",
    ]
    if f"rule_{mean}" in numbers:
        sentences.append(
            f"By the rule's own gradient it looks like {_percent(numbers[f'rule_{mean}'])} (rule), by the exact one "
            f"it is {_percent(numbers[f'exact_{mean}'])}."
        )
    if "advantage" in numbers and not matched(found):
        sentences.append("It and its control are unequally good unattacked: no verdict on their difference.")
    elif "claimed_advantage" in numbers:
        sentences.append(
            f"Of an advantage of {_points(numbers['claimed_advantage'])} over backpropagation by the rule's gradient, "
            f"{_points(numbers['advantage'])} [{_points(numbers['advantage_low'])}, "
            f"{_points(numbers['advantage_high'])}] survives the worst case."
        )
    elif "advantage" in numbers:
        sentences.append(
            f"Against the control in the worst case: {_points(numbers['advantage'])} "
            f"[{_points(numbers['advantage_low'])}, {_points(numbers['advantage_high'])}]."
        )
    if "advantage" in numbers and matched(found):
        sentences.append(
            "The interval covers queries, not training seeds: two seeds of one rule may lie further apart than this."
        )
    return " ".join(sentences)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points"
