"""Any data set that comes as HashNet lists: the field's lingua franca (NUS-WIDE, COCO, ImageNet100 ...)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from hashrobust.datasets import datasets
from hashrobust.datasets._base import LabelledDataset
from hashrobust.datasets._files import ImageFiles, usable_digests
from hashrobust.datasets._info import DatasetInfo, describes, written_out
from hashrobust.datasets._lists import (
    LISTS,
    ListedImages,
    class_names,
    classify_lists,
    halve_query,
    hold_out,
    read_members,
)
from hashrobust.datasets._protocol import assemble
from hashrobust.errors import DataError, InputError
from hashrobust.progress import Progress

DEFAULT_TOP_K = 5000
WAY_OUT = (
    "restore them, put the lists into the folder that their paths start from (in Python, give it as root=), or take "
    "them off the lists"
)

ValidationFrom = Literal["database", "test"]


@datasets.register("list")
def image_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    image_size: int | None = None,
    top_k: int | None = DEFAULT_TOP_K,
    validation_from: ValidationFrom = "database",
    allow_overlap: bool = False,
    progress: Progress | None = None,
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
    folder, name = written_out(path), f"list:{path}"
    absent = [file for file in LISTS.values() if not (folder / file).is_file()]
    if absent:
        raise DataError(f"{name} lacks {', '.join(absent)}: give a folder with {', '.join(LISTS.values())}")
    listed = ListedImages(folder if root is None else written_out(root))
    members = read_members(listed, folder)
    digests = usable_digests(name, listed.root, listed.files, WAY_OUT, progress)
    labels = np.array(listed.labels, dtype=np.uint8)
    images = ImageFiles(listed.root, listed.files, digests, image_size)
    classes = class_names(folder, labels.shape[1])
    if protocol == "classification":
        return classify_lists(name, images, listed, members, classes)
    if "validation" not in members and validation_from == "test":
        halve_query(members)
    elif "validation" not in members:
        hold_out(name, members, digests)
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
