"""FLICKR-25K, which is MIRFLICKR-25000: photographs from Flickr with 38 annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hashrobust.datasets import datasets
from hashrobust.datasets._base import LabelledDataset
from hashrobust.datasets._download import Remote
from hashrobust.datasets._info import DatasetInfo, describes
from hashrobust.datasets._lists import read_lines
from hashrobust.datasets._photographs import Photographs, Pool, load_photographs, passport
from hashrobust.errors import DataError
from hashrobust.progress import Progress

IMAGES = 25_000
POTENTIAL = """
animals baby bird car clouds dog female flower food indoor lake male night people plant_life portrait river sea
sky structures sunset transport tree water
"""
RELEVANT = (
    "baby bird car clouds dog female flower male night people portrait river sea tree"  # a subset of each
)
ANNOTATIONS = tuple(sorted([*POTENTIAL.split(), *(f"{name}_r1" for name in RELEVANT.split())]))
ARCHIVE = "mirflickr25k_annotations_v080"
FOLDERS = ("annotations", f"annotations/{ARCHIVE}", ARCHIVE, "annotations_v080", ".")
ADDRESS = "https://press.liacs.nl/mirflickr/mirflickr25k.v3b"
MEGABYTE = 10**6
MOST_DIGITS = 9


def read(root: Path) -> Pool:
    """im1.jpg to im25000.jpg; an annotation's file has a line with the number of each image that it holds for.

    Raises:
        DataError: a file is missing, or has a line that is no number from 1 to 25000.
    """
    folder = next(root / name for name in FOLDERS if (root / name / f"{ANNOTATIONS[0]}.txt").is_file())
    labels = np.zeros((IMAGES, len(ANNOTATIONS)), dtype=np.uint8)
    for column, name in enumerate(ANNOTATIONS):
        file = folder / f"{name}.txt"
        for number, line in enumerate(read_lines(file), start=1):
            text = line.strip()
            if not text:
                continue
            is_number = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
            if not is_number or not 1 <= int(text) <= IMAGES:
                raise DataError(
                    f"{file}:{number}: '{text[:40]}' is no number from 1 to {IMAGES}: fetch it again"
                )
            labels[int(text) - 1, column] = 1
    return Pool([f"im{number}.jpg" for number in range(1, IMAGES + 1)], labels)


FLICKR25K = Photographs(
    name="flickr25k",
    folders=("flickr25k", "mirflickr25k", "mirflickr"),
    classes=ANNOTATIONS,
    train=5_000,
    query=1_700,
    validation=1_000,
    train_in_database=True,
    top_k=5000,
    holders=("mirflickr/{name}", "images/{name}", "{name}"),
    layouts=tuple(tuple(f"{folder}/{name}.txt" for name in ANNOTATIONS) for folder in FOLDERS),
    read=read,
    remotes=(
        Remote(
            (f"{ADDRESS}/mirflickr25k.zip",),
            "a23d0a8564ee84cda5622a6c2f947785",
            3_500 * MEGABYTE,
            ("mirflickr",),
            unpacked_bytes=4_000 * MEGABYTE,
        ),
        Remote(
            (f"{ADDRESS}/{ARCHIVE}.zip",),
            "aa0138c79892b1b670184d142380948f",
            MEGABYTE,
            tuple(f"annotations/{name}.txt" for name in ANNOTATIONS),
            unpacked_bytes=10 * MEGABYTE,
            into="annotations",
        ),
    ),
    about={
        "source": "LIACS Medialab, Leiden, https://press.liacs.nl/mirflickr (Huiskes and Lew, MIR 2008)",
        "size": "25,000 photographs, 38 annotations, several an image",
        "licence": "each photograph under its own Creative Commons licence",
        "fetch": "run `hashrobust data flickr25k --download` (3 GB; download=True in Python)",
    },
)


@datasets.register("flickr25k")
def flickr25k(
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    progress: Progress | None = None,
    allow_overlap: bool = False,
) -> LabelledDataset:
    """FLICKR-25K: 25,000 photographs with several labels of 38 annotations.

    Huiskes and Lew, "The MIR Flickr retrieval evaluation", MIR 2008; annotations v080.
    """
    return load_photographs(
        FLICKR25K,
        data_dir=data_dir,
        image_size=image_size,
        download=download,
        progress=progress,
        allow_overlap=allow_overlap,
    )


@describes("flickr25k")
def _info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return passport(FLICKR25K, data_dir)
