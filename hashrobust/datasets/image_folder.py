"""Any folder of images that has one subfolder a class."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hashrobust.datasets import datasets
from hashrobust.datasets._base import LabelledDataset
from hashrobust.datasets._files import ImageFiles, inspect_files
from hashrobust.datasets._info import DatasetInfo, describes, written_out
from hashrobust.datasets._protocol import Sizes, assemble, classification, draw_by_class, multi_hot
from hashrobust.errors import DataError
from hashrobust.progress import Progress

SMALLEST_CLASS = 4
MOST_TRAIN = 500
DEFAULT_TOP_K = 5000


def class_sizes(count: int) -> Sizes:
    """A tenth of a class as queries, a tenth for validation, half of the rest to train, at most 500.

    Validation takes two images as soon as a class has five: it ranks its images against each other.
    """
    query = max(1, count // 10)
    validation = min(max(2, count // 10), count - 3)
    train = min(MOST_TRAIN, (count - query - validation) // 2)
    return Sizes(train=train, query=query, validation=validation)


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))


def _files_below(folder: Path, root: Path, skipped: list[str]) -> list[Path]:
    """The visible files of a class, by name; folders that are not looked into are told in `skipped`."""

    def skip(place: str | Path, why: str) -> None:
        skipped.append(f"{Path(place).relative_to(root).as_posix()}: {why}")

    found = []
    walk = os.walk(folder, onerror=lambda error: skip(error.filename, error.strerror or str(error)))
    for place, folders, names in walk:
        folders[:] = _visible(folders)
        for name in folders:
            if (link := Path(place, name)).is_symlink():
                skip(link, "it is a link to a folder, which is not followed")
        found += [Path(place, name) for name in _visible(names)]
    return sorted(found)


def _usable(
    root: Path, classes: list[str], progress: Progress | None
) -> tuple[list[str], list[bytes], list[str]]:
    """Files in class folders (by class, then name) and their hashes; what was skipped, with reasons."""
    loose = [name for name in _visible(entry.name for entry in root.iterdir()) if not (root / name).is_dir()]
    skipped = [f"{name}: it is in no class folder" for name in loose]
    found = [path for title in classes for path in _files_below(root / title, root, skipped)]
    files: list[str] = []
    digests: list[bytes] = []
    first: dict[bytes, str] = {}
    for path, seen in zip(found, inspect_files(found, progress), strict=True):
        name = path.relative_to(root).as_posix()
        if isinstance(seen, str):
            skipped.append(f"{name}: {seen}")
        elif seen in first:
            skipped.append(f"{name}: it is an exact copy of {first[seen]}")
        else:
            first[seen] = name
            files.append(name)
            digests.append(seen)
    return files, digests, skipped


@datasets.register("folder")
def image_folder(
    path: str | Path,
    *,
    image_size: int | None = None,
    top_k: int | None = DEFAULT_TOP_K,
    progress: Progress | None = None,
    protocol: str = "retrieval",
) -> LabelledDataset:
    """Your own images, one subfolder a class: `folder:DIR`.

    A class of n images gives n/10 queries, n/10 validation images, half of the rest (at most 500) to train,
    and what is left to the database. Files that are no readable image, and exact copies of an earlier file,
    are skipped and named in `.skipped`; names that begin with a dot are not looked at. Links to class folders are
    followed; links to folders within them are skipped and named. To classify, a tenth of each class is drawn to
    test, and a tenth of the rest for validation.

    Raises:
        DataError: no such folder, fewer than two class folders, or a class with fewer than 4 images.
    """
    root = written_out(path)
    name = f"folder:{path}"
    if not root.is_dir():
        raise DataError(f"{name}: there is no such folder: give one that holds a subfolder for each class")
    classes = [title for title in _visible(entry.name for entry in root.iterdir()) if (root / title).is_dir()]
    if len(classes) < 2:
        raise DataError(
            f"{name} has {len(classes)} class folders and retrieval needs two: put the images of each "
            "class in a subfolder of its own"
        )
    files, digests, skipped = _usable(root, classes, progress)
    number = {title: target for target, title in enumerate(classes)}
    targets = np.array([number[file.split("/", 1)[0]] for file in files], dtype=np.int64)
    for title, count in zip(classes, np.bincount(targets, minlength=len(classes)), strict=True):
        if count < SMALLEST_CLASS:
            left_out = sum(reason.startswith((f"{title}/", f"{title}: ")) for reason in skipped)
            raise DataError(
                f"{name}: class '{title}' has {count} usable images ({left_out} skipped) and needs "
                f"{SMALLEST_CLASS}, one for each split: add images or take the class away"
            )
    images = ImageFiles(root, files, digests, image_size)
    # Names of folders need be no text; what is shown and drawn must be.
    classes = [os.fsencode(title).decode(errors="backslashreplace") for title in classes]
    if protocol == "classification":
        return classification(name, images, targets, classes, skipped=skipped)
    members = draw_by_class(targets, np.ones(len(files), dtype=bool), lambda _, count: class_sizes(count))
    return assemble(
        name,
        images,
        classes,
        multi_hot(targets, len(classes)),
        members,
        top_k=top_k,
        skipped=skipped,
    )


@describes("folder")
def _info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return DatasetInfo(
        name="folder" if path is None else f"folder:{path}",
        source="your own images, DIR/<class>/<image>",
        size="at least 4 images a class",
        protocol="of each class a tenth query, a tenth validation, half of the rest (at most 500) train, "
        "the others database; mAP@5000",
        licence="that of your images",
        fetch="name the folder: folder:DIR",
        places=() if path is None else (str(path),),
        present=None if path is None else path.is_dir(),
    )
