"""The idx format of the MNIST family: a magic number, big-endian dimensions, bytes.

Format: LeCun, Cortes and Burges, "The MNIST database", http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashrobust.errors import DataError

UNSIGNED_BYTE = 0x08
MOST_BYTES = 2**26
"""Of an array: the largest, the train images of MNIST, has 47 million."""


def _parse(read: Callable[[int], bytes], ndim: int) -> NDArray[np.uint8]:
    head = read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise ValueError(f"it starts with {head.hex() or 'nothing'}, which is no idx magic number")
    if head[2] != UNSIGNED_BYTE or head[3] != ndim:
        raise ValueError(f"its magic number is {head.hex()}, not 000008{ndim:02x}")
    dimensions = read(4 * ndim)
    if len(dimensions) < 4 * ndim:
        raise ValueError("it ends inside its header")
    shape = struct.unpack(f">{ndim}I", dimensions)
    expected = math.prod(shape)
    if expected > MOST_BYTES:
        raise ValueError(f"its header promises {expected} bytes, more than any set of this family has")
    content = read(expected + 1)
    if len(content) != expected:
        follow = "more" if len(content) > expected else f"only {len(content)}"
        raise ValueError(f"its header promises {expected} bytes and {follow} follow")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def read_idx(file: Path, ndim: int) -> NDArray[np.uint8]:
    """The array in an idx file of bytes, gzipped if its name ends in .gz.

    Raises:
        DataError: the file is truncated, too long, of another kind, or unreadable.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            return _parse(stream.read, ndim)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"'{file}' is not the idx file it should be ({error}): fetch it again") from error
