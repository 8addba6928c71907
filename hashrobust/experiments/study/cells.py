"""What one cell does, in whatever process; and what of it is there already."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hashrobust.errors import BusyError, HashRobustError, InputError
from hashrobust.experiments.attack_runs import Where, attack_run, is_done
from hashrobust.experiments.audit.plan import AuditConfig
from hashrobust.experiments.audit.runs import RESULT, audit_run
from hashrobust.experiments.retrieval_runs import METRICS
from hashrobust.experiments.store import AT_EPOCH, Folder
from hashrobust.experiments.study.plan import (
    AttackCell,
    AuditCell,
    Cell,
    PretrainCell,
    TrainCell,
    TrainedCell,
)
from hashrobust.experiments.study.tasks import TASKS
from hashrobust.experiments.training_runs import pretrain_run
from hashrobust.experiments.weights import MODEL, resolve_weights
from hashrobust.progress import Silent

T = TypeVar("T")
_SECONDS_BETWEEN_TRIES = 0.5


@dataclass(frozen=True)
class Place:
    """Where cells find and leave what they work with; the same for all processes."""

    results: Path
    data_dir: Path
    device: str = "auto"
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Failure:
    """What failed, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: the name of its run ("" if it has none), how many of its units were there already
    and how many were made now, what failed, and how many seconds it took."""

    run: str = ""
    found: int = 0
    made: int = 0
    failures: tuple[Failure, ...] = ()
    skipped: int = 0
    seconds: float = 0.0


def run_cell(cell: Cell, runs: Sequence[str], place: Place) -> Outcome:
    """Do what is missing of a cell; `runs` are the names of the runs that it needs. What fails is told, not raised."""
    started = time.perf_counter()
    try:
        if isinstance(cell, AttackCell):
            outcome = _attack(cell, Folder.open(place.results / runs[0]), place)
        else:
            outcome = Outcome(patiently(lambda: _make(cell, runs, place)).name, made=1)
    except (Exception, SystemExit) as error:  # the latter of a plugin
        outcome = Outcome(failures=(Failure(cell.label, reason(error)),))
    return replace(outcome, seconds=time.perf_counter() - started)


def _make(cell: Cell, runs: Sequence[str], place: Place) -> Folder:
    """The run of a cell with one unit."""
    where: dict[str, Any] = {"data_dir": place.data_dir, "device": place.device}
    task = TASKS[cell.task]
    if isinstance(cell, PretrainCell):
        run = pretrain_run(cell.config, place.results, **where)
        if task.attacks_pretrained:
            task.evaluate(run, **where)
        return run
    if isinstance(cell, TrainCell):
        run = task.train(cell.config, place.results, **where)
        task.evaluate(run, **where)
        return run
    assert isinstance(cell, AuditCell)
    run, control = (Folder.open(place.results / name) for name in runs)
    audit_run(run, cell.config, control=control, **where)
    return run


def _attack(cell: AttackCell, run: Folder, place: Place) -> Outcome:
    """The attacks on a run that are missing, on a model that is loaded once."""
    missing = [config for config in cell.attacks if not _has_attack(run, config.folder_name)]
    failures = []
    where = Where(place.data_dir, place.device, Silent())
    for config in missing:
        try:
            attack_run(run, config, where=where, wait=True)
        except (Exception, SystemExit) as error:  # the latter of a plugin
            what = f"{config.attack} ({config.gradient}, {255 * config.epsilon:g}/255) on {run.name}"
            failures.append(Failure(what, reason(error)))
    found = len(cell.attacks) - len(missing)
    return Outcome(run.name, found, len(missing) - len(failures), tuple(failures))


def patiently(action: Callable[[], T]) -> T:
    """Do it as soon as no other process works on the same run."""
    while True:
        try:
            return action()
        except BusyError:
            time.sleep(_SECONDS_BETWEEN_TRIES)


def reason(error: BaseException) -> str:
    """One line on why something failed; for what nobody foresaw, with the place in the code."""
    if isinstance(error, HashRobustError):
        return " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


def present(cell: Cell, runs: Sequence[str], place: Place) -> Outcome:
    """What of a cell is there already; without a run where its training is not finished."""
    if isinstance(cell, AttackCell):
        run = Folder(place.results / runs[0])
        return Outcome(run.name, sum(_has_attack(run, config.folder_name) for config in cell.attacks))
    if isinstance(cell, AuditCell):
        run = Folder(place.results / runs[0])
        return Outcome(run.name, int(_has_audit(run, runs[1], cell.config)))
    assert isinstance(cell, TrainedCell)
    name = _run_name(cell, place.results)
    done = name and Folder(place.results / name).has(*_last_files(cell))
    return Outcome(name, 1) if done else Outcome()


def _last_files(cell: TrainedCell) -> set[str]:
    """The files without which a training or its evaluation is not finished."""
    task = TASKS[cell.task]
    if isinstance(cell, TrainCell):
        return {MODEL, task.measured}
    return {MODEL, METRICS, task.measured} if task.attacks_pretrained else {MODEL, METRICS}


def _run_name(cell: TrainedCell, results: Path) -> str:
    """The name that the run of a training has, if what it starts from is there."""
    if isinstance(cell, PretrainCell):
        return cell.config.run_name
    try:
        return resolve_weights(cell.config, results)[0].run_name  # type: ignore[type-var]
    except InputError:
        return ""


def _has_attack(run: Folder, name: str) -> bool:
    return is_done(Folder(run.path / "attacks" / name))


def _has_audit(run: Folder, control: str, config: AuditConfig) -> bool:
    """Whether the run was audited like this against the control; either may have been taken at an epoch."""
    wanted = _asked(replace(config, **vars(config.amounts)).to_dict())
    for folder in _audits(run):
        stored = folder.config
        against = str(stored.get("control")).partition(AT_EPOCH)[0]
        if _asked(stored) == wanted and against == control and folder.has(RESULT):
            return True
    return False


def _asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of an audit, as it is stored, without what is found when it begins."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in config.items()
        if value is not None and key not in ("format", "control", "control_digest")
    }


def _audits(run: Folder) -> Iterator[Folder]:
    for path in (run.path, *run.path.parent.glob(f"{run.name}{AT_EPOCH}*")):
        yield from Folder(path).audits()
