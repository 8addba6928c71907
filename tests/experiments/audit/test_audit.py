"""The audit's own conduct: what it stores, resumes, shares, compares and refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hashrobust as hr
from hashrobust.datasets import RetrievalDataset
from hashrobust.errors import InputError, UnknownNameError
from hashrobust.experiments.audit import AuditReport
from hashrobust.experiments.audit.plan import AuditConfig, plan
from hashrobust.reports.audit_screen import screen
from hashrobust.reports.audits import audit_bars, audits_frame, audits_table

from .conftest import SETTINGS, trained


@pytest.fixture(scope="module")
def frsf(data: Any) -> hr.HashModel:
    return trained(data, rule="frsf")


def test_the_headline_is_the_mean_of_the_lowest_over_all_attacks(
    frsf: hr.HashModel, plain: hr.HashModel, audited: Callable[..., AuditReport], tmp_path: Path
) -> None:
    report = audited(frsf, control=plain)
    table = report.folder.read_table("queries.parquet", made_by="audit")
    own = [c for c in table if not c.startswith(("control", "epsilon", "query_id"))]
    assert {"clean", "main", "by rule", "transfer", "square", "noise", "one step"} <= set(own)
    assert report.headline["worst_map"] == pytest.approx(table[own].min(axis=1).mean())
    counted = ~report.attacks["on_control"] & (report.attacks["epsilon"] == SETTINGS["epsilon"])
    assert report.headline["worst_map"] <= report.attacks.loc[counted, "map"].min()
    shared = [c for c in own if f"control: {c}" in table] + ["clean"]
    mine = table[shared].min(axis=1)
    assert report.headline["shared_worst_map"] == pytest.approx(mine.mean())
    assert report.headline["claimed_advantage"] == pytest.approx(
        table["by rule"].mean() - table["control: main"].mean()
    )
    assert np.isclose(report.headline["zero_step_map"], table["control: by rule"].mean())
    assert report.headline["gradient_cosine"] < 0.999

    frame = audits_frame(tmp_path)
    assert frame["verdict"].tolist() == [report.verdict]
    text = " ".join(" ".join(row) for row in audits_table(frame).rows)
    failed = [check for check in report.checks["name"] if report.status(check) == "FAIL"]
    assert audits_table(frame).rows[0][-1] == "; ".join(failed)
    assert f"(rule: {100 * report.headline['rule_map']:.1f})" in text
    assert f"{100 * report.headline['exact_map']:.1f}" in text
    assert audit_bars(frame, tmp_path / "bars.png")[0].stat().st_size > 10_000
    parts = screen(report.folder)
    assert parts[-1].startswith(f"verdict: {report.verdict}. ") and len(parts) == 5


def test_the_amounts_of_a_budget_are_stored(plain: hr.HashModel, data: Any, tmp_path: Path) -> None:
    from hashrobust.experiments.audit.plan import BUDGETS, AuditConfig
    from hashrobust.experiments.audit.runs import Audit
    from hashrobust.experiments.foreign_runs import foreign_run
    from hashrobust.experiments.subject import Subject
    from hashrobust.progress import Silent

    run, model = foreign_run(plain, data, tmp_path)
    subject = Subject.open(run, data=data, model=model, progress=Silent())
    stored = Audit.prepare(subject, None, AuditConfig(budget="quick", steps=7), Silent()).config.to_dict()
    assert {name: stored[name] for name in ("queries", "steps", "restarts", "search")} == {
        **vars(BUDGETS["quick"]), "steps": 7
    }  # fmt: skip


def test_an_interrupted_audit_goes_on_and_ends_the_same(
    plain: hr.HashModel, twin: hr.HashModel, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hashrobust.experiments.audit import runs

    def run(place: str) -> AuditReport:
        return hr.audit(plain, data, control=twin, results=tmp_path / place, **SETTINGS)

    whole = run("whole")
    done, real = [], runs.attack_run

    def killed(*args: Any, **kwargs: Any) -> Any:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(real(*args, **kwargs))
        return done[-1]

    monkeypatch.setattr(runs, "attack_run", killed)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    monkeypatch.undo()
    kept = {attack.path: attack.path.stat().st_mtime_ns for attack in done}
    resumed = run("killed")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    name = "audit.json"
    assert (resumed.folder.path / name).read_bytes() == (whole.folder.path / name).read_bytes()


def test_an_audit_that_is_begun_anew_is_not_done_before_it_ends(
    plain: hr.HashModel, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hashrobust.experiments.audit import runs
    from hashrobust.experiments.foreign_runs import foreign_run
    from hashrobust.experiments.subject import Subject
    from hashrobust.progress import Silent

    def killed(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    run, model = foreign_run(plain, data, tmp_path)
    subject = Subject.open(run, data=data, model=model, progress=Silent())
    config = AuditConfig(queries=4, steps=2, restarts=1, search=2)
    audit = runs.Audit.prepare(subject, None, config, Silent())
    folder = audit.run()
    assert folder.has("audit.json")
    monkeypatch.setattr(runs, "attack_run", killed)
    with pytest.raises(KeyboardInterrupt):
        audit.run(overwrite=True)
    assert not folder.has("audit.json")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"budget": "fast"}, UnknownNameError, "unknown budget 'fast'"),
        ({"attack": "centre"}, UnknownNameError, "did you mean 'center'"),
        ({"attack": "dhta"}, InputError, "'dhta' is targeted"),
        ({"epsilon": 8}, InputError, "in pixel units, such as 8/255"),
        ({"step": 3}, InputError, "unexpected keyword argument 'step'"),
        ({"attack": "pgd"}, InputError, "'pgd' is not for hashing: name another one, such as center"),
        ({"also": ("hag", "pgd")}, InputError, "'pgd' is not for hashing"),
        ({"steps": 0}, InputError, "steps is 0"),
        ({"search": 1}, InputError, "budget is 1"),
        ({"batch_size": 0}, InputError, "batch_size is 0"),
        ({"threads": 0}, InputError, "threads is 0"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
    plain: hr.HashModel,
    data: Any,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        hr.audit(plain, data, results=tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_control_with_other_bits_is_refused(
    plain: hr.HashModel, audited: Callable[..., AuditReport]
) -> None:
    with pytest.raises(InputError, match=r"has bits 8, run .* 16: take a control made with the same"):
        audited(plain, control=nn.Sequential(nn.Flatten(), nn.Linear(64, 8)))


def test_the_plan_holds_the_whole_suite() -> None:
    parts = {cell.part for cell in plan(AuditConfig(), queries=1000, rule="frsf", control="twin")}
    assert {
        *("main", "by rule", "one step", "twice the steps", "more restarts", "center, logit loss"),
        *("center, dot loss", "center-multi", "ap", "hag", "sdha", "square", "random-search", "noise"),
        *("transfer", "control: main", "control: by rule", "epsilon 0.5"),
    } <= parts
    plainer = {cell.part for cell in plan(AuditConfig(), queries=1000, rule="bp", control=None)}
    assert not {part for part in plainer if "rule" in part or "control" in part or part == "transfer"}
    # Twice the amount, not another attack.
    cells = {
        cell.part: cell.config.params for cell in plan(AuditConfig(), queries=9, rule="bp", control=None)
    }
    assert cells["twice the steps"]["steps"] == 2 * cells["main"]["steps"]
    assert cells["more restarts"]["restarts"] == 2 * cells["main"]["restarts"]


def test_an_attack_that_reached_its_goal_is_not_taken_for_one_without_a_gradient(
    data: Any, tmp_path: Path
) -> None:
    """Of few bits all are flipped soon; from there on the masked loss has nothing to say."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    report = hr.audit(model, data, results=tmp_path, **(SETTINGS | {"epsilon": 0.3, "restarts": 1}))
    table = report.folder.read_table("queries.parquet", made_by="audit")
    theory = report.headline["theory_map"]
    assert table["main"].mean() < theory + 0.1
    assert report.status("zero or non-finite gradients") == "PASS", str(report)


def test_models_that_match_are_compared_and_others_are_not(
    plain: hr.HashModel, data: RetrievalDataset, audited: Callable[..., AuditReport]
) -> None:
    class Permuted(nn.Module):
        """The same ranking by other bits."""

        def __init__(self) -> None:
            super().__init__()
            self.model = plain

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            z: torch.Tensor = self.model(images).flip(1)
            return z

    alike = audited(plain, control=Permuted())
    assert alike.status("clean match") == "PASS" and "no verdict" not in alike.sentence
    assert alike.headline["advantage"] == pytest.approx(0, abs=0.02)
    apart = audited(plain, control=trained(data, seed=1, epochs=3))
    assert apart.status("clean match") == "FAIL" and "no verdict on their difference" in apart.sentence
