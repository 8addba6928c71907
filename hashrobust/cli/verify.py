"""`hashrobust verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hashrobust.errors import StoreError


def command(
    results: Annotated[Path, typer.Argument(help="A results folder, or one run.")] = Path("results"),
) -> None:
    """Check every finished file of every run against its checksum."""
    from hashrobust.experiments.store import list_runs

    folders = [folder for run in list_runs(results) for folder in (run, *run.attacks())]
    damaged = [str(folder.path / name) for folder in folders for name in folder.damaged()]
    if damaged:
        raise StoreError(
            f"{len(damaged)} files are missing or changed: {', '.join(damaged)}; make them again"
        )
    files = sum(len(folder.checksums) for folder in folders)
    print(f"{len(folders)} folders, {files} files: all match their checksums")
