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


def test_fewer_queries_than_were_asked_for_are_told(
    make: dict[str, Callable[..., Any]], tmp_path: Path
) -> None:
    run = make["run"](tmp_path, "bp", 0)
    attack = make["attack"](run, 0.4, attack="center", epsilon=8 / 255)
    whole = make["audit"](run, {"main": attack})
    assert "were asked for" not in screen(whole)[0].caption
    fewer = make["audit"](run, {"main": attack}, 1, asked=200)
    assert "200 queries were asked for: these are all there are." in screen(fewer)[0].caption
