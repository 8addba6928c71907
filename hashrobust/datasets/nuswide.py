"""NUS-WIDE-21: photographs from Flickr that show at least one of the 21 most frequent concepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hashrobust.datasets import datasets
from hashrobust.datasets._base import LabelledDataset
from hashrobust.datasets._info import DatasetInfo, describes
from hashrobust.datasets._lists import BITS, read_lines
from hashrobust.datasets._photographs import Photographs, Pool, load_photographs, passport
from hashrobust.errors import DataError
from hashrobust.progress import Progress

ALL_IMAGES = 269_648
IMAGES = 195_834
NAMES = """
animal beach buildings clouds flowers grass lake mountain ocean person plants reflection road rocks sky snow sunset
tree vehicle water window
"""
CONCEPTS = tuple(NAMES.split())
IMAGE_LISTS = ("ImageList/Imagelist.txt", "Imagelist.txt")
LABEL_FOLDERS = ("Groundtruth/AllLabels", "AllLabels")


def _first(root: Path, files: tuple[str, ...]) -> Path:
    return next((root / file for file in files if (root / file).is_file()), root / files[0])


def read(root: Path) -> Pool:
    """The photographs with one of the concepts, in the order of Imagelist.txt.

    Raises:
        DataError: a file is missing, is of another length, or holds anything but 0 and 1.
    """
    list_file = _first(root, IMAGE_LISTS)
    paths = [line.strip() for line in read_lines(list_file) if line.strip()]
    if len(paths) != ALL_IMAGES:
        raise DataError(
            f"'{list_file}' names {len(paths)} images and NUS-WIDE has {ALL_IMAGES}: fetch it again"
        )
    columns = []
    for concept in CONCEPTS:
        file = _first(root, tuple(f"{folder}/Labels_{concept}.txt" for folder in LABEL_FOLDERS))
        lines = [line.strip() for line in read_lines(file) if line.strip()]
        if len(lines) != ALL_IMAGES:
            raise DataError(
                f"'{file}' has {len(lines)} lines and NUS-WIDE {ALL_IMAGES} images: fetch it again"
            )
        if not BITS.issuperset(lines):
            number = next(number for number, line in enumerate(lines, start=1) if line not in BITS)
            raise DataError(f"{file}:{number}: '{lines[number - 1][:40]}' is neither 0 nor 1: fetch it again")
        columns.append(np.array(lines) == "1")
    labels = np.stack(columns, axis=1).astype(np.uint8)
    kept = np.flatnonzero(labels.any(axis=1))
    if len(kept) != IMAGES:
        raise DataError(
            f"the labels in '{file.parent}' give {len(kept)} images one of the {len(CONCEPTS)} concepts, and "
            f"NUS-WIDE-21 has {IMAGES}: fetch them again"
        )
    return Pool([paths[place] for place in kept], labels[kept])


NUSWIDE = Photographs(
    name="nuswide",
    folders=("nuswide", "nus-wide", "NUS-WIDE"),
    classes=CONCEPTS,
    train=10_500,
    query=2_100,
    validation=2_100,
    top_k=5000,
    holders=("Flickr/{path}", "images/{name}", "image/{name}", "image/{path}", "images/{path}", "{path}"),
    layouts=tuple(
        (images, *(f"{labels}/Labels_{concept}.txt" for concept in CONCEPTS))
        for images in IMAGE_LISTS
        for labels in LABEL_FOLDERS
    ),
    read=read,
    about={
        "source": "NUS, Lab for Media Search (Chua et al., CIVR 2009)",
        "size": "195,834 of 269,648 photographs, 21 concepts, several an image",
        "licence": "for research; each photograph belongs to its owner at Flickr",
        "fetch": "its owners ask to be asked: get the images and Groundtruth.zip and ImageList.zip from "
        "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html and unpack them in "
        "the first of its folders, the images as Flickr/<concept>/<image> or images/<image>",
    },
)


@datasets.register("nuswide")
def nuswide(
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    progress: Progress | None = None,
    allow_overlap: bool = False,
) -> LabelledDataset:
    """NUS-WIDE-21: 195,834 photographs with several labels of 21 concepts.

    Chua et al., "NUS-WIDE: a real-world web image database from National University of Singapore", CIVR 2009.
    """
    return load_photographs(
        NUSWIDE,
        data_dir=data_dir,
        image_size=image_size,
        progress=progress,
        allow_overlap=allow_overlap,
    )


@describes("nuswide")
def _info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return passport(NUSWIDE, data_dir)
