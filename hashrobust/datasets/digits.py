"""Handwritten digits that come with scikit-learn: always at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hashrobust.datasets import datasets
from hashrobust.datasets._base import LabelledDataset
from hashrobust.datasets._info import DatasetInfo, describes
from hashrobust.datasets._memory import MemoryImages
from hashrobust.datasets._protocol import Sizes, classification, pooled_dataset

SIZES = Sizes(train=50, query=20, validation=10)
WHITE = 16  # the set counts ink in 4x4 blocks of a scan
IMAGE_SIZE = 32


@datasets.register("digits")
def digits(*, image_size: int | None = None, protocol: str = "retrieval") -> LabelledDataset:
    """1,797 handwritten digits of 8x8 pixels, enlarged to 32x32: embedded, needs no download.

    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, test part, as scikit-learn
    carries it. `image_size` None means 32. It has no official split: to classify, a tenth is drawn to test.
    """
    from sklearn.datasets import load_digits  # a second to import, which other datasets do not need

    bunch = load_digits()
    pixels = np.asarray(bunch.images).astype(np.uint8)[:, None]
    size = IMAGE_SIZE if image_size is None else image_size
    images = MemoryImages("digits", pixels, white=WHITE, image_size=size)
    targets = np.asarray(bunch.target, dtype=np.int64)
    classes = [str(digit) for digit in range(10)]
    if protocol == "classification":
        return classification("digits", images, targets, classes)
    return pooled_dataset("digits", images, targets, classes, SIZES, top_k=None)


@describes("digits")
def _info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return DatasetInfo(
        name="digits",
        source="scikit-learn's copy of Optical Recognition of Handwritten Digits (UCI)",
        size="1,797 grey images, 8x8, 10 classes",
        protocol="train 500, query 200, validation 100 (50, 20, 10 a class), database 997; mAP over all",
        licence="CC BY 4.0",
        fetch="comes with scikit-learn",
        places=("scikit-learn",),
        present=True,
    )
