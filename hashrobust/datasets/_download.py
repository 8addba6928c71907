"""Downloads that go on where they were cut off, and appear under their name only if their checksum is right."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hashrobust.datasets._archives import unpack
from hashrobust.errors import BusyError, HashRobustError
from hashrobust.progress import Progress, Silent

CHUNK = 2**20
TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 5
"""A cut connection is taken up again so often, as long as each attempt brings something."""

_CUT = (OSError, http.client.HTTPException)  # URLError and timeouts are kinds of OSError


@dataclass(frozen=True)
class Remote:
    """A file as its publisher offers it.

    `addresses` are tried in turn; `most_bytes` bounds it, and `unpacked_bytes` what an archive holds (None: it is
    no archive). It goes `into` a folder below the data folder, and need not be fetched where all that it `makes`
    is there, given as paths below the data folder.
    """

    addresses: tuple[str, ...]
    md5: str
    most_bytes: int
    makes: tuple[str, ...]
    unpacked_bytes: int | None = None
    into: str = "."

    @property
    def name(self) -> str:
        """The file's name."""
        return self.addresses[0].rsplit("/", 1)[1]


class _ChecksumError(Exception):
    """The whole file has come, and it is another."""


def download_missing(
    name: str, remotes: Sequence[Remote], folder: Path, progress: Progress | None = None
) -> None:
    """Fetch what of a data set is not in `folder` yet, and unpack archives, which are then removed.

    Raises:
        HashRobustError: no connection, no room, a wrong checksum. What has come is kept: the same call goes on.
        DataError: an archive that cannot be trusted, or its content's place is taken.
        BusyError: another process fetches the same file.
    """
    progress = progress or Silent()
    for remote in remotes:
        place = folder / remote.into
        if all((folder / made).exists() for made in remote.makes):
            continue
        try:
            file = fetch(remote, place, progress)
        except _ChecksumError as error:
            raise HashRobustError(f"{name} could not be downloaded ({error}): {_BY_HAND}") from error
        except _CUT as error:
            raise HashRobustError(
                f"{name} could not be downloaded ({_words(error)}): check the network and the room on the disk; the "
                f"same command goes on from there. Or {_BY_HAND}"
            ) from error
        if remote.unpacked_bytes is not None:
            progress.say(f"unpacking {file.name}")
            unpack(file, place, most_bytes=remote.unpacked_bytes)
            file.unlink()


_BY_HAND = "put its files into the data folder yourself"


def _words(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def fetch(remote: Remote, folder: Path, progress: Progress) -> Path:
    """The file, in `folder`, with the right checksum; what came before is not fetched again."""
    target = folder / remote.name
    if target.is_file() and _md5(target) == remote.md5:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{remote.name}.part"
    with _held(part) as file:
        began_before = part.stat().st_size > 0
        try:
            _fetch_all(remote, file, part, progress)
            if began_before and _md5(part) != remote.md5:
                # The old beginning may belong to another version of the file.
                file.truncate(0)
                _fetch_all(remote, file, part, progress)
            if _md5(part) != remote.md5:
                raise _ChecksumError(f"'{remote.name}' came with another checksum than its publisher's")
        except _ChecksumError:
            part.unlink()
            raise
        part.replace(target)
    return target


@contextmanager
def _held(part: Path) -> Iterator[IO[bytes]]:
    """The file of what has come so far, for this process alone."""
    with part.open("ab", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"'{part}' is being fetched by another process: wait for it to end") from error
        except OSError:  # some network file systems cannot lock
            pass
        yield file


def _fetch_all(remote: Remote, file: IO[bytes], part: Path, progress: Progress) -> None:
    """Append to `file` until it is whole, over cut connections and, if an address fails, from the next one."""
    failures: list[Exception] = []
    for address in remote.addresses:
        for _ in range(ATTEMPTS):
            before = part.stat().st_size
            try:
                _fetch_rest(address, remote, file, part, progress)
                return
            except _CUT as error:
                failures.append(error)
            if part.stat().st_size <= before:
                break
    raise failures[0]


def _fetch_rest(address: str, remote: Remote, file: IO[bytes], part: Path, progress: Progress) -> None:
    """One connection: append what `file` lacks.

    Raises:
        OSError, HTTPException: it cannot be made, or is cut.
        _ChecksumError: the server sends more than the file has.
    """
    have = part.stat().st_size
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is lacking; the checksum tells
        raise
    except ValueError as error:  # sent on to an address that is none
        raise ConnectionError(str(error)) from error
    with response:
        begins = f"bytes {have}-"
        if have and not (
            response.status == 206 and response.headers.get("Content-Range", "").startswith(begins)
        ):
            file.truncate(0)
            have = 0
        promised = response.headers.get("Content-Length", "")
        total = have + int(promised) if promised.isascii() and promised.isdigit() else None
        said = 0
        with progress.track(
            f"fetching {remote.name}", (total or 0) // CHUNK, "MiB", have // CHUNK
        ) as advance:
            while content := response.read(CHUNK):
                have += len(content)
                if have > remote.most_bytes:
                    raise _ChecksumError(f"'{remote.name}' is longer than it can be")
                file.write(content)
                said += len(content)
                advance(said // CHUNK, "")
                said %= CHUNK
        if total is not None and have < total:
            raise ConnectionError(f"the connection was cut after {have} of {total} bytes")


def _md5(file: Path) -> str:
    """Publishers give MD5: it tells damage from chance, which is what it serves for here."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
