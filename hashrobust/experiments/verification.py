"""Whether a results folder is still what was written: every file held against its checksum. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from hashrobust.errors import StoreError
from hashrobust.experiments.checksums import CHECKSUMS, TIMING, SealedFolder, read_times
from hashrobust.experiments.files import LOCK
from hashrobust.experiments.store import CONFIG, check_results
from hashrobust.progress import Progress, Silent

LAYOUT = (
    *(CONFIG, "environment.json", "conversion.json", "history.csv", "alignment.csv", TIMING),
    *("model.safetensors", "feedback.safetensors", "codes.npz", "index.faiss"),
    *("metrics.json", "accuracy.json", "audit.json", "queries.parquet", "examples/examples.*"),
    *("checkpoints/*.safetensors", "gradient_checks/*.json", "fitted/*.safetensors", "parts/*.npz"),
)
"""Files of runs, attacks and audits, as docs/conventions.md lists them. Others are unknown, unless they are listed."""


@dataclass
class Verification:
    """What was found: files by their paths. Those in `unsealed` have no checksum, which is no fault: an older version
    wrote them, somebody else, or a process that was killed before it listed them."""

    folders: int = 0
    matching: int = 0
    changed: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    unsealed: list[Path] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """How many files are changed, missing or unknown."""
        return len(self.changed) + len(self.missing) + len(self.unknown)


def verify(results: Path, progress: Progress | None = None) -> Verification:
    """Hold every file below a results folder, or one run, against its checksum.

    Raises:
        StoreError: there is no such folder, or nothing in it was written by hashrobust.
    """
    check_results(results)
    files = list(_files(results))
    if not any(path.name in (CHECKSUMS, CONFIG) for path in files):
        raise StoreError(f"'{results}' holds no results: name a results folder, or a run in it")
    found = Verification(folders=sum(path.name == CHECKSUMS for path in files))
    listed: dict[Path, SealedFolder] = {}
    for path in (path for path in files if path.name == CHECKSUMS):
        folder = SealedFolder(path.parent)
        try:
            listed |= {folder.path / name: folder for name in folder.checksums}
            found.matching += 1
        except StoreError:
            found.changed.append(path)
    found.missing += [path for path in listed if not path.exists() and _is_listed(path, listed[path])]
    rest = [path for path in files if path.name != CHECKSUMS]
    with (progress or Silent()).track("verifying", len(rest), "files") as advance:
        for path in rest:
            _look_at(path, listed.get(path), results, found)
            advance(1, "")
    return found


def _files(results: Path) -> Iterator[Path]:
    """All files but locks and what a killed process left half-written, by path."""
    for path in sorted(results.rglob("*")):
        temporary = any(part.startswith(".tmp") for part in path.relative_to(results).parts)
        if path.name != LOCK and not temporary and not path.is_dir():
            yield path


def _look_at(path: Path, folder: SealedFolder | None, results: Path, found: Verification) -> None:
    if folder is not None:
        name = path.relative_to(folder.path).as_posix()
        if folder.matches(name) or folder.matches(name):  # twice, lest it was being replaced just then
            found.matching += 1
        else:
            (found.changed if _is_listed(path, folder) else found.unsealed).append(path)
    elif path.name == TIMING:
        _look_at_times(path, found)
    elif _is_unknown(path, results):
        found.unknown.append(path)
    else:
        found.unsealed.append(path)


def _is_listed(path: Path, folder: SealedFolder) -> bool:
    """Whether a file is still on its list: a process at work may have taken it off since, to change or remove it."""
    return path.relative_to(folder.path).as_posix() in folder.checksums


def _look_at_times(path: Path, found: Verification) -> None:
    """`timing.json` carries its checksum inside."""
    try:
        _, sealed = read_times(path)
    except StoreError:
        found.changed.append(path)
        return
    found.matching += sealed
    found.unsealed += [] if sealed else [path]


def _is_unknown(path: Path, results: Path) -> bool:
    """Whether a file has no business in the run, attack or audit that it lies in."""
    for folder in path.parents:
        if (folder / CONFIG).exists():
            name = path.relative_to(folder).as_posix()
            return not any(fnmatch(name, pattern) for pattern in LAYOUT)
        if folder == results:
            break
    return False
