"""The lowest score of each query over all attacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hashrobust.experiments.config import AttackConfig, ClassifierConfig
from hashrobust.experiments.store import Folder
from hashrobust.reports.filters import filter_frame
from hashrobust.reports.frame import results_frame
from hashrobust.reports.worst_case import (
    NO_ATTACK,
    WorstCase,
    attack_name,
    worst_case_frame,
    worst_case_tables,
    worst_cases,
)
from hashrobust.reports.write import write_report

EPSILON = 8 / 255
Make = dict[str, Callable[..., Any]]


def set_queries(
    attack: Folder, ids: list[int], clean: list[float], scores: list[float], kind: str = "ap"
) -> None:
    table = {"query_id": ids, f"clean_{kind}": clean, kind: scores}
    attack.write_table("queries.parquet", pd.DataFrame(table))


def case_of(scores: np.ndarray, clean: np.ndarray) -> WorstCase:
    names = tuple(f"attack {place}" for place in range(len(scores)))
    return WorstCase("run", EPSILON, "hashing", {}, names, names, np.arange(len(clean)), clean, scores)


SCORES = arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(2, 9)), elements=st.floats(0, 1))


@given(SCORES)
def test_worst_case_is_below_every_attack_and_falls_with_each_further_one(table: np.ndarray) -> None:
    clean, scores = table[0], table[1:]
    case = case_of(scores, clean)
    assert (case.worst <= scores).all() and (case.worst <= clean).all()
    assert case.mean <= min(clean.mean(), *scores.mean(axis=1)) + 1e-12
    assert case.mean <= case_of(scores[:1], clean).mean
    low, high = case.interval
    assert low <= case.mean + 1e-9 and case.mean <= high + 1e-9
    assert sum(case.won.values()) == pytest.approx(1)


def test_which_attack_won_how_often() -> None:
    clean = np.array([0.9, 0.9, 0.1, 0.9])
    case = case_of(np.array([[0.2, 0.5, 0.3, 0.4], [0.6, 0.5, 0.2, 0.1]]), clean)
    assert case.worst.tolist() == [0.2, 0.5, 0.1, 0.1]
    assert case.won == {"attack 0": 0.375, "attack 1": 0.375, NO_ATTACK: 0.25}
    assert case.queries["attack 1"].tolist() == [0.6, 0.5, 0.2, 0.1]


def test_attacks_of_every_kind_are_joined_by_query(tmp_path: Path, make: Make) -> None:
    run = make["run"](tmp_path, "frsf", 0)
    kinds: dict[str, dict[str, Any]] = {
        "center, exact gradient": {"attack": "center"},
        "center, rule gradient": {"attack": "center", "gradient": "rule"},
        "square, no gradient": {"attack": "square", "gradient": "none"},
        "center, transfer": {"attack": "center", "surrogate": "twin"},
    }
    lowest = ([0.1, 0.8, 0.8], [0.8, 0.2, 0.8], [0.8, 0.8, 0.3], [0.7, 0.7, 0.7])
    for (name, config), scores in zip(kinds.items(), lowest, strict=True):
        attack = make["attack"](run, 0.5, epsilon=EPSILON, **config)
        order = [2, 0, 1] if name.startswith("square") else [0, 1, 2]
        set_queries(attack, [order[i] + 10 for i in range(3)], [0.9] * 3, [scores[i] for i in order])
    (case,) = worst_cases(results_frame(tmp_path), tmp_path)
    assert set(case.attacks) == set(kinds)
    assert case.query_ids.tolist() == [10, 11, 12]
    assert case.worst.tolist() == [0.1, 0.2, 0.3]
    assert case.won["center, transfer"] == 0


def test_other_queries_and_other_epsilons_are_never_joined(tmp_path: Path, make: Make) -> None:
    run = make["run"](tmp_path, "frsf", 0)
    for number, (ids, epsilon) in enumerate([([0, 1], EPSILON), ([0, 2], EPSILON), ([0, 1], EPSILON / 2)]):
        attack = make["attack"](run, 0.5, attack="center", epsilon=epsilon, seed=number)
        set_queries(attack, ids, [0.9, 0.9], [0.1, 0.1 * (number + 1)])
    cases = worst_cases(results_frame(tmp_path), tmp_path)
    assert sorted((case.epsilon, tuple(case.query_ids)) for case in cases) == [
        (EPSILON / 2, (0, 1)),
        (EPSILON, (0, 1)),
        (EPSILON, (0, 2)),
    ]
    assert worst_case_tables(cases) == []  # one attack each: nothing to join


def test_a_single_attack_is_shown_beside_those_that_had_several(tmp_path: Path, make: Make) -> None:
    for rule, gradients in (("frsf", ("exact", "rule")), ("bp", ("exact",))):
        run = make["run"](tmp_path, rule, 0)
        for gradient in gradients:
            attack = make["attack"](run, 0.5, attack="center", epsilon=EPSILON, gradient=gradient)
            set_queries(attack, [0, 1], [0.9, 0.9], [0.1, 0.2])
    (table,) = worst_case_tables(worst_cases(results_frame(tmp_path), tmp_path))
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert {(row["rule"], row["attacks"]) for row in rows} == {("frsf", "2"), ("bp", "1")}


def test_attacks_of_one_name_are_told_apart(tmp_path: Path, make: Make) -> None:
    run = make["run"](tmp_path, "frsf", 0)
    made = [make["attack"](run, 0.5, attack="center", epsilon=EPSILON, batch_size=n) for n in (50, 100)]
    (case,) = worst_cases(results_frame(tmp_path), tmp_path)
    assert set(case.attacks) == {f"center, exact gradient [{attack.name}]" for attack in made}


def test_a_warm_start_and_another_seed_are_told(tmp_path: Path, make: Make) -> None:
    run = make["run"](tmp_path, "bp", 0)
    for own in ({}, {"start_epsilons": (4 / 255,)}, {"seed": 3}):
        make["attack"](run, 0.3, attack="center", epsilon=8 / 255, **own)
    names = {
        attack_name(row) for row in results_frame(tmp_path).to_dict("records") if row["attack"] != "none"
    }
    assert names == {
        "center, exact gradient",
        "center, exact gradient, warm start",
        "center, exact gradient, attack seed 3",
    }


def test_classification_counts_correct_answers(tmp_path: Path) -> None:
    config = ClassifierConfig(rule="frsf")
    run = Folder.create(tmp_path / config.run_name, {"task": "classify", **config.to_dict()})
    for name, answers in (("pgd", [1, 0, 1, 1]), ("square", [0, 1, 1, 1])):
        settings = AttackConfig(attack=name, epsilon=EPSILON)
        attack = Folder.create(run.path / "attacks" / settings.folder_name, settings.to_dict())
        attack.write_json("metrics.json", {"accuracy": 0.75, "clean_accuracy": 1.0, "queries": 4})
        set_queries(attack, [0, 1, 2, 3], [1.0] * 4, answers, "correct")
    (case,) = worst_cases(results_frame(tmp_path), tmp_path)
    assert case.mean == 0.5
    (table,) = worst_case_tables([case])
    assert table.title == "Worst case over all attacks: accuracy in percent"
    assert table.rows[0][table.columns.index("clean")] == "100.0"


def test_table_and_frame_over_seeds(results: Path) -> None:
    frame = filter_frame(results_frame(results), ["attack=center", "rule!=bp"])
    cases = worst_cases(frame, results)
    numbers = worst_case_frame(cases)
    assert len(numbers) == 2 * 2 * 3 and set(numbers["attacks"]) == {2}
    (table,) = worst_case_tables(cases)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert {row["seeds"] for row in rows} == {"0, 1"}
    row = next(row for row in rows if (row["rule"], row["epsilon"]) == ("usf", "4/255"))
    chosen = numbers[(numbers["rule"] == "usf") & np.isclose(numbers["epsilon"], 4 / 255)]["worst"]
    assert row["worst case"] == f"{100 * chosen.mean():.1f} ± {100 * chosen.std():.1f}"
    (one,) = worst_case_tables([case for case in cases if case.settings["seed"] == 1])
    assert all("[" in row[one.columns.index("worst case")] for row in one.rows)


def test_the_report_writes_them(results: Path, tmp_path: Path) -> None:
    write_report(results, tmp_path, formats=["csv", "md"])
    stored = pd.read_csv(tmp_path / "worst_case.csv")
    assert {"run", "epsilon", "worst", "worst_low", "worst_high", "joined", "won_most"} <= set(stored.columns)
    assert "Worst case over all attacks: mAP in percent" in (tmp_path / "worst_case.md").read_text()
    assert "[worst_case.md](worst_case.md)" in (tmp_path / "summary.md").read_text()
