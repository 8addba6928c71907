"""Unpacking of archives of which nothing is believed: neither their names nor their sizes."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from hashrobust.errors import BusyError, DataError

MOST_ENTRIES = 500_000
_OF_ARCHIVES = (None, errno.EEXIST, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTDIR)
"""Errors of the system that an archive's names make, or a zip whose directory begins before its file does."""
CHUNK = 2**20

Entry = tuple[str, IO[bytes] | None]
"""A name, and the stream of a file's content; None for a folder."""


class _Bounded:
    """A stream that gives at most so many bytes and then refuses."""

    def __init__(self, stream: IO[bytes], most_bytes: int) -> None:
        self._stream = stream
        self._left = most_bytes

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            ValueError: more than the bound have come.
        """
        content = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it unpacks to more than it should hold")
        return content


def _zip_entries(file: Path, most_bytes: int) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"'{info.filename}' is a link or a device")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # Other methods take as much memory as a header says.
                raise ValueError(f"'{info.filename}' is packed by another method than deflate")
            if info.is_dir():
                yield info.filename, None
                continue
            with archive.open(info) as stream:
                yield info.filename, stream


def _tar_entries(file: Path, most_bytes: int) -> Iterator[Entry]:
    with gzip.open(file) as plain:
        # The bound is on the whole stream, as headers may promise any length too.
        bounded = _Bounded(plain, most_bytes + CHUNK)  # type: ignore[arg-type]
        with tarfile.open(fileobj=bounded, mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                if info.isdir():
                    yield info.name, None
                elif info.isreg():
                    yield info.name, archive.extractfile(info)
                else:
                    raise ValueError(f"'{info.name}' is a link or a device")
        while bounded.read(CHUNK):  # to the end, where the checksum of the whole is
            pass


def _place(folder: Path, name: str) -> Path:
    """Where an entry goes; names that could lead anywhere else are refused."""
    path = PurePosixPath(name)
    odd = "\\" in name or "\0" in name or ":" in name
    if odd or path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"'{name}' leads out of its folder")
    return folder.joinpath(*path.parts)


def _write(entries: Iterator[Entry], folder: Path, most_bytes: int) -> None:
    left = most_bytes
    for number, (name, stream) in enumerate(entries):
        if number >= MOST_ENTRIES:
            raise ValueError(f"it holds more than {MOST_ENTRIES} entries")
        place = _place(folder, name)
        if stream is None:
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            while content := stream.read(CHUNK):
                left -= len(content)
                if left < 0:
                    raise ValueError("it unpacks to more than it should hold")
                file.write(content)


@contextmanager
def _staging(folder: Path, name: str) -> Iterator[Path]:
    """An empty folder for the content of an archive, for this process alone; what a killed one left in it goes first.

    Raises:
        BusyError: another process unpacks the archive.
    """
    place = folder / f".unpacking-{name}"
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"'{name}' is being unpacked by another process: wait for it to end") from error
        except OSError:  # some network file systems cannot lock a folder
            pass
        for left in place.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(descriptor)


def unpack(file: Path, folder: Path, *, most_bytes: int) -> None:
    """Unpack a .zip or .tar.gz into `folder`; each entry at its top appears whole or not at all.

    Raises:
        DataError: the archive is damaged, unpacks to more than `most_bytes`, or holds links, devices, or names
            that lead out of the folder; or what it holds is in the folder already. Nothing is left behind.
        BusyError: another process unpacks it.
    """
    read = _zip_entries if file.suffix == ".zip" else _tar_entries
    with _staging(folder, file.name) as staging:
        try:
            _write(read(file, most_bytes), staging, most_bytes)
        except Exception as error:  # readers of damaged files raise whatever they come upon
            if isinstance(error, OSError) and error.errno not in _OF_ARCHIVES:
                raise
            raise _refused(file, error) from error
        unpacked = sorted(staging.iterdir())
        for entry in unpacked:
            if (folder / entry.name).exists():
                raise DataError(
                    f"'{folder / entry.name}' is in the way of what '{file.name}' holds, and is not complete: "
                    "take it away, or add what it lacks"
                )
        for entry in unpacked:
            entry.rename(folder / entry.name)


def _refused(file: Path, error: Exception) -> DataError:
    return DataError(f"archive '{file}' is not unpacked ({error}): fetch it again from its publisher")
