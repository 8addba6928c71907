"""Single files that are whole or not there, and folders held by one process at a time. No torch here."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashrobust.errors import BusyError, StoreError, UnwritableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOCK = ".lock"
_TEMPORARY = ".tmp-"
_STALE = ".*tmp*"
"""Our own temporary names, and those that safetensors and the index make beside them."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when not.

    Raises:
        UnwritableError: the place cannot be written (read-only, full, no such folder).
    """
    # The name is chosen before the file is made, so that no interruption can leave it behind unknown.
    temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(4)}.{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        temporary.touch(mode=0o600, exist_ok=False)
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _unwritable(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


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
        except OSError as error:
            raise BusyError(
                f"run folder '{folder}' is in use by another process: wait for it to end"
            ) from error
        for stale in folder.rglob(_STALE):
            if stale.is_file():
                stale.unlink(missing_ok=True)
        yield


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file; nothing is unpickled."""
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _unwritable(path: Path, error: OSError) -> StoreError:
    kind = (
        UnwritableError if error.errno in _NO_ROOM else StoreError
    )  # else the name is wrong: below a file, too long
    return kind(
        f"'{path}' cannot be written ({error.strerror}): make room or choose another folder with --results"
    )
