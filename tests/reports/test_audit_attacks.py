"""Attacks of audits: told apart in the results, left out of tables and figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hashrobust.experiments.store import Folder
from hashrobust.reports.audit_attacks import without_audits
from hashrobust.reports.filters import filter_frame
from hashrobust.reports.frame import results_frame
from hashrobust.reports.tables import paper_table
from hashrobust.reports.write import write_report

EPSILON = 8 / 255
Make = dict[str, Callable[..., Any]]


def add_audited(make: Make, root: Path, rule: str, seed: int = 0) -> Folder:
    """A run with an audit of five attacks."""
    run = make["run"](root, rule, seed)
    cells = {
        "main": {"params": {"steps": 50, "restarts": 4}},
        "by rule": {"params": {"steps": 50, "restarts": 4}, "gradient": "rule"},
        "twice the steps": {"params": {"steps": 100, "restarts": 4}},
        "noise": {"attack": "noise", "gradient": "none"},
        "epsilon 2/255": {"params": {"steps": 50, "restarts": 1}, "epsilon": 2 / 255},
    }
    scores = dict(zip(cells, (0.2, 0.5, 0.19, 0.8, 0.6), strict=True))
    made = {
        part: make["attack"](run, scores[part], **{"attack": "center", "epsilon": EPSILON, **cell})
        for part, cell in cells.items()
    }
    make["audit"](run, made)
    return run


def parts(frame: pd.DataFrame) -> list[str]:
    return sorted(frame.loc[frame["attack"] != "none", "audit_part"].dropna())


def test_every_row_names_its_audit(tmp_path: Path, make: Make) -> None:
    run = add_audited(make, tmp_path, "frsf")
    make["attack"](run, 0.3, attack="hag", epsilon=EPSILON)
    frame = results_frame(tmp_path)
    (audit,) = set(frame["audit"].dropna())
    assert audit == f"{run.name}/audits/audit-00000000"
    assert parts(frame) == ["by rule", "epsilon 2/255", "main", "noise", "twice the steps"]
    assert filter_frame(frame, ["attack=hag"])["audit"].isna().all()


def test_an_attack_in_two_audits_names_both(tmp_path: Path, make: Make) -> None:
    control = add_audited(make, tmp_path, "bp")
    run = make["run"](tmp_path, "frsf", 0)
    main = next(a for a in control.attacks() if a.config.get("params") == {"steps": 50, "restarts": 4})
    make["audit"](run, {"control: main": main})
    frame = results_frame(tmp_path)
    (row,) = frame[frame["folder"].str.endswith(main.name) & (frame["rule"] == "bp")].to_dict("records")
    assert set(row["audit_part"].split("; ")) == {"main", "control: main"}
    assert row["audit"].count("/audits/") == 2


def test_an_unfinished_audit_claims_nothing(tmp_path: Path, make: Make) -> None:
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.3, attack="center", epsilon=EPSILON)
    Folder.create(run.path / "audits" / "audit-11111111", {"attack": "center"})
    assert results_frame(tmp_path)["audit"].isna().all()


def test_tables_leave_out_what_belongs_to_audits_alone(tmp_path: Path, make: Make) -> None:
    run = add_audited(make, tmp_path, "frsf")
    make["attack"](run, 0.3, attack="hag", epsilon=EPSILON)
    frame = results_frame(tmp_path)
    shown, (sentence,) = without_audits(frame)
    assert set(shown["attack"]) == {"none", "hag"}
    assert sentence.startswith("Attacks that belong to audits alone") and ": 5 (" in sentence
    assert shown.attrs["settings"] == frame.attrs["settings"]


def test_an_attack_of_an_ordinary_series_stays(tmp_path: Path, make: Make) -> None:
    """A sweep whose point at the audit's epsilon is the audit's own attack keeps that point."""
    run = add_audited(make, tmp_path, "frsf")
    make["attack"](run, 0.4, attack="center", epsilon=4 / 255, params={"steps": 50, "restarts": 4})
    shown, _ = without_audits(results_frame(tmp_path))
    assert parts(shown) == ["by rule", "main"]
    assert sorted(set(shown["epsilon"])) == pytest.approx([0, 4 / 255, 8 / 255])


def test_where_all_is_of_audits_the_main_attack_stays(tmp_path: Path, make: Make) -> None:
    for rule in ("bp", "frsf"):
        add_audited(make, tmp_path, rule)
    shown, (sentence,) = without_audits(results_frame(tmp_path))
    assert parts(shown) == ["by rule", "by rule", "main", "main"]
    assert sentence.startswith("Every attack belongs to an audit") and ": 6 (" in sentence
    (table,) = paper_table(shown)
    assert [row[table.columns.index("rule")] for row in table.rows] == ["bp", "frsf"]


def test_nothing_is_left_out_of_what_only_an_audit_part_passes(tmp_path: Path, make: Make) -> None:
    add_audited(make, tmp_path, "frsf")
    frame = filter_frame(results_frame(tmp_path), ["audit_part=noise"])
    shown, sentences = without_audits(frame)
    assert len(shown) == 1 and sentences == []


def test_results_without_audits_are_shown_whole(results: Path) -> None:
    frame = results_frame(results)
    shown, sentences = without_audits(frame)
    assert shown is frame and sentences == [] and frame["audit"].isna().all()


def test_the_report_keeps_all_rows_in_its_files(tmp_path: Path, make: Make) -> None:
    run = add_audited(make, tmp_path / "results", "frsf")
    make["attack"](run, 0.3, attack="hag", epsilon=EPSILON)
    write_report(tmp_path / "results", tmp_path / "report", formats=["csv", "md"])
    stored = pd.read_csv(tmp_path / "report" / "results.csv")
    assert len(stored) == 7 and stored["audit"].notna().sum() == 5
    summary = (tmp_path / "report" / "summary.md").read_text()
    assert "Attacks that belong to audits alone are left out of tables and figures: 5" in summary
    assert "attacks: 6" in summary and "twice the steps" not in summary
