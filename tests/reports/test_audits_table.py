"""The audits of a results folder side by side."""

from __future__ import annotations

import pandas as pd

from hashrobust.reports.audits import audits_table


def test_models_trained_and_attacked_alike_are_told_apart_by_their_runs_or_controls() -> None:
    shared = {
        "task": "hashing",
        "backbone": "lenet",
        "rule": "bp",
        "verdict": "PASS",
        "steps": 50,
        "restarts": 2,
    }
    rows = [
        {**shared, "run": "one"},
        {**shared, "run": "two"},
        {**shared, "run": "three", "restarts": 4},
        {**shared, "run": "four", "rule": "frsf", "feedback_scale": "xavier", "control": "one"},
        {**shared, "run": "four", "rule": "frsf", "feedback_scale": "xavier", "control": "two"},
    ]
    names = [row[0] for row in audits_table(pd.DataFrame(rows)).rows]
    assert names == ["bp (run one)", "bp (run two)", "bp", "frsf (control one)", "frsf (control two)"]


def test_a_hashing_model_and_a_classifier_are_told_apart_by_their_tasks() -> None:
    shared = {"backbone": "lenet", "rule": "frsf", "verdict": "PASS", "steps": 50, "restarts": 2}
    rows = [{**shared, "run": task, "task": task} for task in ("hashing", "classification")]
    names = [row[0] for row in audits_table(pd.DataFrame(rows)).rows]
    assert names == ["frsf (hashing)", "frsf (classification)"]
