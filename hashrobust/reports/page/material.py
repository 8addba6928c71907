"""What a page is made from: results, worst cases, audits, figures and tables, gathered once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hashrobust.experiments import store
from hashrobust.reports.audit_attacks import without_audits
from hashrobust.reports.comparison import compare
from hashrobust.reports.filters import filter_frame
from hashrobust.reports.findings import findings
from hashrobust.reports.frame import results_frame
from hashrobust.reports.page import tables
from hashrobust.reports.page.depth import audited, depth_figure
from hashrobust.reports.page.epsilon import gap_figure, score_figure
from hashrobust.reports.page.gallery import Gallery, gallery
from hashrobust.reports.page.groups import constants, groups, run_keys
from hashrobust.reports.page.series import Figure
from hashrobust.reports.page.sources import Sources
from hashrobust.reports.page.steps import steps_figure
from hashrobust.reports.page.tables import PageTable
from hashrobust.reports.page.verdict import glance_table, glances, verdict
from hashrobust.reports.page.worst import query_figure, worst_numbers, worst_series
from hashrobust.reports.summary import records
from hashrobust.reports.worst_case import worst_cases


@dataclass(frozen=True)
class Material:
    """Everything that a page shows."""

    counts: str
    remarks: list[str]
    verdict: list[str]
    findings: list[str]
    glance: PageTable | None
    figures: list[Figure]
    tables: list[PageTable]
    gallery: Gallery
    sources: Sources


def gather(results: Path, filters: Sequence[str] = (), *, published: bool = False) -> Material:
    """Read a folder of runs; with `published`, numbers of papers too.

    Raises:
        InputError: a filter that names no column or leaves nothing.
        StoreError: nothing is finished, or a file is damaged.
    """
    whole = filter_frame(results_frame(results), filters)
    shown, remarks = without_audits(whole)
    of_runs = run_keys(whole)
    runs = {run.name: run for run in store.list_runs(results)}
    settings = {row["run"]: row for row in records(whole)}
    sources = Sources(str(results), runs)
    found, cases = groups(shown, of_runs), worst_cases(whole, results)
    audits = audited(list(runs.values()), settings, of_runs)
    at_a_glance = glances(found)
    figures = (
        score_figure(found, worst_series(cases, of_runs)),
        gap_figure(found),
        steps_figure(shown, of_runs),
        depth_figure(audits),
        query_figure(cases, of_runs),
    )
    listed = (
        tables.means_table(found, sources),
        tables.worst_table(cases, of_runs, sources),
        tables.audits_table(audits, sources),
        tables.published_table(compare(shown, results), sources) if published else None,
        tables.results_table(whole, of_runs, sources),
    )
    return Material(
        counts=_counts(whole),
        remarks=[*_filtered(filters), *remarks, *_unfinished(whole)],
        verdict=verdict(at_a_glance, audits),
        findings=findings(shown),
        glance=glance_table(at_a_glance, worst_numbers(cases, of_runs), audits, sources),
        figures=[figure for figure in figures if figure is not None],
        tables=[table for table in listed if table is not None],
        gallery=gallery(found, runs),
        sources=sources,
    )


def _counts(frame: pd.DataFrame) -> str:
    attacks = int((frame["attack"] != "none").sum())
    counted = [(frame["run"].nunique(), "run"), (attacks, "attack"), (frame["seed"].nunique(), "seed")]
    return f"{constants(frame)}: " + ", ".join(
        f"{number} {word}{'' if number == 1 else 's'}" for number, word in counted
    )


def _filtered(filters: Sequence[str]) -> list[str]:
    return [f"Filtered by {', '.join(filters)}."] if filters else []


def _unfinished(frame: pd.DataFrame) -> list[str]:
    unfinished = frame.attrs.get("unfinished", [])
    return (
        [f"Without results and left out: {len(unfinished)}, such as {unfinished[0]}."] if unfinished else []
    )
