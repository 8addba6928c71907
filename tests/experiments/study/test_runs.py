"""Studies run to the end, past what fails; and their results do not depend on who does the cells."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hashrobust.errors import BusyError, InputError
from hashrobust.experiments.audit.plan import AuditConfig
from hashrobust.experiments.store import Folder, list_runs
from hashrobust.experiments.study import StudyResult, plan_study, run_study
from hashrobust.experiments.study.cells import Place, present
from hashrobust.experiments.study.plan import AuditCell
from hashrobust.experiments.study.runs import Count

Contents = Callable[[Path], dict[str, bytes]]
OBJECTIVES = 'objectives = ["csq"]'


def made(result: StudyResult) -> dict[str, int]:
    return {stage: count.made for stage, count in result.counts.items()}


def test_a_study_makes_all_and_then_nothing(
    study: Callable[..., Path], undisturbed: Path, contents: Contents
) -> None:
    names = [run.name.rpartition("-")[0] for run in list_runs(undisturbed)]
    assert names == ["digits-lenet-csq-12-bp-s0", "digits-lenet-csq-12-frsf-s0", "digits-lenet-pretrained-s0"]
    bp, frsf, pretrained = list_runs(undisturbed)
    assert bp.config["weights"] == frsf.config["weights"] == f"run:{pretrained.name}"
    gradients = {
        run.name: sorted(attack.config["gradient"] for attack in run.attacks()) for run in (bp, frsf)
    }
    assert gradients == {
        bp.name: ["exact", "none"],
        frsf.name: ["exact", "none", "rule"],
    }
    kept = undisturbed / "study-tiny"
    assert (kept / "study.toml").read_text() == study().read_text()
    plan = pd.read_csv(kept / "plan.csv")
    assert plan["stage"].value_counts().to_dict() == {"attack": 5, "train": 2, "pretrain": 1}
    before = contents(undisturbed)
    again = run_study(plan_study(study(), undisturbed))
    assert made(again) == {"pretrain": 0, "train": 0, "attack": 0, "audit": 0}
    assert again.counts["attack"] == Count(found=5)
    assert contents(undisturbed) == before


def test_processes_make_the_same_files(
    study: Callable[..., Path], tmp_path: Path, undisturbed: Path, contents: Contents
) -> None:
    result = run_study(plan_study(study(), tmp_path / "results"), jobs=2)
    assert made(result) == {"pretrain": 1, "train": 2, "attack": 5, "audit": 0}
    found, wanted = contents(tmp_path / "results"), contents(undisturbed)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("quick_processes")
def test_a_process_that_is_killed_is_replaced(
    study: Callable[..., Path], tmp_path: Path, undisturbed: Path, contents: Contents
) -> None:
    results = tmp_path / "results"
    killed: list[int] = []

    def kill() -> None:
        while not list(results.glob("*csq*/checkpoints/epoch-001.safetensors")):
            time.sleep(0.002)
        for child in multiprocessing.active_children():
            killed.append(child.pid or 0)
            os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    result = run_study(plan_study(study(), results), jobs=2)
    killer.join(timeout=60)
    assert killed and result.failures == []
    found, wanted = contents(results), contents(undisturbed)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert sorted(found) == sorted(wanted)


def test_what_fails_is_listed_and_the_rest_is_done(
    study: Callable[..., Path], tmp_path: Path, plugin: Path
) -> None:
    path = study((OBJECTIVES, 'objectives = ["failing", "csq"]'), ('"noise"', '"stumbling", "noise"'))
    result = run_study(plan_study(path, tmp_path / "results"))
    whys = [(failure.what, failure.why) for failure in result.failures]
    assert result.counts["train"] == Count(made=2, failed=2)
    assert result.counts["attack"] == Count(made=5, failed=3, skipped=8)
    for rule in ("bp", "frsf"):
        name = f"digits-lenet-failing-12-{rule}-s0"
        assert any(what == name and "RuntimeError: no loss today" in why for what, why in whys)
        assert (f"attacks on {name}", f"skipped: it needs {name}, which failed") in whys
        stumbled = [what for what, why in whys if "a foot in the way" in why and f"csq-12-{rule}" in what]
        assert len(stumbled) == (1 if rule == "bp" else 2)
    assert len(whys) == 2 + 2 + 3
    again = run_study(plan_study(path, tmp_path / "results"))
    assert again.counts["attack"] == Count(found=5, failed=3, skipped=8)


def test_a_cell_that_ends_python_fails_alone(
    study: Callable[..., Path], tmp_path: Path, plugin: Path
) -> None:
    path = study((OBJECTIVES, 'objectives = ["leaving", "csq"]'), ('["bp", "frsf"]', '["bp"]'))
    result = run_study(plan_study(path, tmp_path / "results"))
    assert result.counts["train"] == Count(made=1, failed=1)
    assert result.counts["attack"] == Count(made=2, skipped=2)
    (end, _) = result.failures
    assert end.what == "digits-lenet-leaving-12-bp-s0" and "SystemExit: 0 at broken.py:" in end.why


@pytest.mark.usefixtures("quick_processes")
def test_a_cell_that_kills_its_process_fails_alone(
    study: Callable[..., Path], tmp_path: Path, plugin: Path
) -> None:
    path = study((OBJECTIVES, 'objectives = ["deadly", "csq"]'), ('["bp", "frsf"]', '["bp"]'))
    result = run_study(plan_study(path, tmp_path / "results", plugins=[plugin]), jobs=2)
    assert result.counts["train"] == Count(made=1, failed=1)
    assert result.counts["attack"] == Count(made=2, skipped=2)
    (death,) = [failure for failure in result.failures if "died twice" in failure.why]
    assert death.what == "digits-lenet-deadly-12-bp-s0" and "SIGKILL" in death.why


def test_a_second_study_is_kept_out(study: Callable[..., Path], tmp_path: Path) -> None:
    planned = plan_study(study(), tmp_path / "results")
    said: list[str] = []

    class Meddler:
        def track(self, *arguments: object, **options: object) -> object:
            with pytest.raises(BusyError, match=r"another study writes to .*: wait for it to end, or give"):
                run_study(planned)
            said.append("kept out")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(planned, progress=Meddler())  # type: ignore[arg-type]
    assert said == ["kept out"]
    assert made(run_study(planned))["attack"] == 5


def test_audits_are_made_once(study: Callable[..., Path], tmp_path: Path) -> None:
    audits = 'audits = { budget = "quick", queries = 6, steps = 3, search = 4, epsilon = "16/255" }\n'
    path = study(("queries = 12\n", f"queries = 6\n{audits}"))
    result = run_study(plan_study(path, tmp_path / "results"))
    assert result.failures == [] and made(result)["audit"] == 1
    (audit,) = [audit for run in list_runs(tmp_path / "results") for audit in run.audits()]
    assert "-bp-" in audit.config["control"] and audit.config["queries"] == 6
    assert plan_study(path, tmp_path / "results").summary()[-1] == ("audit", "hashing", 1, 1)
    assert made(run_study(plan_study(path, tmp_path / "results")))["audit"] == 0


def test_an_audit_of_other_settings_is_another(tmp_path: Path) -> None:
    run = Folder.create(tmp_path / "run", {"task": "finetune"})
    asked = AuditConfig(epsilon=0.1)

    def found(**changed: Any) -> int:
        stored = replace(
            asked, **vars(asked.amounts), control="twin@epoch-002", control_digest="abc", **changed
        )
        audit = Folder.create(run.path / "audits" / stored.folder_name, stored.to_dict())
        audit.write_json("audit.json", {})
        cell = AuditCell(key="audit", task="hashing", label="audit", config=asked, needs=("run", "twin"))
        return present(cell, ["run", "twin"], Place(tmp_path, tmp_path)).found

    assert [found(also=("hag",)), found(threads=2), found(batch_size=50), found()] == [0, 0, 0, 1]


def test_jobs_are_at_least_one(study: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="jobs is 0"):
        run_study(plan_study(study(), tmp_path / "results"), jobs=0)
