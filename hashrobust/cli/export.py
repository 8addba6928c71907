"""`hashrobust export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hashrobust.cli._console import ConsoleProgress, print_json
from hashrobust.cli._options import RESULTS, DataDir, Json, Overwrite, Plugin, Quiet, Results, Run


def command(
    run: Run,
    to: Annotated[
        Path | None,
        typer.Option("--to", "--output", help="Folder to write.", show_default="exports/<run's name>"),
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write an ONNX file too; needs hashrobust\\[onnx].")
    ] = False,
    feedback: Annotated[
        bool,
        typer.Option(
            "--feedback", help="Add what the rule drew, so that `import` restores the rule's gradient."
        ),
    ] = False,
    results: Results = RESULTS,
    data_dir: DataDir = None,
    plugin: Plugin = [],  # noqa: B006
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's model as a folder to share.

    It holds weights, source and a model card, and loads without hashrobust.
    """
    from hashrobust.experiments.exports import export_run
    from hashrobust.experiments.store import find_run
    from hashrobust.reports.card import model_card

    progress = ConsoleProgress(quiet=quiet)
    folder = find_run(run, results)
    place = to or Path("exports") / folder.name
    description = export_run(
        folder,
        place,
        card=model_card,
        onnx=onnx,
        feedback=feedback,
        data_dir=data_dir,
        overwrite=overwrite,
        progress=progress,
    )
    if json:
        print_json({"folder": str(place), **description})
    else:
        print(place)
    progress.say(f"read {place / 'README.md'} before you share it; back again: hashrobust import {place}")
