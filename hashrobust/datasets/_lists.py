"""HashNet's list files: a line names an image and gives a 0 or 1 for every class.

Format: Cao et al., "HashNet", arXiv 1702.00758, and its code (thuml/HashNet).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hashrobust.errors import DataError

BITS = {"0", "1"}


def read_lines(file: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        DataError: it cannot be read, or is not UTF-8 text.
    """
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{file}' cannot be read ({error}): it must be a text file") from error


@dataclass
class ListedImages:
    """The distinct images of all lists: `files` below the root, `labels` of each, ids by file."""

    root: Path
    files: list[str] = field(default_factory=list)
    labels: list[tuple[int, ...]] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)  # lines that name an image of their own list again
    _ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._resolved_root = self.root.resolve()

    def add_list(self, file: Path) -> list[int]:
        """Read one list and return the ids of its images, in its order, each once.

        Raises:
            DataError: the list is missing, empty, not text, or has a malformed line.
        """
        ids: dict[int, None] = {}
        for number, line in enumerate(read_lines(file), start=1):
            if line.strip():
                image = self._add_line(line.strip(), f"{file}:{number}")
                if image in ids:
                    self.repeated.append(f"{file.name}:{number}: {self.files[image]} is listed again")
                ids[image] = None
        if not ids:
            raise DataError(f"list '{file}' names no image: a line is a path, then a 0 or 1 for each class")
        return list(ids)

    def _add_line(self, line: str, place: str) -> int:
        path, labels = self._parse(line, place)
        file = self._inside_root(path, place)
        image = self._ids.setdefault(file, len(self.files))
        if image == len(self.files):
            self.files.append(file)
            self.labels.append(labels)
        elif self.labels[image] != labels:
            raise DataError(f"{place}: '{path}' has other labels than on an earlier line: make them agree")
        return image

    def _parse(self, line: str, place: str) -> tuple[str, tuple[int, ...]]:
        tokens = line.split()
        count = 0
        while count < len(tokens) and tokens[-1 - count] in BITS:
            count += 1
        if count == 0 or count == len(tokens):
            raise DataError(f"{place}: '{line[:80]}' is no path followed by a 0 or 1 for each class")
        if self.labels and count != len(self.labels[0]):
            raise DataError(
                f"{place}: {count} labels of 0 or 1 at the end of the line, and {len(self.labels[0])} on the "
                "first line of the lists: give every line one for each class"
            )
        path = line.rsplit(None, count)[0]
        return path, tuple(int(token) for token in tokens[-count:])

    def _inside_root(self, path: str, place: str) -> str:
        try:
            file = (self._resolved_root / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null byte
            raise DataError(f"{place}: '{path}' is no usable path ({error})") from error
        if self._resolved_root not in file.parents:
            raise DataError(
                f"{place}: '{path}' leaves the folder '{self.root}': give paths below it, or name the folder "
                "of the images with root="
            )
        return file.relative_to(self._resolved_root).as_posix()
