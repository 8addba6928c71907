"""The two formats of the CIFAR archives: binary records, and pickles, of which nothing but data is read.

Formats: Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashrobust.datasets._base import IntArray
from hashrobust.datasets._pickled_data import read_data
from hashrobust.errors import DataError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
MOST_BYTES = 2**28
"""Of a file: the largest, the train images of CIFAR-100, has 155 million."""

Images = NDArray[np.uint8]


def _checked(images: Any, labels: Any, num_classes: int) -> tuple[Images, IntArray]:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (PIXELS,):
        raise ValueError(f"its images are not rows of {PIXELS} bytes")
    # Lists in lists may stand for more than any memory.
    if not isinstance(labels, np.ndarray) and not all(type(label) is int for label in labels):
        raise ValueError("its labels are no whole numbers")
    targets = np.asarray(labels)
    if targets.dtype.kind not in "iu" or targets.shape != (len(images),):
        raise ValueError(f"its labels are not {len(images)} whole numbers, one for each image")
    if len(targets) and (targets.min() < 0 or targets.max() >= num_classes):
        raise ValueError(f"a label lies outside 0 .. {num_classes - 1}")
    return images.reshape(-1, *SHAPE), targets.astype(np.int64)


def _content(file: Path) -> bytes:
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    return file.read_bytes()


def _broken(file: Path, error: Exception) -> DataError:
    return DataError(f"'{file}' is not the CIFAR file it should be ({error}): fetch it again")


def read_pickle(file: Path, label_key: bytes, num_classes: int) -> tuple[Images, IntArray]:
    """Images (N, 3, 32, 32) and classes (N,) of one pickled batch, without an unpickler.

    Raises:
        DataError: the file is damaged, of another kind, or names anything but data.
    """
    try:
        batch = read_data(_content(file))
        if not isinstance(batch, dict):
            raise ValueError("it holds no dictionary")
        fields = {key.encode() if isinstance(key, str) else key: value for key, value in batch.items()}
        if b"data" not in fields or label_key not in fields:
            raise ValueError(f"it lacks 'data' or '{label_key.decode()}'")
        return _checked(fields[b"data"], fields[label_key], num_classes)
    except Exception as error:  # a hostile or damaged pickle raises anything
        raise _broken(file, error) from error


def read_binary(file: Path, label_bytes: int, num_classes: int) -> tuple[Images, IntArray]:
    """Images (N, 3, 32, 32) and classes (N,) of a binary file.

    A record is `label_bytes` labels, of which the last counts, then the pixels.

    Raises:
        DataError: the file is unreadable, truncated, or holds an impossible label.
    """
    try:
        content = np.frombuffer(_content(file), dtype=np.uint8)
        record = label_bytes + PIXELS
        if len(content) == 0 or len(content) % record:
            raise ValueError(f"its {len(content)} bytes are no multiple of {record}")
        records = content.reshape(-1, record)
        return _checked(records[:, label_bytes:], records[:, label_bytes - 1], num_classes)
    except (OSError, ValueError) as error:
        raise _broken(file, error) from error
