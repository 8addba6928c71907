"""`hashrobust study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashrobust.cli._console import ConsoleProgress, print_json, stdout, table
from hashrobust.cli._options import COMMON, DataDir, Device, Json, Plugin, Quiet
from hashrobust.errors import InputError

if TYPE_CHECKING:
    from hashrobust.experiments.study import Estimate, Planned, StudyResult

_STAGES = {
    "pretrain": "pre-training",
    "train": "training by rule",
    "attack": "attacks",
    "audit": "audits",
}


def command(
    file: Annotated[Path, typer.Argument(help="A study as TOML: see docs/studies.md and studies/.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, tell how long it would take, and stop.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Processes on this machine.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Dask scheduler, such as tcp://10.0.0.1:8786; needs hashrobust\\[distributed].",
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            help="The folder that holds all runs.",
            show_default="the file's",
            rich_help_panel=COMMON,
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    plugin: Plugin = [],  # noqa: B006
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a matrix of trainings and attacks from one file.

    What is there already is not run again.
    """
    from hashrobust.experiments.study import estimate, plan_study, run_study

    if scheduler is not None and jobs > 1:
        raise InputError("--jobs and --scheduler exclude each other: the cluster has its own workers")
    progress = ConsoleProgress(quiet=quiet)
    planned = plan_study(file, results, data_dir=data_dir, device=device, plugins=plugin)
    if dry_run:
        found = estimate(planned, progress)
        if json:
            print_json(_plan_json(planned, found, jobs))
        else:
            _print_plan(planned, found, jobs)
        return
    result = run_study(planned, jobs=jobs, scheduler=scheduler, progress=progress)
    if json:
        print_json(_result_json(result))
    else:
        _print_result(result)
    progress.say(f"next: hashrobust report {_shown(result.results)}")
    if result.failures:
        raise typer.Exit(1)


def _print_plan(planned: Planned, found: Estimate, jobs: int) -> None:
    rows = []
    for stage, task, total, there in planned.summary():
        time = _duration(found.seconds[stage, task])
        if task in found.incomplete and there < total:
            time = f"{time} and more" if found.seconds[stage, task] else "not measured"
        rows.append((_STAGES[stage], task, str(total), str(there), str(total - there), time))
    columns = ("stage", "task", "in all", "done", "to do", "time, at most")
    stdout.print(table(columns, rows, title=f"study {planned.study.name}", numbers=columns[2:]))
    for pace in found.paces:
        _say(
            f"{pace.network} on {pace.dataset}, {pace.task}: {pace.training_step:.3g} s a training step of "
            f"{pace.batch_size} images, {100 * pace.gradient:.3g} s an attack step of 100"
        )
    for sentence in found.unmeasured:
        _say(f"missing: {sentence}")
    if found.paces or not found.incomplete:
        what = "what was measured" if found.incomplete else "what is left to do"
        _say(f"{what} takes at most {_duration(found.total)} with one process")
        if jobs > 1:
            _say(f"with --jobs {jobs} about {_duration(found.total / jobs)}, if so many cores are free")


def _say(sentence: str) -> None:
    stdout.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _plan_json(planned: Planned, found: Estimate, jobs: int) -> dict[str, Any]:
    rows = [
        {"stage": stage, "task": task, "total": total, "there": there, "seconds": found.seconds[stage, task]}
        for stage, task, total, there in planned.summary()
    ]
    return {
        "study": planned.study.name,
        "results": _shown(planned.place.results),
        "stages": rows,
        "seconds": found.total,
        "jobs": jobs,
        "paces": [vars(pace) for pace in found.paces],
        "missing": found.unmeasured,
    }


def _print_result(result: StudyResult) -> None:
    columns = ("stage", "made now", "done before", "failed", "skipped")
    rows = [
        (_STAGES[stage], *map(str, (count.made, count.found, count.failed, count.skipped)))
        for stage, count in result.counts.items()
        if any((count.made, count.found, count.failed, count.skipped))
    ]
    stdout.print(table(columns, rows, title=f"study {result.name}", numbers=columns[1:]))
    if result.failures:
        failures = [(failure.what, failure.why) for failure in result.failures]
        stdout.print(table(("what failed", "why"), failures, title="failures"))


def _result_json(result: StudyResult) -> dict[str, Any]:
    return {
        "study": result.name,
        "results": _shown(result.results),
        "stages": {stage: vars(count) for stage, count in result.counts.items()},
        "failures": [vars(failure) for failure in result.failures],
    }


def _shown(path: Path) -> str:
    """The path as short as it can be said from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
