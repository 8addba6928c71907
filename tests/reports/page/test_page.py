"""What the page says: verdict, figures, tables and gallery as data."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hashrobust.errors import StoreError
from hashrobust.experiments.config import AttackConfig, ClassifierConfig
from hashrobust.experiments.store import Folder
from hashrobust.reports.page import write_page
from hashrobust.reports.page.material import gather
from hashrobust.reports.page.tables import PageTable

Make = dict[str, Callable[..., Any]]
EPSILON = 8 / 255
SCRIPT = re.compile(r'<script type="application/json" id="([^"]+)">(.*?)</script>', re.S)


def cells(table: PageTable) -> list[dict[str, str]]:
    names = [name for name, _ in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def named(tables: list[PageTable], identifier: str) -> PageTable:
    return next(table for table in tables if table.identifier == identifier)


def test_the_verdict_names_gap_and_both_gradients(results: Path) -> None:
    sentence = gather(results).verdict[0]
    assert sentence.startswith(
        "What looks like robustness of usf and frsf is a hidden gradient: at epsilon 8/255"
    )
    assert "follow the rule gradient leave mAP 17.9 to 32.7%" in sentence
    assert "exact gradient 7.7 to 7.9%" in sentence and "with plain backpropagation" in sentence


def test_the_verdict_tells_the_zero_step_control(results: Path) -> None:
    (sentence,) = [text for text in gather(results).verdict if text.startswith("Zero-step control")]
    assert (
        "by the rule gradient" in sentence
        and "by the exact gradient" in sentence
        and "bp via frsf" in sentence
    )


def test_the_verdict_without_gap(tmp_path: Path, make: Make) -> None:
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.2, attack="center", epsilon=EPSILON)
    assert "no learning rule was attacked by its own gradient" in gather(tmp_path).verdict[0]
    make["attack"](run, 0.201, attack="center", epsilon=EPSILON, gradient="rule")
    assert gather(tmp_path).verdict[0].startswith("The learning rules hide no gradient to speak of")


def test_the_verdict_quotes_audits(tmp_path: Path, make: Make) -> None:
    for rule, word in (("bp", "PASS"), ("frsf", "FAIL")):
        run = make["run"](tmp_path, rule, 0)
        main = make["attack"](run, 0.2, attack="center", epsilon=EPSILON)
        make["audit"](run, {"main": main}, verdict=word)
    found = gather(tmp_path)
    assert "Audits: PASS for bp; FAIL for frsf." in found.verdict
    assert [row["verdict"] for row in cells(named(found.tables, "audits"))] == ["PASS", "FAIL"]
    assert found.glance is not None
    assert {row["rule"]: row["audit"] for row in cells(found.glance)} == {"bp": "PASS", "frsf": "FAIL"}


def test_no_run_without_attack_breaks_the_page(tmp_path: Path, make: Make) -> None:
    make["run"](tmp_path, "frsf", 0)
    found = gather(tmp_path)
    assert found.verdict == [] and found.figures == [] and found.glance is None
    assert "No attack is finished yet" in write_page(tmp_path, tmp_path / "page.html").read_text()


def test_no_rule_number_stands_alone(results: Path) -> None:
    """The word rule in the cell and in its head, the exact number in the cell before."""
    found = gather(results)
    seen = 0
    for table in [found.glance, *found.tables]:
        assert table is not None
        names = [name for name, _ in table.columns]
        for row in table.rows:
            for place, cell in enumerate(row):
                if "rule" in cell and "(rule" in cell:
                    seen += 1
                    assert names[place] == "(rule gradient)" and names[place - 1] == "exact gradient"
                    assert re.match(r"\d|not run", row[place - 1])
    assert seen > 20
    for figure in found.figures:
        for series in figure.series:
            if series.kind in ("rule", "control") and not figure.bars:
                attacked = [text for text in series.text if "no attack" not in text]
                assert attacked and all("rule gradient" in t and "exact gradient" in t for t in attacked)


def test_a_missing_exact_twin_is_told(tmp_path: Path, make: Make) -> None:
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.5, attack="center", epsilon=EPSILON, gradient="rule")
    found = gather(tmp_path)
    assert {
        row["exact gradient"] for row in cells(named(found.tables, "results")) if "(rule:" in str(row)
    } == {"not run"}
    assert any("exact gradient: not run" in text for s in found.figures[0].series for text in s.text)


def test_figure_over_epsilon_has_means_and_bands_over_seeds(results: Path) -> None:
    (figure,) = [f for f in gather(results).figures if f.identifier == "score"]
    (line,) = [
        s
        for s in figure.series
        if (s.model, s.kind) == ("frsf", "rule") and s.choices["attack"].startswith("center (saat)")
    ]
    assert line.x == pytest.approx([0, 2, 4, 8]) and line.y[0] == pytest.approx(84.5)
    # Two seeds .01 apart, the attack's part of which is exp(-8/3).
    half = 100 * 0.01 * np.exp(-8 / 3) / np.sqrt(2)
    assert line.high[-1] - line.y[-1] == pytest.approx(half) and "2 seeds" in line.note
    assert figure.choices[1].options[0].startswith("center (saat)")


def test_figure_of_fine_tuning_steps(tmp_path: Path, make: Make) -> None:
    for steps, gap in ((0, 0.3), (10, 0.35), (None, 0.4)):
        for seed in (0, 1):
            run = make["run"](tmp_path, "frsf", seed, max_steps=steps)
            make["attack"](run, 0.2, attack="center", epsilon=EPSILON)
            make["attack"](run, 0.2 + gap, attack="center", epsilon=EPSILON, gradient="rule")
    found = gather(tmp_path)
    assert found.glance is not None and len(found.glance.rows) == 1  # the whole training alone
    (figure,) = [f for f in found.figures if f.identifier == "steps"]
    assert [name for _, name in figure.x_ticks] == ["0", "10", "all"]
    by = {(s.choices["measure"], s.kind): s for s in figure.series}
    assert by["score", "exact"].y == pytest.approx([20, 20, 20])
    assert by["score", "rule"].y == pytest.approx([50, 55, 60])
    assert by["masking gap", "gap"].y == pytest.approx([30, 35, 40])
    assert all("exact gradient: 20.0%" in text for text in by["score", "rule"].text)


def test_figure_of_depth(tmp_path: Path, make: Make) -> None:
    run = make["run"](tmp_path, "frsf", 0)
    make["audit"](run, {"main": make["attack"](run, 0.2, attack="center", epsilon=EPSILON)})
    (figure,) = [f for f in gather(tmp_path).figures if f.identifier == "depth"]
    cosine = next(s for s in figure.series if s.choices["measure"].startswith("cosine"))
    assert cosine.y == pytest.approx([0.9, 0.45, 0.3]) and "conv1" in cosine.text[2]
    assert figure.x_ticks == [(0, "0"), (1, "1"), (2, "2")]


def test_worst_case_is_an_attack_of_its_own(results: Path) -> None:
    found = gather(results)
    score, queries = (next(f for f in found.figures if f.identifier == i) for i in ("score", "queries"))
    assert "worst case over all attacks" in score.choices[1].options
    curve = next(s for s in queries.series if s.kind == "exact" and s.model == "frsf")
    assert curve.y == sorted(curve.y) and queries.choices[1].options[0] == "8/255"
    table = named(found.tables, "worst")
    assert int(cells(table)[-1]["attacks"]) >= 2 and "(100%)" in table.shared


def test_classification_is_told_apart(tmp_path: Path, make: Make) -> None:
    hashing = make["run"](tmp_path, "frsf", 0)
    make["attack"](hashing, 0.2, attack="center", epsilon=EPSILON)
    for rule in ("bp", "frsf"):
        config = ClassifierConfig(rule=rule)
        run = Folder.create(tmp_path / config.run_name, {"task": "classify", **config.to_dict()})
        for gradient, left in (("exact", 0.4), ("rule", 0.7)):
            add_classifier_attack(run, gradient, left)
    found = gather(tmp_path)
    (sentence,) = [text for text in found.verdict if "accuracy" in text]
    assert "rule gradient leave accuracy 70.0%" in sentence and "exact gradient 40.0%" in sentence
    assert found.glance is not None
    assert {row["score"] for row in cells(found.glance)} == {"mAP", "accuracy"}
    assert {row["task"] for row in cells(named(found.tables, "worst"))} == {"hashing", "classification"}
    (worst,) = [
        row
        for row in cells(named(found.tables, "worst"))
        if (row["task"], row["rule"]) == ("classification", "bp")
    ]
    assert worst["worst case"].startswith("40.0 [") and worst["attacks"] == "2"
    entry = next(entry for entry in found.gallery.entries if "pgd" in entry["name"])
    rows = entry["queries"][0]["rows"]
    assert [(row["predicted"], row["right"]) for row in rows][:2] == [("shirt", True), ("coat", False)]
    assert rows[0]["retrieved"] == []


def add_classifier_attack(run: Folder, gradient: str, left: float) -> None:
    config = AttackConfig(attack="pgd", epsilon=EPSILON, gradient=gradient)
    attack = Folder.create(run.path / "attacks" / config.folder_name, config.to_dict())
    metrics = {
        "clean_accuracy": 0.9,
        "accuracy": left,
        "accuracy_low": left - 0.1,
        "accuracy_high": left + 0.1,
    }
    attack.write_json("metrics.json", {**metrics, "chance_accuracy": 0.1, "queries": 10})
    answers = (np.arange(10) < 10 * left).astype(float)
    queries = {"query_id": np.arange(10), "clean_correct": np.ones(10), "correct": answers}
    attack.write_table("queries.parquet", pd.DataFrame(queries))
    pictures = {"clean": np.zeros((1, 4, 4, 1), np.uint8), "adversarial": np.ones((1, 4, 4, 1), np.uint8)}
    words = {"labels": "shirt", "predicted_clean": "shirt", "predicted_adversarial": "coat"}
    named_as = {name: np.array([word]) for name, word in words.items()}
    attack.write_arrays("examples/examples.npz", {**pictures, **named_as})


def test_the_gallery_has_a_maximum_and_stores_pictures_once(tmp_path: Path, make: Make) -> None:
    run = make["run"](tmp_path, "frsf", 0)
    for number in range(1, 20):
        make["examples"](make["attack"](run, 0.2, attack="center", epsilon=number / 255))
    found = gather(tmp_path).gallery
    assert len(found.entries) == 12 and found.left_out == 7
    assert found.entries[0]["name"].endswith("epsilon 8/255")
    assert len(found.pictures) == len(set(found.pictures)) < 12 * 3 * 8


def test_the_gallery_sets_the_rule_gradient_beside_the_exact_one(tmp_path: Path, make: Make) -> None:
    run = make["run"](tmp_path, "frsf", 0)
    for gradient, left in (("exact", 0.2), ("rule", 0.5)):
        make["examples"](make["attack"](run, left, attack="center", epsilon=EPSILON, gradient=gradient))
    (entry,) = gather(tmp_path).gallery.entries
    assert [row["word"] for row in entry["queries"][0]["rows"]] == [
        "no attack",
        "exact gradient",
        "rule gradient",
    ]
    assert "exact gradient: 20.0% (rule gradient: 50.0%)" in entry["said"]


def test_damaged_examples_are_told(tmp_path: Path, make: Make) -> None:
    attack = make["attack"](make["run"](tmp_path, "frsf", 0), 0.2, attack="center", epsilon=EPSILON)
    attack.write_arrays("examples/examples.npz", {"clean": np.zeros((1, 4, 4, 1), np.uint8)})
    with pytest.raises(StoreError, match="holds no attack examples"):
        gather(tmp_path)


def test_filters_and_what_is_left_out_are_said(results: Path) -> None:
    found = gather(results, ["rule=frsf"])
    assert "Filtered by rule=frsf." in found.remarks and any(
        "Without results" in text for text in found.remarks
    )
    assert {row["rule"] for row in cells(named(found.tables, "results"))} == {"frsf"}
