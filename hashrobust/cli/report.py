"""`hashrobust report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hashrobust.cli._console import ConsoleProgress, print_json, stdout
from hashrobust.cli._options import Json, Quiet, split_list


def command(
    results: Annotated[Path, typer.Argument(help="A results folder, or one run.")] = Path("results"),
    output: Annotated[
        Path | None, typer.Option(help="Folder for tables and figures. [default: RESULTS/report]")
    ] = None,
    group_by: Annotated[list[str], typer.Option(help="Columns to group by; several: repeat or a,b.")] = [],  # noqa: B006
    metric: Annotated[str, typer.Option(help="The column to show.")] = "map",
    filters: Annotated[
        list[str],
        typer.Option("--filter", help="Such as rule=frsf, 'epsilon<=8/255', attack!=noise; repeat."),
    ] = [],  # noqa: B006
    formats: Annotated[
        list[str],
        typer.Option("--format", help="csv, parquet, md, tex, png, pdf, svg; several: repeat or a,b."),
    ] = [],  # noqa: B006
    paper: Annotated[
        bool, typer.Option("--paper-table", help="Print the table that goes into a paper.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Gather every run into tables (CSV, Parquet, Markdown, LaTeX) and figures."""
    from hashrobust.reports.filters import filter_frame
    from hashrobust.reports.formats import to_markdown, to_rich
    from hashrobust.reports.frame import results_frame
    from hashrobust.reports.tables import paper_table, summary_table
    from hashrobust.reports.write import DEFAULT_FORMATS, shown_metrics, write_report

    frame = filter_frame(results_frame(results), filters)
    columns = split_list(group_by) or None
    written = write_report(
        results,
        output or results / "report",
        group_by=columns,
        metric=metric,
        filters=filters,
        formats=split_list(formats) or DEFAULT_FORMATS,
    )
    progress = ConsoleProgress(quiet=quiet)
    unfinished = frame.attrs.get("unfinished", [])
    if unfinished:
        progress.say(f"{len(unfinished)} unfinished folders are left out, such as {unfinished[0]}")
    if json:
        print_json(frame.to_dict(orient="records"))
    elif paper:
        print("\n".join(to_markdown(table) for table in paper_table(frame)))
    else:
        stdout.print(to_rich(summary_table(frame, columns, shown_metrics(frame, metric))))
    for path in written:
        progress.say(str(path))
