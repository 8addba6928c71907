"""A study run: what is missing is made, what is there is left alone, what fails is listed at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from hashrobust.errors import BusyError, InputError
from hashrobust.experiments.checksums import SealedFolder
from hashrobust.experiments.config import AttackConfig
from hashrobust.experiments.files import locked
from hashrobust.experiments.study.cells import Failure, Outcome, Place, present
from hashrobust.experiments.study.cluster import Cluster
from hashrobust.experiments.study.local import Executor, InProcess, Processes
from hashrobust.experiments.study.pace import Pace
from hashrobust.experiments.study.plan import STAGES, AttackCell, Cell
from hashrobust.experiments.study.planned import Planned
from hashrobust.experiments.study.sources import check_sources
from hashrobust.progress import Advance, Progress, Silent

_LOCKED = ".study"
"""Folder in the results whose lock the study holds that writes there."""


@dataclass
class Count:
    """Units of one stage: made now, there before, failed, and skipped as something they need failed."""

    made: int = 0
    found: int = 0
    failed: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class StudyResult:
    """What became of a study."""

    name: str
    results: Path
    counts: dict[str, Count]
    failures: list[Failure] = field(default_factory=list)


def run_study(
    planned: Planned, *, jobs: int = 1, scheduler: str | None = None, progress: Progress | None = None
) -> StudyResult:
    """Run what is missing of a study, in `jobs` processes or on a Dask cluster.

    What the run folders hold does not depend on who does the cells. A cell that fails does not stop the others.

    Raises:
        InputError: data are missing or do not fit, before anything runs; or see `Cluster`.
        BusyError: another study writes to the results folder.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}: give at least 1")
    with _held(planned.place.results):
        planned = planned.again()  # the study that held the folder before may have made something
        check_sources(planned)
        _store(planned)
        executor = _executor(planned.place, jobs, scheduler)
        try:
            return _Run(planned, executor, progress or Silent()).run()
        finally:
            executor.close()


@contextmanager
def _held(results: Path) -> Iterator[None]:
    """Keep other studies out of a results folder."""
    try:
        with locked(results / _LOCKED):
            yield
    except BusyError as error:
        raise BusyError(
            f"another study writes to '{results}': wait for it to end, or give another folder with --results"
        ) from error


def _executor(place: Place, jobs: int, scheduler: str | None) -> Executor:
    if scheduler is not None:
        return Cluster(place, scheduler)
    return Processes(place, jobs) if jobs > 1 else InProcess(place)


def study_folder(planned: Planned) -> Path:
    """Where a study keeps its file and its plan."""
    return planned.place.results / f"study-{planned.study.name}"


def _store(planned: Planned) -> None:
    folder = SealedFolder(study_folder(planned))
    with locked(folder.path):
        with folder.writing("study.toml") as temporary:
            temporary.write_text(planned.study.file.text, encoding="utf-8")
        with folder.writing("plan.csv") as temporary:
            plan_table(planned.cells).to_csv(temporary, index=False)


def plan_table(cells: list[Cell]) -> pd.DataFrame:
    """One row a training, attack and audit."""
    rows: list[dict[str, object]] = []
    for cell in cells:
        row: dict[str, object] = {"stage": cell.stage, "task": cell.task, "label": cell.label}
        if isinstance(cell, AttackCell):
            rows += [row | _attack_row(config) for config in cell.attacks]
        else:
            rows.append(row)
    columns = ["stage", "task", "label", "attack", "epsilon", "gradient", "preset", "params", "queries"]
    return pd.DataFrame(rows, columns=columns)


def _attack_row(config: AttackConfig) -> dict[str, object]:
    own = {name: getattr(config, name) for name in ("attack", "epsilon", "gradient", "preset", "queries")}
    return own | {"params": json.dumps(config.params, sort_keys=True)}


class _Run:
    """The cells of a study on their way: each is given out as soon as all that it needs is there."""

    def __init__(self, planned: Planned, executor: Executor, progress: Progress) -> None:
        self.planned, self.executor, self.progress = planned, executor, progress
        self.outcomes: dict[str, Outcome] = {}
        self.running: dict[str, Cell] = {}
        self.pace = Pace()

    def run(self) -> StudyResult:
        """All of them."""
        planned = self.planned
        waiting = list(planned.cells)
        total = sum(cell.units for cell in waiting)
        found = sum(outcome.found for outcome in planned.found.values())
        name = f"study {planned.study.name}"
        with self.progress.track(name, total, "parts", found, left=self._seconds_left) as advance:
            while waiting or self.running:
                waiting = [cell for cell in waiting if not self._begin(cell, advance)]
                if self.running:
                    key, outcome = self.executor.next()
                    self._end(self.running.pop(key), outcome, advance)
        return self._result()

    def _begin(self, cell: Cell, advance: Advance) -> bool:
        """Give the cell out, or say why not; False if it has to wait."""
        if any(key not in self.outcomes for key in (*cell.needs, *cell.after)):
            return False
        lost = [key for key in cell.needs if not self.outcomes[key].run]
        runs = [self.outcomes[key].run for key in cell.needs]
        if lost:
            label = next(other.label for other in self.planned.cells if other.key == lost[0])
            why = Failure(cell.label, f"skipped: it needs {label}, which failed")
            self._end(cell, Outcome(failures=(why,), skipped=cell.units), advance)
            return True
        there = present(cell, runs, self.planned.place)
        if there.found == cell.units:
            self.outcomes[cell.key] = there
            if appeared := self.planned.left(cell):  # made meanwhile by a command beside the study
                advance(appeared, cell.label)
        else:
            self.running[cell.key] = cell
            self.executor.submit(cell, runs)
        return True

    def _end(self, cell: Cell, outcome: Outcome, advance: Advance) -> None:
        self.outcomes[cell.key] = outcome
        self.pace.note(cell, self.planned.left(cell), outcome.seconds)
        for failure in outcome.failures:
            self.progress.say(f"failed: {failure.what}: {failure.why}")
        advance(self.planned.left(cell), cell.label)

    def _seconds_left(self) -> float:
        """What the parts that are missing will take."""
        return self.pace.seconds_left(
            (cell, self.planned.left(cell)) for cell in self.planned.cells if cell.key not in self.outcomes
        )

    def _result(self) -> StudyResult:
        counts = {stage: Count() for stage in STAGES}
        for cell in self.planned.cells:
            outcome, count = self.outcomes[cell.key], counts[cell.stage]
            count.made += outcome.made
            count.found += outcome.found
            count.skipped += outcome.skipped
            count.failed += cell.units - outcome.made - outcome.found - outcome.skipped
        failures = [failure for cell in self.planned.cells for failure in self.outcomes[cell.key].failures]
        return StudyResult(self.planned.study.name, self.planned.place.results, counts, failures)
