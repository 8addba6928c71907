"""`hashrobust index`."""

from __future__ import annotations

from typing import Annotated

import typer

from hashrobust.cli._console import ConsoleProgress
from hashrobust.cli._options import RESULTS, DataDir, Device, Overwrite, Plugin, Quiet, Results, Run


def command(
    run: Run,
    kind: Annotated[str, typer.Option(help="flat (exact), or ivf, hnsw, hash (approximate).")] = "flat",
    results: Results = RESULTS,
    data_dir: DataDir = None,
    device: Device = "auto",
    plugin: Plugin = [],  # noqa: B006
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Encode a run's database into a FAISS Hamming index."""
    from hashrobust.experiments.retrieval_runs import INDEX, index_run
    from hashrobust.experiments.store import find_run

    progress = ConsoleProgress(quiet=quiet)
    folder = find_run(run, results)
    index = index_run(
        folder, kind=kind, data_dir=data_dir, device=device, overwrite=overwrite, progress=progress
    )
    progress.say(f"{index.kind} index of {len(index)} codes of {index.bits} bits")
    print(folder.path / INDEX)
    progress.say(f"next: hashrobust search {folder.path} --query 0")
