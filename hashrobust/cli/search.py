"""`hashrobust search`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hashrobust.cli._console import ConsoleProgress, print_json, stdout, table
from hashrobust.cli._options import RESULTS, DataDir, Device, Json, Plugin, Quiet, Results, Run
from hashrobust.errors import InputError

if TYPE_CHECKING:
    from hashrobust.datasets import RetrievalDataset


def command(
    run: Run,
    image: Annotated[Path | None, typer.Argument(help="An image file.")] = None,
    query: Annotated[
        int | None, typer.Option(help="Instead of a file: a query of the dataset, by its position from 0.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Number of results.")] = 10,
    output: Annotated[
        Path | None, typer.Option(help="Draw query and results into this file, such as found.png.")
    ] = None,
    results: Results = RESULTS,
    data_dir: DataDir = None,
    device: Device = "auto",
    plugin: Plugin = [],  # noqa: B006
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the database images nearest to an image."""
    from hashrobust.experiments.retrieval_runs import read_image, search_run, to_pixels
    from hashrobust.experiments.store import find_run
    from hashrobust.experiments.trained_runs import load_retrieval_data

    if (image is None) == (query is None):
        raise InputError("name either an image file or a query of the dataset with --query")
    progress = ConsoleProgress(quiet=quiet)
    folder = find_run(run, results)
    data = load_retrieval_data(folder, data_dir)
    if query is not None:
        if not 0 <= query < len(data.query):
            raise InputError(
                f"query {query} is not in the dataset: give a position from 0 to {len(data.query) - 1}"
            )
        picture = data.query.load([query])[0]
    else:
        assert image is not None
        picture = read_image(image, data.image_shape)
    hits = search_run(folder, picture, k=k, data=data, device=device)
    if len(hits) < k:
        why = "holds no more" if len(hits) == len(data.database) else "has more, but the index is not exact"
        progress.say(f"{len(hits)} results in place of {k}: the database {why}")
    relevant = None if query is None else _relevant(data, query, [hit.position for hit in hits])
    if output is not None:
        from hashrobust.reports.pictures import search_picture

        found = data.database.load([hit.position for hit in hits])
        search_picture(
            to_pixels(picture[None])[0],
            to_pixels(found),
            [hit.distance for hit in hits],
            [", ".join(hit.classes) for hit in hits],
            output,
            relevant=relevant,
        )
        progress.say(f"picture: {output}")
    marks = [None] * len(hits) if relevant is None else relevant
    if json:
        print_json([{**asdict(hit), "relevant": mark} for hit, mark in zip(hits, marks, strict=True)])
        return
    columns = ["rank", "distance (bits)", "class", "image"] + ([] if relevant is None else ["relevant"])
    rows = [
        [str(hit.rank), str(hit.distance), ", ".join(hit.classes), hit.name]
        + ([] if mark is None else ["yes" if mark else "no"])
        for hit, mark in zip(hits, marks, strict=True)
    ]
    stdout.print(table(columns, rows, numbers=columns[:2]))


def _relevant(data: RetrievalDataset, query: int, positions: list[int]) -> list[bool]:
    """Whether each database image shares a label with the query."""
    shared = data.query.labels[query] * data.database.labels[positions]
    return [bool(row.any()) for row in shared]
