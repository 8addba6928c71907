"""HashNet's list files: a line names an image and gives a 0 or 1 for every class.

Format: Cao et al., "HashNet", arXiv 1702.00758, and its code (thuml/HashNet).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hashrobust.datasets._base import ClassificationDataset, IntArray
from hashrobust.datasets._files import ImageFiles
from hashrobust.datasets._protocol import classification, draw_order, unique_content
from hashrobust.errors import DataError

BITS = {"0", "1"}
LISTS = {"train": "train.txt", "query": "test.txt", "database": "database.txt"}
VALIDATION_LIST = "validation.txt"
CLASS_NAMES = "classes.txt"
HELD_OUT = 1000
SMALL_POOL = 10 * HELD_OUT  # below this a tenth is held out


def read_lines(file: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        DataError: it cannot be read, or is not UTF-8 text.
    """
    try:
        # Not splitlines, which breaks names at other characters too, such as U+2028.
        return file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{file}' cannot be read ({error}): it must be a text file") from error


@dataclass
class ListedImages:
    """The distinct images of all lists: `files` below the root, `labels` of each, ids by file.

    `locate` tells where below the root an image lies of which a list gives another path; None: where the list says.
    """

    root: Path
    locate: Callable[[str], str] | None = None
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
        file = self._inside_root(path, place) if self.locate is None else self.locate(path)
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
                f"{place}: '{path}' leaves the folder '{self.root}': put the lists into the folder that all paths "
                "start from (in Python, give it as root=)"
            )
        return file.relative_to(self._resolved_root).as_posix()


def read_members(listed: ListedImages, folder: Path) -> dict[str, IntArray]:
    """The ids of the images on each list of a folder; validation only where it has a list.

    Raises:
        DataError: see `ListedImages.add_list`.
    """
    lists = {**LISTS, **({"validation": VALIDATION_LIST} if (folder / VALIDATION_LIST).is_file() else {})}
    return {split: np.array(listed.add_list(folder / file), dtype=np.int64) for split, file in lists.items()}


def halve_query(members: dict[str, IntArray]) -> None:
    """Give the 2nd, 4th ... queries to validation, as is done for ImageNet100."""
    members["query"], members["validation"] = members["query"][::2], members["query"][1::2]


def hold_out(name: str, members: dict[str, IntArray], digests: list[bytes], count: int | None = None) -> None:
    """Move `count` database images outside train to validation; None: 1,000, or a tenth of fewer than 10,000.

    Images with a copy anywhere stay in the database, lest validation finds itself.

    Raises:
        DataError: there are not so many.
    """
    taken = np.concatenate([members["train"], members["query"]])
    free = np.zeros(len(digests), dtype=bool)
    free[members["database"]] = True
    free[taken] = False
    free &= unique_content(digests)
    order = draw_order(len(digests))
    candidates = order[free[order]]
    if count is None:
        count = HELD_OUT if len(candidates) >= SMALL_POOL else len(candidates) // 10
    if count == 0 or count >= len(candidates):
        raise DataError(
            f"{name}: {len(candidates)} different database images are outside train, too few to hold out "
            f"{count or 'a tenth'} for validation: add a {VALIDATION_LIST}"
        )
    members["validation"] = candidates[:count]
    members["database"] = members["database"][~np.isin(members["database"], candidates[:count])]


def class_names(folder: Path, count: int) -> list[str]:
    """The lines of classes.txt, or numbers where there is none.

    Raises:
        DataError: they are not one for each class.
    """
    file = folder / CLASS_NAMES
    if not file.is_file():
        return [str(number) for number in range(count)]
    names = [line.strip() for line in read_lines(file) if line.strip()]
    if len(names) != count:
        raise DataError(f"'{file}' names {len(names)} classes and the lists have {count}: make them agree")
    return names


def classify_lists(
    name: str, images: ImageFiles, listed: ListedImages, members: dict[str, IntArray], classes: list[str]
) -> ClassificationDataset:
    """Train and test lists as a classification protocol; the database is passed over.

    Train images that stand on the test list too, by name or by content, are left out and named.

    Raises:
        DataError: images with several labels, or none.
    """
    labels = np.array(listed.labels, dtype=np.uint8)
    if (labels.sum(axis=1) != 1).any():
        raise DataError(
            f"{name}: some images have several labels, or none, and a classifier gives one: use it for retrieval"
        )
    places = np.arange(len(labels))
    test, train = np.isin(places, members["query"]), np.isin(places, members["train"])
    targets = labels.argmax(axis=1).astype(np.int64)
    both = [f"{listed.files[i]}: it is on the test list too" for i in np.flatnonzero(test & train)]
    return classification(name, images, targets, classes, test, train, skipped=[*listed.repeated, *both])
