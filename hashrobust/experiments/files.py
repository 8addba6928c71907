"""Files and folders that are whole or not there, and folders held by one process at a time. No torch here."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hashrobust.errors import NO_ROOM, BusyError, StoreError, UnwritableError
from hashrobust.experiments.documents import TABLES, check_table, understood

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow
    from numpy.typing import NDArray

LOCK = ".lock"
MOST_BYTES = 1 << 34
"""Of the arrays in one file: codes and labels of a hundred million images take less."""
MOST_CELLS = 1 << 27
"""Of one table, whose columns may be packed into a few bytes."""
MOST_LETTERS = 1 << 28
"""Of the texts in one column of it."""
_TEMPORARY = ".tmp-"
_STALE = ".*tmp*"
"""Our own temporary names, and those that safetensors and the index make beside them."""
_OURS = f"{_TEMPORARY}{8 * '[0-9a-f]'}.*"
"""Our own alone: where the user has files too."""
_STAGING = f"{_TEMPORARY}folder-"

_UNWRITABLE = (*NO_ROOM, errno.EACCES, errno.EPERM)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when not.

    What was written is on the disk before it has its name, so that no loss of power leaves half of it.

    Raises:
        UnwritableError: the place cannot be written (read-only, full, no such folder).
    """
    # The name is chosen before the file is made, so that no interruption can leave it behind unknown.
    temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(4)}.{path.name}"
    _make_parents(path)
    try:
        with _told_of(path, temporary), _made(temporary):
            yield temporary
            temporary.chmod(0o644)
            _to_disk(temporary)
            temporary.replace(path)
    finally:
        with suppress(OSError):  # read-only by now: what went wrong before is what is told
            temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _make_parents(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _made(temporary: Path) -> IO[bytes]:
    """An empty file, held as long as it is open: see `_remove_if_abandoned`."""
    while True:
        temporary.touch(mode=0o600)
        with suppress(FileNotFoundError):  # cleared before it was held
            file = temporary.open("rb+")
            with suppress(OSError):  # some network file systems cannot
                fcntl.flock(file, fcntl.LOCK_EX)
            if temporary.exists():
                return file
            file.close()


def clear_abandoned(folder: Path) -> None:
    """Remove files that killed processes left half-written in a folder that is not `locked` as runs are."""
    for left in folder.glob(_OURS):
        _remove_if_abandoned(left)


@contextmanager
def staging(path: Path, *, replacing: bool = False) -> Iterator[Path]:
    """A new folder to be filled, in a hidden one beside `path`, and renamed to it when the block ends well.

    Hidden ones that killed processes left there go first. What stands at `path` is in the way, unless `replacing`.

    Raises:
        UnwritableError: the place cannot be written.
    """
    hidden = path.parent / f"{_STAGING}{secrets.token_hex(4)}"
    _make_parents(path)
    try:
        with _told_of(path, hidden / path.name), ExitStack() as stack:
            with alone(path.parent), _told_of(path, hidden):
                for left in path.parent.glob(f"{_STAGING}*"):
                    _remove_if_abandoned(left)
                (hidden / path.name).mkdir(parents=True)
                stack.enter_context(alone(hidden))
            yield hidden / path.name
            for file in (hidden / path.name).rglob("*"):
                if file.is_file():
                    _to_disk(file)
            if replacing and path.exists():
                path.rename(hidden / "old")
            (hidden / path.name).rename(path)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _remove_if_abandoned(left: Path) -> None:
    """Remove a file or folder, unless a living process holds it as `writing` and `staging` do."""
    with suppress(OSError):
        folder = left.is_dir()
        descriptor = os.open(left, os.O_RDONLY if folder else os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
            if folder:
                shutil.rmtree(left)
            else:
                left.unlink()
        finally:
            os.close(descriptor)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder against others that hold it so, which wait; it leaves no trace there, as `locked` does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot lock a folder
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _told_of(path: Path, temporary: Path) -> Iterator[None]:
    """Whatever cannot be written at `temporary` within the block is told of `path`, which the user knows.

    Raises:
        UnwritableError: something cannot.
    """
    try:
        yield
    except UnwritableError as error:  # of a library, or of a file in a folder
        raise UnwritableError(str(error).replace(str(temporary), str(path))) from error
    except OSError as error:
        named = [str(name) for name in (error.filename, error.filename2) if name is not None]  # two of a copy
        ours = not named or any(name.startswith(str(temporary)) for name in named)
        if ours and error.errno in _UNWRITABLE:
            raise _unwritable(path, error) from error
        raise


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder (made if need be) for one process; what a killed one left half-written is removed.

    With `wait`, wait until another process that holds it lets go.

    Raises:
        BusyError: another process holds it.
        UnwritableError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise BusyError(
                f"run folder '{folder}' is in use by another process: wait for it to end"
            ) from error
        except OSError as error:
            raise UnwritableError(
                f"'{folder}' lies on a file system that cannot lock files ({error.strerror}), so that two processes "
                "might write there at once: choose another place with --results, or mount it with locks"
            ) from error
        for stale in folder.rglob(_STALE):
            if stale.is_file():  # reports write into runs that they do not hold
                _remove_if_abandoned(stale)
        yield


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file; nothing is unpickled.

    Raises:
        StoreError: it is none, or unpacks to more than `MOST_BYTES`.
    """
    import numpy as np

    with understood(path), zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
            raise ValueError("it unpacks to more than any run needs")
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or Parquet table, by its suffix.

    Raises:
        ValueError: it is no such table as its name says, or has more than `MOST_CELLS` cells.
    """
    import pandas as pd
    import pyarrow.parquet as parquet

    if path.suffix == ".csv":
        table = pd.read_csv(path)
    else:
        about = parquet.read_metadata(path)
        if about.num_rows * about.num_columns > MOST_CELLS:
            raise ValueError("it unpacks to more than any run needs")
        # Without pandas' own notes in the file, which name types and an index at will.
        table = _read_parquet(path).replace_schema_metadata().to_pandas()
    check_table(table, path.name)
    return table


def _read_parquet(path: Path) -> pyarrow.Table:
    """A table of numbers and of the texts that its name allows. A text may stand in the file once and in every row, so
    that kilobytes become more than any memory: texts come as they are stored, and are counted before they are spread.
    """
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet
    from pyarrow import types

    _, words = TABLES.get(path.name, (set(), set()))
    for column in parquet.read_schema(path):
        is_number = types.is_integer(column.type) or types.is_floating(column.type)
        if column.name not in words and not is_number and not types.is_boolean(column.type):
            raise ValueError(f"its column {column.name} holds no numbers")
    table = parquet.read_table(path, read_dictionary=sorted(words))
    for place, column in enumerate(table.schema):
        if column.name not in words:
            continue
        if not types.is_dictionary(column.type) or not types.is_string(column.type.value_type):
            raise ValueError(f"its column {column.name} holds no text")
        chunks = table.column(place).chunks
        sizes = (compute.sum(compute.binary_length(c.dictionary).take(c.indices)).as_py() for c in chunks)
        if sum(size or 0 for size in sizes) > MOST_LETTERS:
            raise ValueError(f"its column {column.name} unpacks to more than any run needs")
        table = table.set_column(place, column.name, table.column(place).cast(column.type.value_type))
    return table


def _unwritable(path: Path, error: OSError) -> StoreError:
    # Else the name is wrong: below a file, too long.
    kind = UnwritableError if error.errno in _UNWRITABLE else StoreError
    return kind(
        f"'{path}' cannot be written ({error.strerror}): make room or choose another folder with --results, --output "
        "or --to"
    )
