"""From the checks of an audit to its verdict, and what it means in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hashrobust.experiments.audit import checks
from hashrobust.experiments.audit.checks import Check
from hashrobust.experiments.measures import Measure

CHANCE = 0.01
"""A score less than this above chance is said to be at chance."""


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
    if numbers[f"clean_{mean}"] <= numbers[f"chance_{mean}"] + CHANCE:
        sentences.append("Unattacked it is at chance: it has learnt nothing that an attack could take away.")
    if f"rule_{mean}" in numbers:
        sentences.append(
            f"By the rule's own gradient it looks like {_percent(numbers[f'rule_{mean}'])} (rule), by the exact one "
            f"it is {_percent(numbers[f'exact_{mean}'])}."
        )
    if "advantage" in numbers and not matched(found):
        sentences.append("It and its control are unequally good unattacked: no verdict on their difference.")
    elif "claimed_advantage" in numbers:
        sentences.append(
            f"By the rule's gradient it leads backpropagation by {_points(numbers['claimed_advantage'])} points, in "
            f"the worst case by {_advantage(numbers)}."
        )
    elif "advantage" in numbers:
        sentences.append(f"In the worst case it leads its control by {_advantage(numbers)}.")
    if "advantage" in numbers and matched(found):
        sentences.append(
            "The interval covers queries, not training seeds: two seeds of one rule may lie further apart than this."
        )
    return " ".join(sentences)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _advantage(numbers: Mapping[str, Any]) -> str:
    low, high = _points(numbers["advantage_low"]), _points(numbers["advantage_high"])
    return f"{_points(numbers['advantage'])} points [{low}, {high}]"
