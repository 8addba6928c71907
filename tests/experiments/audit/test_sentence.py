"""The verdict in words: short sentences, each with the numbers that it rests on."""

from __future__ import annotations

from hashrobust.experiments.audit import checks
from hashrobust.experiments.audit.checks import Check
from hashrobust.experiments.audit.verdict import verdict_sentence
from hashrobust.experiments.measures import MEASURES

MEASURE = MEASURES["hashing"]
MATCHED = [Check(checks.CLEAN_MATCH_NAME, checks.PASS, 0.0, "", "")]
NUMBERS = {"clean_map": 0.8, "worst_map": 0.2, "chance_map": 0.1, "exact_map": 0.3}
ADVANTAGE = {"advantage": -0.044, "advantage_low": -0.081, "advantage_high": 0.015}


def said(**numbers: float) -> str:
    return verdict_sentence(checks.PASS, MATCHED, NUMBERS | numbers, MEASURE)


def test_the_lead_by_the_rule_stands_beside_that_in_the_worst_case() -> None:
    text = said(**ADVANTAGE, rule_map=0.5, claimed_advantage=0.205)
    assert "looks like 50.0% (rule), by the exact one it is 30.0%." in text
    assert "leads backpropagation by +20.5 points, in the worst case by -4.4 points [-8.1, +1.5]." in text


def test_without_a_rule_the_worst_case_stands_alone() -> None:
    assert "In the worst case it leads its control by -4.4 points [-8.1, +1.5]." in said(**ADVANTAGE)


def test_a_model_at_chance_is_called_so() -> None:
    assert "at chance" in said(clean_map=0.105)
    assert "at chance" not in said()
