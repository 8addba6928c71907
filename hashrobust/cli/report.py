"""`hashrobust report`."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer

from hashrobust.cli._console import ConsoleProgress, print_json, stdout
from hashrobust.cli._options import RESULTS, Json, Quiet, Results, What, results_or_run, split_list
from hashrobust.errors import InputError
from hashrobust.registry import did_you_mean

WIDTH = 96
MOST_FINDINGS = 4
"""At most so many paragraphs are printed; the others stand in summary.md."""

PUBLISHED = "published"

PICTURE_FOLDERS = ("training_curves", "examples")


def command(
    what: What = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for tables and figures.", show_default="report, inside that folder"),
    ] = None,
    group_by: Annotated[
        list[str], typer.Option(help="Columns to group by; repeat for several, or a,b.")
    ] = [],  # noqa: B006
    metric: Annotated[
        str | None, typer.Option(help="The column to show.", show_default="map; accuracy of classifiers")
    ] = None,
    filters: Annotated[
        list[str],
        typer.Option(
            "--filter", help="Such as rule=frsf, 'epsilon<=8/255' or attack!=noise; repeat for several."
        ),
    ] = [],  # noqa: B006
    formats: Annotated[
        list[str],
        typer.Option("--format", help="csv, parquet, md, tex, png, pdf or svg; repeat for several, or a,b."),
    ] = [],  # noqa: B006
    paper: Annotated[
        bool, typer.Option("--paper-table", help="Print the table for a paper, in Markdown.")
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            help="published: put the numbers of papers beside ours, with every difference in protocol, on screen and "
            "in the files."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Write one interactive page for a browser instead of the folder of tables and figures; with --output "
            "both.",
        ),
    ] = None,
    results: Results = RESULTS,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Gather runs into tables and figures, or into one HTML page."""
    from hashrobust.reports.comparison import compare as compare_with_published
    from hashrobust.reports.comparison import comparison_frame, comparison_table
    from hashrobust.reports.filters import filter_frame
    from hashrobust.reports.findings import findings
    from hashrobust.reports.formats import to_markdown, to_rich
    from hashrobust.reports.frame import results_frame
    from hashrobust.reports.tables import paper_table
    from hashrobust.reports.write import DEFAULT_FORMATS, shown_rows, summary_tables, write_report

    if paper and (json or compare is not None):
        raise InputError("--paper-table prints Markdown and nothing else: leave out --json and --compare")
    place = results_or_run(what, results)
    if compare not in (None, PUBLISHED):
        raise InputError(f"cannot compare with '{compare}': {did_you_mean(str(compare), [PUBLISHED])}")
    columns = split_list(group_by, "--group-by") or None
    kinds = split_list(formats, "--format")
    if kinds and html is not None and output is None:
        raise InputError(
            "--format is of the folder of tables and figures: name it with --output, beside --html"
        )
    if html is not None:
        from hashrobust.reports.page import check_place, write_page

        check_place(html)
    whole = filter_frame(results_frame(place), filters)
    frame, left_out = shown_rows(whole)
    written = []
    if html is None or output is not None:
        written += write_report(
            place,
            output or place / "report",
            group_by=columns,
            metric=metric,
            filters=filters,
            formats=kinds or DEFAULT_FORMATS,
            published=compare is not None,
        )
    if html is not None:
        written.append(write_page(place, html, filters=filters, published=compare is not None))
    progress = ConsoleProgress(quiet=quiet)
    unfinished = whole.attrs.get("unfinished", [])
    if unfinished:
        progress.say(f"Without results and left out: {len(unfinished)}, such as {unfinished[0]}")
    for sentence in left_out:
        progress.say(sentence)
    if compare is not None:
        pairs = compare_with_published(frame, place)
        if json:
            print_json(comparison_frame(pairs).to_dict(orient="records"))
        else:
            stdout.print(to_rich(comparison_table(pairs)))
    else:
        if json:
            print_json(whole.to_dict(orient="records"))
        elif paper:
            print("\n".join(to_markdown(table) for table in paper_table(frame)))
        else:
            for table in summary_tables(frame, columns, metric):
                stdout.print(to_rich(table))
        _say_findings(findings(frame), progress)
    _name_files(written, progress)


def _say_findings(found: list[str], progress: ConsoleProgress) -> None:
    for paragraph in found[:MOST_FINDINGS]:
        progress.say(f"{fill(paragraph, WIDTH)}\n")
    if len(found) > MOST_FINDINGS:
        progress.say(f"{len(found) - MOST_FINDINGS} more settings: see summary.md")


def _name_files(written: list[Path], progress: ConsoleProgress) -> None:
    """Name the files by folder; where there are many of a kind, their number."""
    progress.say("written:")
    folders = dict.fromkeys(path.parent for path in written)
    for folder in folders:
        files = [path for path in written if path.parent == folder]
        if len(folders) > 1 and folder.name in PICTURE_FOLDERS:
            progress.say(f"  {folder}/ ({len(files)} picture{'s' if len(files) > 1 else ''})")
        else:
            for path in files:
                progress.say(f"  {path}")
