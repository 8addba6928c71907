from __future__ import annotations

import re

import pytest

from hashrobust.reports.filters import filter_frame
from hashrobust.reports.findings import findings
from hashrobust.reports.frame import results_frame
from hashrobust.reports.write import write_report

CENTER = {"attack": "center", "epsilon": 16 / 255}


def paragraphs(root):
    return findings(results_frame(root))


def test_worst_case_and_gap_are_told_with_both_gradients(tmp_path, make):
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.2, **CENTER)
    make["attack"](run, 0.5, gradient="rule", **CENTER)
    make["attack"](run, 0.3, attack="hag", epsilon=16 / 255)
    make["attack"](run, 0.6, attack="hag", epsilon=16 / 255, gradient="rule")
    make["attack"](run, 0.8, attack="center", epsilon=2 / 255)
    (text,) = paragraphs(tmp_path)
    assert "at epsilon 16/255" in text
    assert "exact gradient takes mAP from 84.0% to 20.0% for frsf (center); chance is 10.0%" in text
    assert "frsf keeps 50.0% by the rule's gradient but 20.0% by the exact one: 30.0 points" in text
    assert "apparent robustness are masking" in text
    assert "60.0" not in text and "80.0" not in text


def test_small_gaps_are_no_masking(tmp_path, make):
    run = make["run"](tmp_path, "usf", 0)
    make["attack"](run, 0.2, **CENTER)
    make["attack"](run, 0.215, gradient="rule", **CENTER)
    (text,) = paragraphs(tmp_path)
    assert "no masking to speak of" in text and "points" not in text


def test_control_is_told_as_training_free(tmp_path, make):
    run = make["run"](tmp_path, "bp", 0)
    make["attack"](run, 0.2, **CENTER)
    make["attack"](run, 0.4, gradient="rule:frsf", **CENTER)
    (text,) = paragraphs(tmp_path)
    assert "bp through frsf feedback, which never trained it, keeps 40.0% by the rule's gradient" in text
    assert "20.0 points" in text and "without any training by the rule" in text


def test_backpropagations_own_rule_says_nothing(tmp_path, make):
    run = make["run"](tmp_path, "bp", 0)
    make["attack"](run, 0.2, **CENTER)
    make["attack"](run, 0.2, gradient="rule", **CENTER)
    assert "rule's" not in paragraphs(tmp_path)[0]


def test_no_rule_number_without_its_exact_twin(tmp_path, make):
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.5, gradient="rule", **CENTER)
    assert "50.0" not in "".join(paragraphs(tmp_path))


def test_attacks_by_other_models_gradients_have_no_paragraph(tmp_path, make):
    run = make["run"](tmp_path, "bp", 0)
    make["attack"](run, 0.2, gradient="transfer", surrogate="other", **CENTER)
    assert paragraphs(tmp_path) == []
    make["attack"](run, 0.1, **CENTER)
    (text,) = paragraphs(tmp_path)
    assert "to 10.0% for bp (center)" in text


def test_one_seed_is_named_where_rules_are_compared(tmp_path, make):
    for rule in ("frsf", "bp"):
        make["attack"](make["run"](tmp_path, rule, 0), 0.2, **CENTER)
    (text,) = paragraphs(tmp_path)
    assert "One seed" in text
    assert text.index("to 20.0% for bp") < text.index("to 20.0% for frsf")
    for rule in ("frsf", "bp"):
        make["attack"](make["run"](tmp_path, rule, 1), 0.3, **CENTER)
    (text,) = paragraphs(tmp_path)
    assert "One seed" not in text and "to 25.0% for bp" in text


def test_settings_have_paragraphs_of_their_own(tmp_path, make):
    for rate in (1e-3, 1e-4):
        make["attack"](make["run"](tmp_path, "bp", 0, learning_rate=rate), 0.2, **CENTER)
    make["attack"](make["run"](tmp_path, "bp", 0, bits=64), 0.2, **CENTER)
    texts = paragraphs(tmp_path)
    assert len(texts) == 3
    assert any("learning rate 0.001" in text for text in texts) and any("64 bits" in text for text in texts)


@pytest.mark.parametrize("filters", [["attack=none"], ["attack=dhta"]])
def test_nothing_is_found_without_untargeted_attacks(results, filters):
    assert findings(filter_frame(results_frame(results), filters)) == []


def test_summary_holds_the_findings(results, tmp_path):
    write_report(results, tmp_path, formats=["md"])
    text = (tmp_path / "summary.md").read_text()
    for found in findings(results_frame(results)):
        assert found in text
        for number in re.findall(
            r"([\d.]+%) by the rule's gradient (?:but|and) (\S+%) by the exact one", found
        ):
            assert all(number)
