"""What checks say in words where numbers alone mislead."""

from __future__ import annotations

from hashrobust.experiments.audit import checks


def test_a_gradient_that_could_not_be_told_from_kinks_is_not_called_wrong() -> None:
    kinks = checks.finite_differences({"gradient_check_cosine": 1.0, "gradient_check_passed": False})
    assert kinks.status == checks.FAIL and "kinks to tell" in kinks.meaning
    wrong = checks.finite_differences({"gradient_check_cosine": 0.5, "gradient_check_passed": False})
    assert wrong.status == checks.FAIL and "is not the derivative" in wrong.meaning
