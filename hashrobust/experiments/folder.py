"""A folder with a configuration: what was computed, under which one, safe against interruption.

Every file is written to a temporary name, renamed, and sealed with its checksum, so that it counts as finished
only when its checksum stands there. No torch here: reports read folders.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashrobust.errors import StoreError
from hashrobust.experiments.checksums import CHECKSUMS, SealedFolder, add_times
from hashrobust.experiments.documents import (
    CONFIGURATION,
    Document,
    as_document,
    json_text,
    toml_text,
    understood,
)
from hashrobust.experiments.files import LOCK, locked, read_table

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
"""Version of the folder layout; a folder of another version is refused, never guessed at."""

CONFIG = "config.toml"
CLASSIFY = "classify"
"""The task of a run that trained a classifier by a rule, as `finetune` is that of a hashing model's."""
FOREIGN = "foreign"
"""The task of a run whose model was made elsewhere."""
EXPORTED = "export"
"""The `model` of such a run if it came as an export, which the run folder then holds."""


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that name a configuration, whatever the order of its keys."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class Folder(SealedFolder):
    """A sealed folder with a `config.toml`: a run, or one attack on it, or one audit."""

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], *, overwrite: bool = False) -> Folder:
        """Make the folder, or open the one that stands there under the same configuration.

        With `overwrite` it is emptied first.

        Raises:
            StoreError: it cannot be written; or see `open`.
        """
        folder = cls(path)
        if overwrite and path.is_dir():
            folder.clear()
        if CONFIG not in folder.checksums:
            with folder.writing(CONFIG) as temporary:
                temporary.write_text(_stored(config))
        return cls.open(path, config)

    @classmethod
    @contextmanager
    def held(
        cls, path: Path, config: Mapping[str, Any], *, overwrite: bool = False, wait: bool = False
    ) -> Iterator[Folder]:
        """`create` the folder and hold it for one process; `overwrite` empties it first.

        Raises:
            StoreError: another process holds it, which `wait` waits for; or see `create`.
        """
        with locked(path, wait=wait):
            yield cls.create(path, config, overwrite=overwrite)

    @classmethod
    def open(cls, path: Path, config: Mapping[str, Any] | None = None) -> Folder:
        """Open an existing folder, of a configuration if one is given.

        Raises:
            StoreError: it is missing, its configuration is missing, unreadable, changed or another one, or it is
                of another version.
        """
        if not path.is_dir():
            raise StoreError(f"run folder '{path}' does not exist: see `hashrobust list runs`")
        # `.` and `..` are no names to call a run by.
        folder = cls(path if path.name not in ("", "..") else path.resolve())
        version = folder.config.get("format")
        if version != FORMAT:
            raise StoreError(
                f"run folder '{path}' has format {version}, this version reads {FORMAT}: make the run again"
            )
        if CONFIG in folder.checksums:
            folder.file(CONFIG, made_by=folder.command)
        if config is not None:
            folder._check_holds(config)
        return folder

    def _check_holds(self, config: Mapping[str, Any]) -> None:
        # The digits at the end of a name may be the same for two configurations.
        own, wanted = self.config, tomllib.loads(_stored(config))
        other = [key for key in sorted({*own, *wanted}) if own.get(key) != wanted.get(key)]
        if other:
            raise StoreError(
                f"'{self.path}' holds another configuration under the same name ({', '.join(other)} differ): "
                "move it away, or choose another folder with --results"
            )

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def command(self) -> str:
        """The command that makes the folder: finetune, pretrain, import, attack or audit."""
        config = self.config
        task = str(config.get("task", "audit" if "budget" in config else "attack"))
        return {CLASSIFY: "finetune --task classification", FOREIGN: "import"}.get(task, task)

    @property
    def classifies(self) -> bool:
        """Whether the folder is a run whose model gives classes, by the classification protocol."""
        config = self.config
        return config.get("task") == CLASSIFY or config.get("protocol") == "classification"

    @property
    def config(self) -> Document:
        """The stored configuration, with the key `format`."""
        path = self.path / CONFIG
        with understood(path):
            try:
                text = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                raise StoreError(
                    f"'{self.path}' is no run folder, it has no {CONFIG}: name a folder made by "
                    "`hashrobust finetune` or `pretrain`"
                ) from None
            return as_document(tomllib.loads(text), path, CONFIGURATION)

    def file(self, name: str, *, made_by: str) -> Path:
        """The path of a finished file, its checksum verified.

        Raises:
            StoreError: the file was never finished (`made_by` is the command that makes it), or
                was changed since.
        """
        path = self.path / name
        if not self.has(name):
            raise StoreError(f"run '{self.path}' has no {name} yet: run `hashrobust {made_by}` first")
        if not self.matches(name):
            raise StoreError(
                f"'{path}' does not match its checksum: it was changed or damaged, make it again "
                f"with `hashrobust {made_by} --overwrite`"
            )
        return path

    def file_at_hand(self, name: str) -> Path:
        """The path of a file that may have no checksum, as older versions left it, or a process that was killed.

        Raises:
            StoreError: it has one, and does not match it.
        """
        return self.file(name, made_by=self.command) if self.has(name) else self.path / name

    def write_json(self, name: str, content: Any) -> None:
        """Write and seal a JSON file; numbers that JSON has no word for become null."""
        with self.writing(name) as temporary:
            temporary.write_text(json_text(content))

    def read_json(self, name: str, *, made_by: str) -> Document:
        """Read a finished JSON file.

        Raises:
            StoreError: see `file`; or it is no such document.
        """
        path = self.file(name, made_by=made_by)
        with understood(path):
            return as_document(json.loads(path.read_text(encoding="utf-8")), path)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write and seal a table as CSV or Parquet, by its suffix."""
        with self.writing(name) as temporary:
            if name.endswith(".csv"):
                table.to_csv(temporary, index=False)
            else:
                table.to_parquet(temporary, index=False)

    def read_table(self, name: str, *, made_by: str) -> pd.DataFrame:
        """Read a finished CSV or Parquet table.

        Raises:
            StoreError: see `file`; or it is no such table.
        """
        path = self.file(name, made_by=made_by)
        with understood(path):
            return read_table(path)

    def write_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Write and seal arrays as .npz."""
        import numpy as np

        with self.writing(name) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **dict(arrays))

    def add_timing(self, **seconds: float) -> None:
        """Add to `timing.json`, the only file that holds times."""
        add_times(self.path, seconds)

    def lock(self, *, wait: bool = False) -> AbstractContextManager[None]:
        """Hold the folder for one process; see `files.locked`."""
        return locked(self.path, wait=wait)

    def attacks(self) -> list[Folder]:
        """The attacks stored in this run, finished or not, by name."""
        return opened_in(self.path / "attacks")

    def audits(self) -> list[Folder]:
        """The audits stored in this run, finished or not, by name."""
        return opened_in(self.path / "audits")

    def clear(self) -> None:
        """Remove all that the folder holds, but for the lock that a process may hold."""
        # The lists first, inner ones before their run's: of the rest nothing counts as finished any more.
        for checksums in sorted(self.path.rglob(CHECKSUMS), key=lambda path: -len(path.parts)):
            checksums.unlink()
        for path in self.path.iterdir():
            if path.name == LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def opened_in(root: Path) -> list[Folder]:
    """The folders with a configuration right below `root`, by name; none if it does not exist."""
    present = sorted(root.iterdir()) if root.is_dir() else []
    return [Folder.open(path) for path in present if (path / CONFIG).exists()]


def _stored(config: Mapping[str, Any]) -> str:
    return toml_text({"format": FORMAT, **config})
