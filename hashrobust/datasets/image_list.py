"""Any data set that comes as HashNet lists: the field's lingua franca (NUS-WIDE, COCO, ImageNet100 ...)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hashrobust.datasets import datasets
from hashrobust.datasets._base import ClassificationDataset, IntArray, LabelledDataset
from hashrobust.datasets._files import ImageFiles, inspect_files
from hashrobust.datasets._info import DatasetInfo, describes
from hashrobust.datasets._lists import ListedImages, read_lines
from hashrobust.datasets._protocol import assemble, classification, draw_order, unique_content
from hashrobust.errors import DataError, InputError

LISTS = {"train": "train.txt", "query": "test.txt", "database": "database.txt"}
VALIDATION_LIST = "validation.txt"
CLASS_NAMES = "classes.txt"
DEFAULT_TOP_K = 5000
HELD_OUT = 1000
SMALL_POOL = 10 * HELD_OUT  # below this a tenth is held out
NAMED = 5

ValidationFrom = Literal["database", "test"]


def _hold_out(members: dict[str, IntArray], digests: list[bytes], name: str) -> None:
    """Move 1,000 database images outside train (a tenth of fewer than 10,000) to validation.

    Images with a copy anywhere stay in the database, lest validation finds itself.
    """
    taken = np.concatenate([members["train"], members["query"]])
    free = np.zeros(len(digests), dtype=bool)
    free[members["database"]] = True
    free[taken] = False
    free &= unique_content(digests)
    order = draw_order(len(digests))
    candidates = order[free[order]]
    count = HELD_OUT if len(candidates) >= SMALL_POOL else len(candidates) // 10
    if count == 0:
        raise DataError(
            f"{name}: {len(candidates)} different database images are outside train, too few to hold out a "
            f"tenth for validation: add a {VALIDATION_LIST}"
        )
    members["validation"] = candidates[:count]
    members["database"] = members["database"][~np.isin(members["database"], candidates[:count])]


def _digests(root: Path, files: list[str], name: str) -> list[bytes]:
    """Hashes of all listed files, every one of which must be a readable image."""
    seen = inspect_files([root / file for file in files])
    broken = [f"{file}: {why}" for file, why in zip(files, seen, strict=True) if isinstance(why, str)]
    if broken:
        raise DataError(
            f"{name}: {len(broken)} of {len(files)} listed images cannot be used "
            f"({'; '.join(broken[:NAMED])}{'; ...' if len(broken) > NAMED else ''}): restore them, name "
            "their folder with root=, or take them off the lists"
        )
    return [digest for digest in seen if isinstance(digest, bytes)]


def _class_names(folder: Path, count: int) -> list[str]:
    file = folder / CLASS_NAMES
    if not file.is_file():
        return [str(number) for number in range(count)]
    names = [line.strip() for line in read_lines(file) if line.strip()]
    if len(names) != count:
        raise DataError(f"'{file}' names {len(names)} classes and the lists have {count}: make them agree")
    return names


def _to_classify(
    name: str,
    images: ImageFiles,
    labels: NDArray[np.uint8],
    members: dict[str, IntArray],
    listed: ListedImages,
    classes: list[str],
) -> ClassificationDataset:
    """Train and test lists as a classification protocol; the database is passed over."""
    if (labels.sum(axis=1) != 1).any():
        raise DataError(
            f"{name}: some images have several labels, or none, and a classifier gives one: use it for retrieval"
        )
    places = np.arange(len(labels))
    test, train = np.isin(places, members["query"]), np.isin(places, members["train"])
    targets = labels.argmax(axis=1).astype(np.int64)
    return classification(name, images, targets, classes, test, train, skipped=listed.repeated)


@datasets.register("list")
def image_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    image_size: int | None = None,
    top_k: int | None = DEFAULT_TOP_K,
    validation_from: ValidationFrom = "database",
    allow_overlap: bool = False,
    protocol: str = "retrieval",
) -> LabelledDataset:
    """A protocol as HashNet lists (train.txt, test.txt, database.txt): `list:DIR`.

    A line is an image's path, then a 0 or 1 for each class. Without a validation.txt, validation images come
    from the database (1,000 outside train; a tenth of fewer than 10,000), or, with `validation_from="test"`,
    from test.txt: its 2nd, 4th ... lines, as for ImageNet100. Every listed file must be a readable image.
    To classify, train.txt and test.txt are taken, and a tenth of each class of train for validation.

    Args:
        path: the folder of the lists, and of a classes.txt with a name a line, if there is one.
        root: the folder that the images' paths start from and may not leave; None: the folder of the lists.
        image_size: side in pixels; None: 224.
        top_k: list length of mAP@k (ImageNet100: 1000); None: the whole database.
        validation_from: where validation images come from if there is no validation.txt.
        allow_overlap: accept queries or validation images that also stand in another split.
        protocol: "retrieval" or "classification".

    Raises:
        InputError: an unknown `validation_from`.
        DataError: lists or images are missing or malformed, or splits overlap.
    """
    if validation_from not in get_args(ValidationFrom):
        raise InputError(f"validation_from is '{validation_from}': give 'database' or 'test'")
    folder, name = Path(path), f"list:{path}"
    absent = [file for file in LISTS.values() if not (folder / file).is_file()]
    if absent:
        raise DataError(f"{name} lacks {', '.join(absent)}: give a folder with {', '.join(LISTS.values())}")
    listed = ListedImages(folder if root is None else Path(root))
    members = {
        split: np.array(listed.add_list(folder / file), dtype=np.int64) for split, file in LISTS.items()
    }
    if (folder / VALIDATION_LIST).is_file():
        members["validation"] = np.array(listed.add_list(folder / VALIDATION_LIST), dtype=np.int64)
    elif validation_from == "test":
        members["query"], members["validation"] = members["query"][::2], members["query"][1::2]
    digests = _digests(listed.root, listed.files, name)
    labels = np.array(listed.labels, dtype=np.uint8)
    images = ImageFiles(listed.root, listed.files, digests, image_size)
    classes = _class_names(folder, labels.shape[1])
    if protocol == "classification":
        return _to_classify(name, images, labels, members, listed, classes)
    if "validation" not in members:
        _hold_out(members, digests, name)
    return assemble(
        name,
        images,
        classes,
        labels,
        members,
        top_k=top_k,
        skipped=listed.repeated,
        allow_overlap=allow_overlap,
    )


@describes("list")
def _info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return DatasetInfo(
        name="list" if path is None else f"list:{path}",
        source="HashNet lists: train.txt, test.txt, database.txt; optional validation.txt and classes.txt",
        size="that of the lists",
        protocol="that of the lists; without validation.txt 1,000 database images outside train (a tenth of "
        "fewer than 10,000); mAP@5000",
        licence="that of the images",
        fetch="name the folder: list:DIR",
        places=() if path is None else tuple(str(path / file) for file in LISTS.values()),
        present=None if path is None else all((path / file).is_file() for file in LISTS.values()),
    )
