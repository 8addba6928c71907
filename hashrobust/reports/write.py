"""The whole report: results as files of numbers, tables to read and paste, figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from hashrobust.errors import InputError
from hashrobust.experiments import store
from hashrobust.experiments.measures import MEASURES
from hashrobust.experiments.store import Folder
from hashrobust.registry import did_you_mean
from hashrobust.reports import labels
from hashrobust.reports.audit_attacks import without_audits
from hashrobust.reports.audits import audit_bars, audits_frame, audits_table
from hashrobust.reports.comparison import compare, comparison_frame, comparison_table
from hashrobust.reports.differences import differences_frame, differences_tables
from hashrobust.reports.figures import map_against_epsilon, masking_gap_bars
from hashrobust.reports.filters import filter_frame
from hashrobust.reports.findings import findings
from hashrobust.reports.formats import Table, escape_markdown, to_latex, to_markdown, write_frame, write_text
from hashrobust.reports.frame import results_frame
from hashrobust.reports.pictures import attack_examples
from hashrobust.reports.queries import queries_frame
from hashrobust.reports.steps import has_curves, steps_curves, whole_trainings
from hashrobust.reports.summary import by_task
from hashrobust.reports.tables import paper_table, summary_table
from hashrobust.reports.training import training_curves
from hashrobust.reports.worst_case import worst_case_frame, worst_case_tables, worst_cases

FORMATS = ("csv", "parquet", "md", "tex", "png", "pdf", "svg")
DEFAULT_FORMATS = ("csv", "parquet", "md", "tex", "png")
PICTURES = 6
"""At most so many pictures of examples, and of training curves."""

_EXAMPLES = "examples/examples.npz"


def write_report(
    results: Path,
    output: Path,
    *,
    group_by: Sequence[str] | None = None,
    metric: str | None = None,
    filters: Sequence[str] = (),
    formats: Sequence[str] = DEFAULT_FORMATS,
    published: bool = False,
) -> list[Path]:
    """Write `results.csv`, `results.parquet`, `queries.parquet`, `summary.md`, `paper_table.md`, `paper_table.tex`,
    `worst_case.csv`, `worst_case.md`, `differences.csv`, `differences.md` and figures into `output`, as far as
    `formats` asks for them; returns the files written.
    With `published`, numbers of papers stand beside ours in `published.csv` and `published.md`.

    Attacks of audits stand in the results files, and in tables and figures of their own (see `without_audits`).

    Raises:
        InputError: an unknown format, column or metric, or a filter that leaves nothing.
        StoreError: nothing is finished in `results`, a file is damaged, or `output` is not writable.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"unknown report format '{name}': {did_you_mean(name, list(FORMATS))}")
    whole = filter_frame(results_frame(results), filters)
    frame, left_out = shown_rows(whole)
    summaries = summary_tables(frame, group_by, metric)  # a wrong column is told before anything is written
    kinds = [name for name in ("png", "pdf", "svg") if name in formats]
    written = [
        write_frame(whole, output / f"results.{name}") for name in ("csv", "parquet") if name in formats
    ]
    written += _queries(whole, results, output) if "parquet" in formats else []
    written += _papers(frame, output, formats)
    written += _worst_cases(whole, results, output, formats)
    written += _differences(frame, results, output, formats)
    written += _audits(results, output, formats, kinds)
    written += _published(frame, results, output, formats) if published else []
    figures, not_drawn = _figures(whole, frame, results, output, kinds) if kinds else ([], [])
    written += figures
    if "md" in formats:
        sentences = map(escape_markdown, findings(frame))
        told = [*left_out, *map(to_markdown, summaries), *sentences, *not_drawn]
        page = [*_heading(whole, filters), *told, *_links(written, figures, output)]
        written.append(write_text("\n\n".join(page) + "\n", output / "summary.md"))
    return written


def shown_rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a results frame that tables and figures show, and sentences on those that they leave out."""
    without, of_audits = without_audits(frame)
    whole, of_steps = whole_trainings(without)
    return whole, [*of_audits, *of_steps]


def _queries(frame: pd.DataFrame, results: Path, output: Path) -> list[Path]:
    """`queries.parquet`, if any attack is finished."""
    scores = queries_frame(frame, results)
    return [] if scores.empty else [write_frame(scores, output / "queries.parquet")]


def _papers(frame: pd.DataFrame, output: Path, formats: Sequence[str]) -> list[Path]:
    """`paper_table.md` and `paper_table.tex`, if any attack is finished."""
    tables = paper_table(frame) if (frame["attack"] != "none").any() else []
    return [
        write_text("\n".join(map(render, tables)), output / f"paper_table.{name}")
        for name, render in (("md", to_markdown), ("tex", to_latex))
        if tables and name in formats
    ]


def _worst_cases(frame: pd.DataFrame, results: Path, output: Path, formats: Sequence[str]) -> list[Path]:
    """`worst_case.csv` and `worst_case.md`, if several attacks were run on the same queries of a run."""
    cases = worst_cases(frame, results)
    tables = worst_case_tables(cases)
    if not tables:
        return []
    written = [write_frame(worst_case_frame(cases), output / "worst_case.csv")] if "csv" in formats else []
    if "md" in formats:
        written.append(write_text("\n".join(map(to_markdown, tables)), output / "worst_case.md"))
    return written


def _differences(frame: pd.DataFrame, results: Path, output: Path, formats: Sequence[str]) -> list[Path]:
    """`differences.csv` and `differences.md`, if any rule has its twin trained by bp."""
    found = differences_frame(frame, results) if {"csv", "md"} & set(formats) else pd.DataFrame()
    if found.empty:
        return []
    written = [write_frame(found, output / "differences.csv")] if "csv" in formats else []
    if "md" in formats:
        tables = map(to_markdown, differences_tables(found))
        written.append(write_text("\n".join(tables), output / "differences.md"))
    return written


def _audits(results: Path, output: Path, formats: Sequence[str], kinds: Sequence[str]) -> list[Path]:
    """`audits.csv`, `audits.md` and the figure `audits`, if any audit is finished."""
    frame = audits_frame(results)
    if frame.empty:
        return []
    written = [write_frame(frame, output / "audits.csv")] if "csv" in formats else []
    if "md" in formats:
        written.append(write_text(to_markdown(audits_table(frame)), output / "audits.md"))
    if kinds:
        written += audit_bars(frame, output / f"audits.{kinds[0]}", also=kinds[1:])
    return written


def _published(frame: pd.DataFrame, results: Path, output: Path, formats: Sequence[str]) -> list[Path]:
    """`published.md`, and `published.csv` if there is anything to compare."""
    found = compare(frame, results)
    written: list[Path] = []
    if found and "csv" in formats:
        written.append(write_frame(comparison_frame(found), output / "published.csv"))
    if "md" in formats:
        written.append(write_text(to_markdown(comparison_table(found)), output / "published.md"))
    return written


def summary_tables(
    frame: pd.DataFrame, group_by: Sequence[str] | None = None, metric: str | None = None
) -> list[Table]:
    """One table a task: the metric (None: the task's own) between what it is measured against.

    Raises:
        InputError: see `summary_table`.
    """
    tables = []
    for part in by_task(frame):
        own = metric or MEASURES[part["task"].iloc[0]].mean
        tables.append(summary_table(part, group_by, _shown_metrics(part, own)))
    return tables


def _shown_metrics(frame: pd.DataFrame, metric: str) -> list[str]:
    targeted = ["t_map"] if metric == "map" else []
    beside = [f"clean_{metric}", metric, "masking_gap", f"theory_{metric}", f"chance_{metric}", *targeted]
    return [m for m in beside if m == metric or (m in frame.columns and frame[m].notna().any())]


def _heading(frame: pd.DataFrame, filters: Sequence[str]) -> list[str]:
    seeds = frame["seed"].nunique() if "seed" in frame.columns else 1
    attacks = int((frame["attack"] != "none").sum())
    lines = ["# Report", f"Runs: {frame['run'].nunique()}, attacks: {attacks}, seeds: {seeds}."]
    if filters:
        lines.append(f"Filters: {', '.join(map(escape_markdown, filters))}.")
    unfinished = frame.attrs.get("unfinished", [])
    if unfinished:
        names = ", ".join(map(escape_markdown, unfinished[:10]))
        lines.append(
            f"Without results and left out: {len(unfinished)} ({names}{', ...' if unfinished[10:] else ''})."
        )
    return lines


def _links(written: Sequence[Path], figures: Sequence[Path], output: Path) -> list[str]:
    """What stands beside the summary: pages by name, figures shown."""
    pages = [
        f"{what}: [{name}]({name})."
        for name, what in (
            ("paper_table.md", "Tables for a paper"),
            ("worst_case.md", "Worst case over all attacks"),
            ("differences.md", "Rules minus backpropagation, in pairs"),
            ("audits.md", "Audits side by side"),
            ("published.md", "Published numbers beside ours"),
        )
        if output / name in written
    ]
    if output / "paper_table.md" not in written:
        pages.insert(0, "No attack is finished.")
    shown = [path.relative_to(output).as_posix() for path in figures if path.suffix == ".png"]
    return [*pages, *(f"![{escape_markdown(Path(name).stem)}]({quote(name)})" for name in shown)]


def _figures(
    whole: pd.DataFrame, frame: pd.DataFrame, results: Path, output: Path, kinds: Sequence[str]
) -> tuple[list[Path], list[str]]:
    """Draw what there is to draw; returns the files, and sentences on what was left out."""
    first, also = f".{kinds[0]}", kinds[1:]
    written: list[Path] = []
    left_out: list[str] = []
    if (frame["attack"] != "none").any():
        written += map_against_epsilon(frame, output / f"map_against_epsilon{first}", also=also)
    by_rule = frame["gradient"].map(labels.is_rule_gradient)
    if frame.loc[by_rule, "masking_gap"].notna().any():
        written += masking_gap_bars(frame, output / f"masking_gap{first}", also=also)
    if has_curves(whole):
        written += steps_curves(without_audits(whole)[0], output / f"steps{first}", also=also)
    runs = {run.name: run for run in store.list_runs(results) if run.name in set(frame["run"])}
    for what, found, draw in (
        ("training curves", [run for run in runs.values() if _was_trained(run)], _draw_training),
        ("examples", _with_examples(frame, runs), draw_examples),
    ):
        written += _draw_each(found, draw, output / what.replace(" ", "_"), first, also)
        if len(found) > PICTURES:
            left_out.append(
                f"Pictures of {what}: the first {PICTURES} of {len(found)}; narrow the report with --filter."
            )
    return written, left_out


def _draw_each(
    found: Sequence[Folder],
    draw: Callable[[Folder, Path, Sequence[str]], list[Path]],
    place: Path,
    suffix: str,
    also: Sequence[str],
) -> list[Path]:
    written: list[Path] = []
    for folder in found[:PICTURES]:
        parent = folder.path.parent.parent.name if folder.path.parent.name == "attacks" else ""
        name = f"{parent}-{folder.name}" if parent else folder.name
        written += draw(folder, place / f"{name}{suffix}", also)
    return written


def _was_trained(run: Folder) -> bool:
    """For at least an epoch."""
    return run.has("history.csv") and len(run.read_table("history.csv", made_by="finetune")) > 0


def _draw_training(run: Folder, path: Path, also: Sequence[str]) -> list[Path]:
    history = run.read_table("history.csv", made_by="finetune")
    aligned = run.has("alignment.csv")
    alignment = run.read_table("alignment.csv", made_by="finetune") if aligned else None
    return training_curves(history, alignment, path, title=run.name, also=also)


def draw_examples(attack: Folder, path: Path, also: Sequence[str] = ()) -> list[Path]:
    """The picture of an attack folder's examples, its title naming attack, epsilon, gradient and run."""
    config = attack.config
    gradient = str(config.get("gradient", "exact"))
    title = f"{config['attack']}, {labels.epsilon(config['epsilon'])}, {gradient} gradient"
    run = attack.path.parent.parent.name
    file = attack.file(_EXAMPLES, made_by="attack")
    return attack_examples(file, path, title=f"{title}: {run}", also=also)


def _with_examples(frame: pd.DataFrame, runs: dict[str, Folder]) -> list[Folder]:
    """The attacks with stored examples, exact gradient and large epsilons first."""
    chosen = frame[frame["attack"] != "none"].sort_values("epsilon", ascending=False, kind="stable")
    by_rule = chosen["gradient"].map(labels.is_rule_gradient).astype(bool)
    chosen = pd.concat([chosen[~by_rule], chosen[by_rule]])
    folders = [
        Folder(runs[run].path / "attacks" / Path(folder).name)
        for run, folder in zip(chosen["run"], chosen["folder"], strict=True)
    ]
    return [folder for folder in folders if folder.has(_EXAMPLES)]
