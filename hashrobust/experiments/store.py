"""Results folders: the runs in them, found by name, and files written beside what they belong to. No torch here."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from hashrobust.errors import StoreError
from hashrobust.experiments.checksums import CHECKSUMS, TIMING, SealedFolder
from hashrobust.experiments.files import clear_abandoned, file_digest, read_arrays
from hashrobust.experiments.folder import (
    CLASSIFY,
    CONFIG,
    EXPORTED,
    FOREIGN,
    Folder,
    config_hash,
    opened_in,
)

__all__ = [
    "AT_EPOCH",
    "CHECKSUMS",
    "CLASSIFY",
    "CONFIG",
    "EXPORTED",
    "FOREIGN",
    "TIMING",
    "Folder",
    "config_hash",
    "file_digest",
    "find_run",
    "list_runs",
    "read_arrays",
    "sealed_writing",
]

AT_EPOCH = "@epoch-"
"""Between a run's name and the epoch at which it was taken."""


def sealed_writing(path: Path) -> AbstractContextManager[Path]:
    """Write one file atomically, and seal it in the run, attack or audit that it lies in, or else in its own folder.

    No process holds a folder of the latter kind: what killed ones left half-written in it is removed here.
    """
    own = next((folder for folder in path.parents[:2] if (folder / CONFIG).exists()), None)
    if own is None:
        own = path.parent
        clear_abandoned(own)
    return SealedFolder(own).writing(path.relative_to(own).as_posix())


def check_results(results: Path) -> None:
    """Refuse what is no folder.

    Raises:
        StoreError: it is none.
    """
    if not results.is_dir():
        why = "is a file" if results.exists() else "does not exist"
        raise StoreError(f"results folder '{results}' {why}: make a run with `hashrobust finetune`")


def list_runs(results: Path) -> list[Folder]:
    """The run folders right below `results` (or `results` itself, if it is one), by name.

    Raises:
        StoreError: `results` is no folder, or a run in it is of another version.
    """
    check_results(results)
    if (results / CONFIG).exists():
        return [Folder.open(results)]
    return opened_in(results)


def find_run(name: str, results: Path) -> Folder:
    """The run called `name`: a path, a folder name in `results`, or the unique beginning of one.

    Raises:
        StoreError: none or several fit, or it is an attack or audit of a run.
    """
    if not name:
        raise StoreError("the name of a run is empty: give a run folder or the beginning of its name")
    for path in (Path(name), results / name):
        if (path / CONFIG).exists():
            return _as_run(Folder.open(path))
    present = sorted(results.iterdir()) if results.is_dir() else []
    fitting = [path for path in present if path.name.startswith(name) and (path / CONFIG).exists()]
    # What a run was at one of its epochs stands beside it under a longer name; the run itself is meant.
    whole = [path for path in fitting if AT_EPOCH not in path.name]
    if 1 in (len(fitting), len(whole)):
        return Folder.open((whole or fitting)[0])
    if not fitting and Path(name).is_dir():
        return Folder.open(Path(name))  # which says what it lacks
    if not fitting:
        raise StoreError(f"no run '{name}' in '{results}': see `hashrobust list runs --results {results}`")
    names = ", ".join(path.name for path in fitting[:5])
    raise StoreError(f"'{name}' fits {len(fitting)} runs ({names}): give more of the name")


def _as_run(folder: Folder) -> Folder:
    if "task" not in folder.config:
        run = folder.path.resolve().parent.parent.name
        raise StoreError(f"'{folder.path}' is an {folder.command} on run '{run}', and no run: name that")
    return folder
