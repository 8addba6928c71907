"""An audit on one screen says what it measured, in the words of its task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hashrobust.reports.audit_screen import screen


def test_a_classifier_has_no_map(make: dict[str, Callable[..., Any]], tmp_path: Path) -> None:
    kinds = ("clean", "worst", "exact", "control_clean", "control_exact", "control_worst")
    headline = {f"{kind}_accuracy": 0.5 for kind in (*kinds, "validation", "control_validation")}
    interval = {"advantage": 0.0, "advantage_low": -0.1, "advantage_high": 0.1}
    headline |= {"worst_accuracy_low": 0.4, "worst_accuracy_high": 0.6, **interval}
    found = {"task": "classification", "headline": headline, "matched": True}
    audit = make["audit"](make["run"](tmp_path, "bp", 0), {}, **found)
    table = screen(audit)[0]
    words = [str(cell) for column in table.columns for cell in column.cells]
    assert "control: clean accuracy" in words
    assert not any("mAP" in word for word in words)
