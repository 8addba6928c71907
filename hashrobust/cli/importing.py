"""`hashrobust import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hashrobust.cli._console import ConsoleProgress
from hashrobust.cli._options import RESULTS, DataDir, Device, Plugin, Quiet, Results


def command(
    directory: Annotated[Path, typer.Argument(help="A folder that `hashrobust export` wrote.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Its data on this machine, such as folder:DIR.", show_default="as it was trained"),
    ] = None,
    results: Results = RESULTS,
    data_dir: DataDir = None,
    device: Device = "auto",
    plugin: Plugin = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Take an exported model back as a run.

    The run can be evaluated, attacked and audited; no code that came with the model is run.
    """
    from hashrobust.experiments.imported_runs import import_run

    progress = ConsoleProgress(quiet=quiet)
    run = import_run(directory, results, dataset=dataset, data_dir=data_dir, device=device, progress=progress)
    print(run.path)
    progress.say(f"next: hashrobust evaluate {run.path}")
