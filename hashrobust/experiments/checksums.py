"""Checksums: every file stands with its SHA-256 in the `checksums.json` of its folder, and that list with its own.

What differs between equal runs, `timing.json`, carries its checksum inside, so that the lists are equal too. No
torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hashrobust.errors import StoreError
from hashrobust.experiments.documents import check_names, check_numbers, check_shape, understood
from hashrobust.experiments.files import alone, file_digest, writing

CHECKSUMS = "checksums.json"
TIMING = "timing.json"
_OWN = "sha256"
_FILES, _TIMES = "files", "times"


class SealedFolder:
    """A folder whose finished files are listed in `checksums.json`; what is not listed is not finished.

    A file is listed after it is there, and taken off the list before it changes: whenever the process dies, no
    whole file contradicts the list.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checksums(self) -> dict[str, str]:
        """Finished files and their SHA-256.

        Raises:
            StoreError: the list is damaged.
        """
        path = self.path / CHECKSUMS
        if not path.exists():
            return {}
        sums, _ = read_self_sealed(path, _FILES, str)
        with understood(path):
            check_names(sums)
        return sums

    def seal(self, *names: str) -> None:
        """Record that these files are finished."""
        digests = {name: file_digest(self.path / name) for name in names}
        self._change(lambda sums: sums | digests)

    def unseal(self, *names: str) -> None:
        """Take files off the list, since they are to change or to go."""
        if any(name in names for name in self.checksums):
            self._change(lambda sums: {name: sums[name] for name in sums if name not in names})

    def has(self, *names: str) -> bool:
        """Whether all these files are finished and still there (their content is not read)."""
        sums = self.checksums
        return all(name in sums and (self.path / name).is_file() for name in names)

    def damaged(self) -> list[str]:
        """Names of finished files that are missing or no longer match their checksum."""
        return [name for name in self.checksums if not self.matches(name)]

    def matches(self, name: str) -> bool:
        """Whether a finished file is there and as it was when it was finished."""
        path = self.path / name
        return path.is_file() and file_digest(path) == self.checksums.get(name)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Write one file of the folder atomically, through the temporary path that is yielded, and seal it.

        Raises:
            UnwritableError: see `files.writing`.
        """
        with writing(self.path / name) as temporary:
            yield temporary
            self.unseal(name)
        self.seal(name)

    def _change(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        with alone(self.path):
            sums = change(self.checksums)
            with writing(self.path / CHECKSUMS) as temporary:
                temporary.write_text(self_sealed(_FILES, sums), encoding="utf-8")


def self_sealed(key: str, content: Mapping[str, Any]) -> str:
    """Names and values under `key` as JSON that holds its own checksum."""
    ordered = dict(sorted(content.items()))
    digest = hashlib.sha256(json.dumps(ordered).encode()).hexdigest()
    return json.dumps({key: ordered, _OWN: digest}, indent=1) + "\n"


def read_self_sealed(path: Path, key: str, *kinds: type) -> tuple[dict[str, Any], bool]:
    """What `self_sealed` wrote, and True; or the bare values of these types that older versions wrote, and False.

    Raises:
        StoreError: it was changed or damaged.
    """
    try:
        text = path.read_bytes().decode()
        stored = json.loads(text)
        if not isinstance(stored, dict):
            raise ValueError("it holds no table of names and values")
        sealed = stored.keys() == {key, _OWN}
        if sealed and text != self_sealed(key, stored[key]):
            raise ValueError("it does not match its own checksum")
        content = stored[key] if sealed else stored
        check_numbers(content)
        check_shape(content, {".*": kinds})
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise StoreError(f"'{path}' is damaged ({error}): make its folder again") from error
    return content, sealed


def add_times(folder: Path, times: Mapping[str, float]) -> None:
    """Add to a folder's `timing.json`, the only file that holds times; one that is damaged begins anew."""
    old: dict[str, float] = {}
    with suppress(StoreError):
        old = read_times(folder / TIMING)[0] if (folder / TIMING).exists() else {}
    with writing(folder / TIMING) as temporary:
        temporary.write_text(self_sealed(_TIMES, old | dict(times)), encoding="utf-8")


def read_times(path: Path) -> tuple[dict[str, float], bool]:
    """The seconds that a `timing.json` holds, and whether it carries a checksum.

    Raises:
        StoreError: it is damaged.
    """
    return read_self_sealed(path, _TIMES, int, float)
