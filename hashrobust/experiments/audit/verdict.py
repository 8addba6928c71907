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
    DEFAULT_ATTACK,
    MAIN,
    NOISE,
    ONE_STEP,
    RESTARTS,
    RULE,
    TWICE,
    ZERO_STEP,
    Cell,
)
from hashrobust.metrics import bootstrap_interval, paired_bootstrap_interval


@dataclass(frozen=True)
class Evidence:
    """All that was measured: a table a finished cell (`queries.parquet`), its metrics, and errors of the others."""

    cells: Sequence[Cell]
    tables: Mapping[str, pd.DataFrame]
    metrics: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, str]
    determinism: Mapping[str, Any]
    validation_map: float
    control_validation_map: float | None = None
    control_determinism: Mapping[str, Any] | None = None

    def ap(self, part: str, column: str = "ap") -> Scores:
        """A score a query of one part."""
        values: NDArray[np.float64] = self.tables[part][column].to_numpy(dtype=np.float64)
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
        return {part: self.ap(part) for part in self.parts(*access, on_control=on_control)}


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
    main, metrics = evidence.ap(MAIN), evidence.metrics[MAIN]
    clean, theory = evidence.ap(MAIN, "clean_ap"), _theory(evidence, MAIN)
    others = evidence.scores("gradient-free", "transfer")
    found = [
        *first,
        checks.finite_differences(metrics),
        checks.dead_gradients(_dead(evidence.tables[MAIN])),
        _with(
            evidence, (ONE_STEP,), "one step vs many", lambda: checks.one_step(evidence.ap(ONE_STEP), main)
        ),
        checks.black_box(_white_box(evidence), others),
        checks.noise(clean, main, evidence.ap(NOISE), theory, others),
        _with(
            evidence,
            (TWICE, RESTARTS),
            "twice the steps, more restarts",
            lambda: checks.more_work(main, {part: evidence.ap(part) for part in (TWICE, RESTARTS)}),
        ),
        *_sweep(evidence, epsilon),
        *_control(evidence),
    ]
    exact_alone = RULE not in {cell.part for cell in evidence.cells}
    masking = _with(
        evidence, () if exact_alone else (RULE,), "masking",
        lambda: checks.masking(None if exact_alone else evidence.ap(RULE), main),
    )  # fmt: skip
    return [*found, masking]


def _white_box(evidence: Evidence) -> Scores:
    """The lowest over the suite; if another attack than the suite's own is audited, that attack alone."""
    if evidence.cells[0].config.attack != DEFAULT_ATTACK:
        return evidence.ap(MAIN)
    return lowest(evidence.scores("white box"))


def lowest(scores: Mapping[str, Scores]) -> Scores:
    """The lowest score of each query."""
    least: Scores = np.min(np.stack(list(scores.values())), axis=0)
    return least


def _theory(evidence: Evidence, part: str) -> Scores:
    table = evidence.tables[part]
    return evidence.ap(part, "theory_ap" if "theory_ap" in table else "chance_ap")


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
    by_epsilon = {epsilon: float(evidence.ap(MAIN).mean())}
    failed = []
    for cell in evidence.cells:
        if not cell.on_epsilon and cell.part in evidence.tables:
            by_epsilon[cell.config.epsilon] = float(evidence.ap(cell.part).mean())
        elif not cell.on_epsilon:
            failed.append(cell.part)
    if failed:
        return [checks.skipped("epsilon sweep", "", f"'{failed[0]}' gave no result")]
    clean = float(evidence.ap(MAIN, "clean_ap").mean())
    return list(checks.sweep(clean, by_epsilon, float(_theory(evidence, MAIN).mean())))


def _control(evidence: Evidence) -> list[Check]:
    part, noise = f"{CONTROL}{MAIN}", f"{CONTROL}{NOISE}"
    if evidence.control_validation_map is None:
        why = "no control was given: name the backpropagation twin by --control"
        return [checks.skipped(name, "", why) for name in (CONTROL_ANSWERS, "control", "clean match")]
    assert evidence.control_determinism is not None
    answers = checks.determinism(evidence.control_determinism, CONTROL_ANSWERS)
    broken = _with(
        evidence,
        (part, noise),
        "control",
        lambda: checks.control(
            evidence.ap(part, "clean_ap"), evidence.ap(part), evidence.ap(noise), _theory(evidence, part)
        ),
    )
    return [answers, broken, checks.clean_match(evidence.validation_map, evidence.control_validation_map)]


def headline(evidence: Evidence) -> dict[str, Any]:
    """The numbers above the table: worst case over all attacks, beside clean, theory and chance."""
    if MAIN not in evidence.tables:
        return {}
    scores = {"clean": evidence.ap(MAIN, "clean_ap"), **evidence.scores(*ALL)}
    worst = lowest(scores)
    low, high = bootstrap_interval(worst)
    found: dict[str, Any] = {
        "queries": len(worst),
        "clean_map": float(scores["clean"].mean()),
        "worst_map": float(worst.mean()),
        "worst_map_low": low,
        "worst_map_high": high,
        "theory_map": float(_theory(evidence, MAIN).mean()),
        "chance_map": float(evidence.ap(MAIN, "chance_ap").mean()),
        "exact_map": float(evidence.ap(MAIN).mean()),
        "validation_map": evidence.validation_map,
    }
    if RULE in evidence.tables:
        low, high = paired_bootstrap_interval(evidence.ap(RULE), evidence.ap(MAIN))
        rule = float(evidence.ap(RULE).mean())
        found |= {
            "rule_map": rule,
            "masking_gap": rule - found["exact_map"],
            "masking_gap_low": low,
            "masking_gap_high": high,
            "gradient_cosine": evidence.metrics[RULE].get("gradient_cosine"),
            "gradient_sign_agreement": evidence.metrics[RULE].get("gradient_sign_agreement"),
        }
    return found | _comparison(evidence, found)


def _comparison(evidence: Evidence, own: Mapping[str, Any]) -> dict[str, Any]:
    """The audited run against its control on the same queries, by the attacks that both went through."""
    on_control = evidence.scores("white box", "gradient-free", "noise", on_control=True)
    shared = [part for part in on_control if part.removeprefix(CONTROL) in evidence.tables]
    if not shared:
        return {}
    twin = lowest({"clean": evidence.ap(f"{CONTROL}{MAIN}", "clean_ap")} | {p: on_control[p] for p in shared})
    mine = lowest(
        {"clean": evidence.ap(MAIN, "clean_ap")}
        | {part: evidence.ap(part.removeprefix(CONTROL)) for part in shared}
    )
    low, high = paired_bootstrap_interval(mine, twin)
    found = {
        "control_clean_map": float(evidence.ap(f"{CONTROL}{MAIN}", "clean_ap").mean()),
        "control_exact_map": float(evidence.ap(f"{CONTROL}{MAIN}").mean()),
        "control_worst_map": float(twin.mean()),
        "control_validation_map": evidence.control_validation_map,
        "shared_worst_map": float(mine.mean()),
        "advantage": float(mine.mean() - twin.mean()),
        "advantage_low": low,
        "advantage_high": high,
        "shared_attacks": len(shared),
    }
    if ZERO_STEP in evidence.tables:
        found["zero_step_map"] = float(evidence.ap(ZERO_STEP).mean())
    if "rule_map" in own:
        claimed = own["rule_map"] - found["control_exact_map"]
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


def verdict_sentence(word: str, found: Sequence[Check], numbers: Mapping[str, Any]) -> str:
    """What the verdict means, with the numbers that it rests on (mAP in percent)."""
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
        f"Worst case {_percent(numbers['worst_map'])} of {_percent(numbers['clean_map'])} clean.",
    ]
    if "rule_map" in numbers:
        sentences.append(
            f"By the rule's own gradient it looks like {_percent(numbers['rule_map'])} (rule), by the exact one "
            f"it is {_percent(numbers['exact_map'])}."
        )
    if "advantage" in numbers and not matched(found):
        sentences.append(
            "It and its control retrieve unequally well unattacked: no verdict on their difference."
        )
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
