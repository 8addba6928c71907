"""Stored documents and tables that were changed, their checksums with them: a report reads them, or says what is
wrong with them in a sentence that names the file.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w

from hashrobust.errors import StoreError
from hashrobust.experiments.store import Folder
from hashrobust.reports.audit_screen import screen
from hashrobust.reports.page import write_page
from hashrobust.reports.write import write_report

NOTHING = "left out"


@pytest.fixture
def run(tmp_path, make) -> Folder:
    """A run, attacked by both gradients and audited."""
    run = make["run"](tmp_path / "results", "frsf", 0)
    own = {"attack": "center", "preset": "saat", "epsilon": 8 / 255}
    cells = {
        part: make["attack"](run, mean, **own, gradient=gradient)
        for part, mean, gradient in (("main", 0.2, "exact"), ("by rule", 0.4, "rule"))
    }
    make["examples"](cells["main"])
    make["audit"](run, cells, determinism={})
    return run


def attack(run: Folder) -> Folder:
    return next(attack for attack in run.attacks() if attack.config["gradient"] == "exact")


def change(document: Any, place: str, value: Any) -> None:
    *above, last = (int(key) if key.isdigit() else key for key in place.split("."))
    for key in above:
        document = document[key]
    if value is NOTHING:
        del document[last]
    else:
        document[last] = value


def change_json(folder: Folder, name: str, place: str, value: Any) -> None:
    document = json.loads((folder.path / name).read_text())
    change(document, place, value)
    (folder.path / name).write_text(json.dumps(document))
    folder.seal(name)


def change_config(folder: Folder, place: str, value: Any) -> None:
    document = dict(folder.config)
    change(document, place, value)
    (folder.path / "config.toml").write_text(tomli_w.dumps(document))
    folder.seal("config.toml")


def use(run: Folder) -> None:
    """Make all that reports are made of."""
    results, place = run.path.parent, run.path.parents[1]
    for audit in run.audits():
        screen(audit)
    write_report(results, place / "report", formats=("csv", "parquet", "md", "tex"), published=True)
    write_page(results, place / "page.html", published=True)


def test_the_whole_folder_is_reported_on(run):
    use(run)
    assert "Audits: FAIL for frsf." in (run.path.parents[1] / "page.html").read_text()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("task", "bp"),
        ("gradient_by_depth.0.depth", None),
        ("gradient_by_depth.0.depth", float("nan")),
        ("attacks.0.epsilon", None),
        ("attacks.0.access", NOTHING),
        ("headline", NOTHING),
    ],
)
def test_audits_that_cannot_be_read_are_named(run, place, value):
    (audit,) = run.audits()
    change_json(audit, "audit.json", place, value)
    with pytest.raises(StoreError, match=r"audits/audit-00000000/audit\.json"):
        use(run)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("headline.worst_map_low", NOTHING),
        ("headline.masking_gap_high", NOTHING),
        ("headline.gradient_cosine", None),
        ("gradient_by_depth.1.cosine", None),
        ("gradient_by_depth.1.norm_ratio", None),
        ("attacks.0.access", "by letter"),
    ],
)
def test_audits_that_lack_a_number_are_reported_on(run, place, value):
    """A gradient of nothing has no cosine."""
    (audit,) = run.audits()
    change_json(audit, "audit.json", place, value)
    use(run)


def test_a_number_without_its_interval_stands_by_itself(run):
    (audit,) = run.audits()
    change_json(audit, "audit.json", "headline.worst_map_low", NOTHING)
    use(run)
    assert "| 18.0 |" in next((run.path.parents[1] / "report").glob("audit*.md")).read_text()


@pytest.mark.parametrize("value", [0, 0.0, -0.1, float("nan"), float("inf"), True, "8/255"])
def test_epsilons_that_are_none_are_named(run, value):
    change_config(attack(run), "epsilon", value)
    with pytest.raises(StoreError, match=r"config\.toml' is damaged \(epsilon is .*, no number above 0\)"):
        use(run)


@pytest.mark.parametrize(("place", "value"), [("epsilon", NOTHING), ("also", "hag"), ("also", [3])])
def test_configurations_of_audits_that_cannot_be_read_are_named(run, place, value):
    (audit,) = run.audits()
    change_config(audit, place, value)
    with pytest.raises(StoreError, match=r"audit-00000000/config\.toml"):
        use(run)


@pytest.mark.parametrize("place", ["run", "task", "rule", "folder", "dataset"])
def test_configurations_of_audits_do_not_rename_their_run(run, place):
    (audit,) = run.audits()
    change_config(audit, place, "other")
    use(run)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("dataset", NOTHING),
        ("backbone", NOTHING),
        ("run", "another"),
        ("lens", pd.Timestamp("2020-01-01").date()),
        ("lenses", [pd.Timestamp("2020-01-01").date()]),
        ("objective_params", {"quantization_weight": "none"}),
    ],
)
def test_configurations_that_tell_less_or_more_are_reported_on(run, place, value):
    change_config(run, place, value)
    use(run)


def test_a_step_size_in_words_is_told_as_it_is(run):
    change_config(attack(run), "params", {"step_size": "auto"})
    use(run)
    assert "step size auto" in (run.path.parents[1] / "page.html").read_text()


@pytest.mark.parametrize(
    "table",
    [
        {"query_id": [0, 1], "ap": [0.5, 0.5]},
        {"query_id": [0, 1], "clean_ap": [0.5, 0.5]},
        {"query_id": [0, 1], "clean_ap": [0.5, 0.5], "ap": [0.5, float("nan")]},
        {"query_id": [0, 1], "clean_ap": [0.5, 0.5], "ap": [0.5, float("inf")]},
        {"query_id": [0.0, float("nan")], "clean_ap": [0.5, 0.5], "ap": [0.5, 0.5]},
        {"query_id": np.zeros(0), "clean_ap": np.zeros(0), "ap": np.zeros(0)},
        {},
    ],
)
def test_tables_of_queries_that_cannot_be_read_are_named(run, table):
    attack(run).write_table("queries.parquet", pd.DataFrame(table))
    with pytest.raises(StoreError, match=r"queries\.parquet' is damaged"):
        use(run)


def test_scores_that_are_yes_or_no_are_numbers(run):
    for folder in run.attacks():
        table = {"query_id": [0, 1, 2], "clean_ap": [True, True, True], "ap": [True, False, False]}
        folder.write_table("queries.parquet", pd.DataFrame(table))
    use(run)


def test_audits_of_other_layers_are_lines_of_their_own(run, make):
    """Seeds of one model, of which one has a layer more."""
    other = make["run"](run.path.parent, "frsf", 1)
    cell = make["attack"](other, 0.2, attack="center", preset="saat", epsilon=8 / 255)
    make["audit"](
        other,
        {"main": cell},
        gradient_by_depth=[
            {"layer": "hash", "depth": 0, "cosine": 1.0, "sign_agreement": 1.0, "norm_ratio": 1.0}
        ],
    )
    use(run)


def test_examples_without_pixels_are_named(run):
    nothing = np.zeros((3, 0, 16, 1), np.uint8)
    arrays = {"clean": nothing, "adversarial": nothing, "labels": np.arange(3)}
    arrays |= {f"predicted_{kind}": np.arange(3) for kind in ("clean", "adversarial")}
    attack(run).write_arrays("examples/examples.npz", arrays)
    with pytest.raises(StoreError, match=r"examples\.npz' holds no attack examples"):
        write_page(run.path.parent, run.path.parents[1] / "page.html")
