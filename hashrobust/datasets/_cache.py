"""What is remembered of image files between runs: that they are sound, and what they look like decoded.

Both are only ever a saving of time: what cannot be read or written is made anew or done without.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from hashrobust.datasets._info import written_out
from hashrobust.datasets._memory import DIGEST_BYTES

CACHE_VARIABLE = "HASHROBUST_CACHE"
WORTH_IT = 500
"""Fewer files than this are read again quickly enough."""
MOST_DECODED_BYTES = 2**30
"""Larger sets stay on the disk as they are: 7,100 images of 224 pixels fit in."""
DECODER = f"1 pillow {PIL.__version__} torchvision {version('torchvision')}"
"""Another decoder may give other pixels, so its version is part of the key."""

_CHECKSUM_BYTES = 32
_BLOCK = 1 << 22

Pixels = NDArray[np.uint8]


def cache_folder() -> Path:
    """The environment's HASHROBUST_CACHE, else the user's cache folder; for a user without a home none can be made."""
    if own := os.environ.get(CACHE_VARIABLE):
        return written_out(own)
    try:
        users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        users = os.devnull
    return Path(users) / "hashrobust"


def _read(file: Path) -> NDArray[Any] | None:
    """What was stored; None if there is nothing, or not what was written: a flipped bit would go into results."""
    try:
        with file.open("rb") as content:
            size = content.seek(-_CHECKSUM_BYTES, os.SEEK_END)
            checksum = content.read()
        if _checksum(file, size) != checksum:
            return None
        stored = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception:  # none yet; readers of damaged files raise whatever they come upon
        return None
    return stored if isinstance(stored, np.ndarray) else None


def _checksum(file: Path, size: int) -> bytes:
    """SHA-256 of the first `size` bytes: half a second a gigabyte."""
    found = hashlib.sha256()
    with file.open("rb") as content:
        while size > 0 and (block := content.read(min(size, _BLOCK))):
            found.update(block)
            size -= len(block)
    return found.digest()


def _write(file: Path, content: NDArray[Any]) -> None:
    temporary = file.parent / f".tmp-{secrets.token_hex(4)}.{file.name}"
    with suppress(OSError):  # read-only, full
        file.parent.mkdir(parents=True, exist_ok=True)
        # What killed processes left. One that lives loses its own, and does without: this one writes the same.
        for left in file.parent.glob(f".tmp-*.{file.name}"):
            left.unlink(missing_ok=True)
        try:
            np.save(temporary, content, allow_pickle=False)
            checksum = _checksum(temporary, temporary.stat().st_size)
            with temporary.open("ab") as end:
                end.write(checksum)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


class KnownFiles:
    """Hashes of files that were found sound; a file counts as known as long as its size and times are the same."""

    _FIELDS = np.dtype([("state", "<i8", 3), ("digest", "u1", DIGEST_BYTES)])

    def __init__(self, paths: Sequence[Path]) -> None:
        self._states = [_state(path) for path in paths]
        names = "\n".join(os.path.abspath(path) for path in paths)  # noqa: PTH100 - resolves no link
        key = hashlib.sha256(names.encode(errors="surrogatepass")).hexdigest()
        self._file = cache_folder() / "inspected" / f"{key[:32]}.npy"
        stored = _read(self._file) if len(paths) >= WORTH_IT else None
        fits = stored is not None and stored.dtype == self._FIELDS and stored.shape == (len(paths),)
        self._stored = np.array(stored) if fits else None

    def digests(self) -> list[bytes | None]:
        """The hash of each file that is known, else None."""
        if self._stored is None:
            return [None] * len(self._states)
        states = self._stored["state"].tolist()
        return [
            digest.tobytes() if list(state) == then and state[0] >= 0 else None
            for state, then, digest in zip(self._states, states, self._stored["digest"], strict=True)
        ]

    def remember(self, digests: Sequence[bytes | str]) -> None:
        """Store the hashes; a str stands for a file that is not sound and is looked at again next time."""
        if len(digests) < WORTH_IT:
            return
        table = np.zeros(len(digests), dtype=self._FIELDS)
        sound = [isinstance(digest, bytes) for digest in digests]
        table["state"] = [
            state if good else (-1, 0, 0) for state, good in zip(self._states, sound, strict=True)
        ]
        content = b"".join(d if isinstance(d, bytes) else bytes(DIGEST_BYTES) for d in digests)
        table["digest"] = np.frombuffer(content, dtype=np.uint8).reshape(-1, DIGEST_BYTES)
        _write(self._file, table)


def _state(path: Path) -> tuple[int, int, int]:
    """Size and times of a file; a size of -1 where there is none."""
    try:
        facts = path.stat()
    except (OSError, ValueError):  # none, or a name that no file can have
        return (-1, 0, 0)
    return (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


class DecodedImages:
    """Images (N, H, W, 3) that are decoded once, kept in memory, and on the disk when all are there.

    The key is their content, so that changed files have another.
    """

    def __init__(self, digests: Sequence[bytes], size: int) -> None:
        self._shape = (len(digests), size, size, 3)
        self._known = np.zeros(len(digests), dtype=bool)
        self._pixels: Pixels | None = None
        self._lock = Lock()
        key = hashlib.sha256(f"{DECODER} {self._shape}".encode() + b"".join(digests)).hexdigest()
        self._file = cache_folder() / "decoded" / f"{key[:32]}.npy"
        self._stores = len(digests) >= WORTH_IT
        stored = _read(self._file) if self._stores and self.worth_it(len(digests), size) else None
        if stored is not None and stored.shape == self._shape and stored.dtype == np.uint8:
            self._pixels = stored
            self._known[:] = True

    @staticmethod
    def worth_it(count: int, size: int) -> bool:
        """Whether so many images of this size are kept at all."""
        return count * size * size * 3 <= MOST_DECODED_BYTES

    def missing(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those that must be decoded, each once."""
        return np.unique(ids[~self._known[ids]])

    def add(self, ids: NDArray[np.int64], pixels: Sequence[Pixels]) -> None:
        """Keep decoded images; all of them are stored as soon as the last one has come."""
        if len(ids) == 0:
            return
        with self._lock:
            if self._pixels is None:
                self._pixels = np.empty(self._shape, dtype=np.uint8)  # takes room only as it is filled
            self._pixels[ids] = pixels
            self._known[ids] = True
            whole = bool(self._known.all())
        if self._stores and whole:
            _write(self._file, self._pixels)

    def get(self, ids: NDArray[np.int64]) -> Pixels:
        """Images that are here."""
        assert self._pixels is not None
        return np.asarray(self._pixels[ids])
