"""`hashrobust evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hashrobust.cli._console import ConsoleProgress, print_json, stdout
from hashrobust.cli._options import RESULTS, DataDir, Device, Json, Overwrite, Plugin, Quiet, Results
from hashrobust.errors import InputError


def command(
    run: Annotated[
        str | None,
        typer.Argument(
            help="A run's folder, or the beginning of its name in --results; or give --codes and --labels."
        ),
    ] = None,
    codes: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Query and database codes in {-1, +1} as .npy.")
    ] = None,
    labels: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Query and database labels as .npy.")
    ] = None,
    features: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="The real outputs behind the codes as .npy, for mAP in the style of H2Q."),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "-k",
            min=1,
            metavar="N",
            help="List length of mAP@k, with --codes.",
            show_default="the whole database",
        ),
    ] = None,
    results: Results = RESULTS,
    data_dir: DataDir = None,
    device: Device = "auto",
    plugin: Plugin = [],  # noqa: B006
    overwrite: Overwrite = False,
    brief: Annotated[
        bool, typer.Option("--brief", help="Print one line: mAP or accuracy, its interval, and chance.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure mAP of a run or of any codes, or accuracy.

    With ties in expectation, chance, an interval over queries, and mAP in the styles of the field side by side.
    """
    if (run is None) == (codes is None):
        raise InputError(
            "name either a run, or --codes QUERY.npy DATABASE.npy with --labels QUERY.npy DATABASE.npy"
        )
    if run is not None and any(given is not None for given in (labels, features, k)):
        raise InputError(
            "--labels, --features and -k belong to --codes: a run has its own labels and list length"
        )
    if brief and json:
        raise InputError("--brief and --json exclude each other: leave one of them out")
    progress = ConsoleProgress(quiet=quiet)
    if run is not None:
        from hashrobust.experiments.classifier_runs import evaluate_classifier
        from hashrobust.experiments.retrieval_runs import evaluate_run
        from hashrobust.experiments.store import find_run

        folder = find_run(run, results)
        if folder.classifies:
            metrics = evaluate_classifier(folder, data_dir=data_dir, device=device, overwrite=overwrite)
        else:
            metrics = evaluate_run(
                folder, data_dir=data_dir, device=device, overwrite=overwrite, progress=progress
            )
        title = folder.name
    else:
        from hashrobust.experiments.external import evaluate_codes

        assert codes is not None
        if labels is None:
            raise InputError("--codes needs --labels QUERY.npy DATABASE.npy as well")
        metrics = evaluate_codes(codes, labels, features, k=k)
        title = f"{codes[0].name} against {codes[1].name}"
    if json:
        print_json(metrics)
        return
    if brief:
        print(_brief(metrics))
        return
    from hashrobust.reports.evaluation import metrics_table
    from hashrobust.reports.formats import to_rich

    stdout.print(to_rich(metrics_table(title, metrics)))


def _brief(metrics: dict[str, float]) -> str:
    name, words, over = (
        ("map", "mAP", "queries") if "map" in metrics else ("accuracy", "accuracy", "test images")
    )
    value, low, high, chance = (
        100 * metrics[column] for column in (name, f"{name}_low", f"{name}_high", f"chance_{name}")
    )
    return f"{words} {value:.1f}% (95% over {over}: {low:.1f} to {high:.1f}), chance {chance:.1f}%"
