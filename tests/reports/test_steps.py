"""Curves over fine-tuning steps, and tables without them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hashrobust.errors import InputError
from hashrobust.reports.findings import findings
from hashrobust.reports.frame import results_frame
from hashrobust.reports.steps import has_curves, steps_curves, whole_trainings
from hashrobust.reports.write import write_report

CENTER = {"attack": "center", "epsilon": 16 / 255}


@pytest.fixture
def curve(tmp_path, make):
    """A rule over three numbers of steps and the whole training, of two seeds."""
    root = tmp_path / "results"
    for seed in (0, 1):
        for steps, rule_gap in ((0, 0.3), (10, 0.2), (100, 0.1), (None, 0.05)):
            run = make["run"](root, "frsf", seed, max_steps=steps)
            make["attack"](run, 0.2 + 0.02 * seed, **CENTER)
            make["attack"](run, 0.2 + rule_gap + 0.04 * seed, gradient="rule", **CENTER)
    return root


def test_tables_show_whole_trainings_and_say_what_is_left_out(curve, tmp_path):
    frame = results_frame(curve)
    whole, said = whole_trainings(frame)
    assert whole["max_steps"].isna().all() and whole["run"].nunique() == 2
    assert said == [
        "Runs of the first steps of a training: 6, in the figure `steps` and the results files alone."
    ]
    (text,) = findings(whole)
    assert "(± 1.4 over 2 seeds)" in text and "95%" not in text
    names = {path.name for path in write_report(curve, tmp_path / "out")}
    assert "steps.png" in names
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert said[0] in summary and "max steps" not in summary and "![steps](steps.png)" in summary
    assert (tmp_path / "out" / "results.csv").read_text().count(",center,") == 16


def test_the_curve_is_drawn_in_the_colour_of_its_rule(curve, tmp_path):
    frame = results_frame(curve)
    assert has_curves(frame)
    (path,) = steps_curves(frame, tmp_path / "steps.png")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert (np.abs(pixels - [0xD5, 0x5E, 0x00]).sum(axis=2) < 12).sum() > 30


def test_steps_alone_are_shown_as_they_are(tmp_path, make):
    run = make["run"](tmp_path, "frsf", 0, max_steps=10)
    make["attack"](run, 0.2, **CENTER)
    frame = results_frame(tmp_path)
    assert whole_trainings(frame)[0] is frame and not has_curves(frame)
    with pytest.raises(InputError, match="--max-steps"):
        steps_curves(frame, tmp_path / "steps.png")


def test_an_attack_with_other_parameters_is_no_point_of_the_curve(curve, tmp_path, make):
    (before,) = steps_curves(results_frame(curve), tmp_path / "before.png")
    make["attack"](make["run"](curve, "frsf", 0, max_steps=None), 0.9, params={"loss": "dot"}, **CENTER)
    (after,) = steps_curves(results_frame(curve), tmp_path / "after.png")
    assert before.read_bytes() == after.read_bytes()
