"""Run folders: what was computed, under which configuration, safe against interruption.

Every file is written to a temporary name and renamed; `checksums.json` is written last, so that a
file counts as finished only when its checksum stands there. No torch here: reports read folders.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from hashrobust.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

FORMAT = 1
"""Version of the folder layout; a folder of another version is refused, never guessed at."""

CONFIG = "config.toml"
CHECKSUMS = "checksums.json"
TIMING = "timing.json"
_LOCK = ".lock"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that name a configuration, whatever the order of its keys."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when not.

    Raises:
        StoreError: the place cannot be written (read-only, full, no such folder).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix="." + path.name)
        os.close(handle)
    except OSError as error:
        raise _unwritable(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise _unwritable(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"'{path}' cannot be written ({error.strerror}): make room or choose another folder with --results"
    )


class Folder:
    """A folder with a `config.toml` and checksummed files: a run, or one attack on it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> Folder:
        """Make the folder, or open the one that stands there under the same configuration."""
        folder = cls(path)
        if not (path / CONFIG).exists():
            with writing(path / CONFIG) as temporary:
                temporary.write_text(tomli_w.dumps({"format": FORMAT, **_without_none(config)}))
            folder.seal(CONFIG)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Open an existing folder.

        Raises:
            StoreError: it is missing, has no readable configuration, or is of another version.
        """
        if not path.is_dir():
            raise StoreError(f"run folder '{path}' does not exist: see `hashrobust list runs`")
        folder = cls(path)
        version = folder.config.get("format")
        if version != FORMAT:
            raise StoreError(
                f"run folder '{path}' has format {version}, this version reads {FORMAT}: make the run again"
            )
        return folder

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def config(self) -> dict[str, Any]:
        """The stored configuration, with the key `format`."""
        path = self.path / CONFIG
        try:
            return tomllib.loads(path.read_text())
        except FileNotFoundError:
            raise StoreError(
                f"'{self.path}' is no run folder, it has no {CONFIG}: name a folder made by "
                "`hashrobust finetune` or `pretrain`"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"'{path}' is damaged ({error}): make the run again") from error

    @property
    def checksums(self) -> dict[str, str]:
        """Finished files and their SHA-256."""
        path = self.path / CHECKSUMS
        if not path.exists():
            return {}
        try:
            sums = json.loads(path.read_text())
            return {str(name): str(digest) for name, digest in sums.items()}
        except (ValueError, AttributeError) as error:
            raise StoreError(f"'{path}' is damaged ({error}): make the run again") from error

    def seal(self, *names: str) -> None:
        """Record that these files are finished."""
        sums = self.checksums | {name: file_digest(self.path / name) for name in names}
        with writing(self.path / CHECKSUMS) as temporary:
            temporary.write_text(json.dumps(dict(sorted(sums.items())), indent=1) + "\n")

    def unseal(self, *names: str) -> None:
        """Record that these files are no longer to be relied on."""
        sums = {name: digest for name, digest in self.checksums.items() if name not in names}
        with writing(self.path / CHECKSUMS) as temporary:
            temporary.write_text(json.dumps(sums, indent=1) + "\n")

    def has(self, *names: str) -> bool:
        """Whether all these files are finished and still there (their content is not read)."""
        sums = self.checksums
        return all(name in sums and (self.path / name).is_file() for name in names)

    def file(self, name: str, *, made_by: str) -> Path:
        """The path of a finished file, its checksum verified.

        Raises:
            StoreError: the file was never finished (`made_by` is the command that makes it), or
                was changed since.
        """
        digest = self.checksums.get(name)
        path = self.path / name
        if digest is None or not path.is_file():
            raise StoreError(f"run '{self.path}' has no {name} yet: run `hashrobust {made_by}` first")
        if file_digest(path) != digest:
            raise StoreError(
                f"'{path}' does not match its checksum: it was changed or damaged, make it again "
                f"with `hashrobust {made_by} --overwrite`"
            )
        return path

    def damaged(self) -> list[str]:
        """Names of finished files that are missing or no longer match their checksum."""
        return [
            name
            for name, digest in self.checksums.items()
            if not (self.path / name).is_file() or file_digest(self.path / name) != digest
        ]

    def writing(self, name: str) -> Any:
        """Write one file of the folder atomically: a context that yields a temporary path."""
        return writing(self.path / name)

    def write_json(self, name: str, content: Any) -> None:
        """Write and seal a JSON file."""
        with self.writing(name) as temporary:
            temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        self.seal(name)

    def read_json(self, name: str, *, made_by: str) -> Any:
        """Read a finished JSON file."""
        return json.loads(self.file(name, made_by=made_by).read_text())

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write and seal a table as CSV or Parquet, by its suffix."""
        with self.writing(name) as temporary:
            if name.endswith(".csv"):
                table.to_csv(temporary, index=False)
            else:
                table.to_parquet(temporary, index=False)
        self.seal(name)

    def read_table(self, name: str, *, made_by: str) -> pd.DataFrame:
        """Read a finished CSV or Parquet table."""
        import pandas as pd

        path = self.file(name, made_by=made_by)
        return pd.read_csv(path) if name.endswith(".csv") else pd.read_parquet(path)

    def write_arrays(self, name: str, arrays: Mapping[str, Any], *, seal: bool = True) -> None:
        """Write arrays as .npz, and seal the file unless it is temporary."""
        import numpy as np

        with self.writing(name) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **dict(arrays))
        if seal:
            self.seal(name)

    def add_timing(self, **entries: Any) -> None:
        """Add to `timing.json`, the only file that holds times and dates (not sealed)."""
        path = self.path / TIMING
        old = json.loads(path.read_text()) if path.exists() else {}
        with writing(path) as temporary:
            temporary.write_text(json.dumps(old | entries, indent=1, sort_keys=True) + "\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one process.

        Raises:
            StoreError: another process holds it.
        """
        try:
            file = (self.path / _LOCK).open("w")
        except OSError as error:
            raise _unwritable(self.path, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreError(
                    f"run folder '{self.path}' is in use by another process: wait for it to end"
                ) from error
            yield

    def attacks(self) -> list[Folder]:
        """The attacks stored in this run, finished or not, by name."""
        root = self.path / "attacks"
        if not root.is_dir():
            return []
        return [Folder.open(path) for path in sorted(root.iterdir()) if (path / CONFIG).exists()]

    def clear(self) -> None:
        """Remove the folder and all it holds."""
        shutil.rmtree(self.path)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file; nothing is unpickled."""
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _without_none(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if value is not None}


def list_runs(results: Path) -> list[Folder]:
    """The run folders right below `results` (or `results` itself, if it is one), by name.

    Raises:
        StoreError: `results` does not exist, or a run in it is of another version.
    """
    if not results.is_dir():
        raise StoreError(f"results folder '{results}' does not exist: make a run with `hashrobust finetune`")
    if (results / CONFIG).exists():
        return [Folder.open(results)]
    return [Folder.open(path) for path in sorted(results.iterdir()) if (path / CONFIG).exists()]


def find_run(name: str, results: Path) -> Folder:
    """The run called `name`: a path, a folder name in `results`, or the unique beginning of one.

    Raises:
        StoreError: none or several fit.
    """
    for path in (Path(name), results / name):
        if (path / CONFIG).exists():
            return Folder.open(path)
    if Path(name).is_dir():
        return Folder.open(Path(name))
    fitting = sorted(path for path in results.glob(f"{_escape(name)}*") if (path / CONFIG).exists())
    if len(fitting) == 1:
        return Folder.open(fitting[0])
    if not fitting:
        raise StoreError(f"no run '{name}' in '{results}': see `hashrobust list runs --results {results}`")
    names = ", ".join(path.name for path in fitting[:5])
    raise StoreError(f"'{name}' fits {len(fitting)} runs ({names}): give more of the name")


def _escape(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
