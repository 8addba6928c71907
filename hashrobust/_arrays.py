"""Arrays at the door: torch or numpy in, checked numpy out; codes as packed bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashrobust.errors import InputError

_AT_ONCE = 1 << 13  # codes looked at together: they stay in the cache, and a large database is not copied


def as_array(values: Any) -> NDArray[Any]:
    """A numpy array of an array, a sequence or a torch tensor on any device.

    Raises:
        InputError: rows of different lengths.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # numpy has no such type, and tensors become it under mixed precision
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"values are no array ({error}): give rows of equal length") from error


def as_whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of Python or numpy as int.

    Raises:
        InputError: it is no whole number, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is {value!r}: give a whole number from {least} on")
    return int(value)


def as_codes(codes: Any, name: str = "codes") -> NDArray[Any]:
    """Codes (N, K) as a numpy array, their values checked.

    Raises:
        InputError: not a matrix, no bits, or values other than -1 and +1.
    """
    array = as_array(codes)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"{name} have shape {array.shape}: give a matrix (images, bits)")
    parts = (array[start : start + _AT_ONCE] for start in range(0, len(array), _AT_ONCE))
    if array.dtype.kind not in "if" or not all(bool((np.abs(part) == 1).all()) for part in parts):
        raise InputError(f"{name} hold values other than -1 and +1: take the sign first, with sign(0) = +1")
    return array


def pack(codes: Any) -> NDArray[np.uint8]:
    """Codes (N, K) in {-1, +1} as bits, (N, ceil(K / 8)) uint8, the first bit lowest; +1 becomes 1.

    The last byte is filled up with zeros in every code, which leaves Hamming distances as they are.

    Raises:
        InputError: values other than -1 and +1.
    """
    return np.packbits(as_codes(codes) > 0, axis=1, bitorder="little")


def as_packed(packed: Any, bits: int) -> NDArray[np.uint8]:
    """Packed codes (N, ceil(bits / 8)) uint8 as a numpy array, checked.

    Raises:
        InputError: the width does not fit the number of bits.
    """
    array = as_array(packed)
    if bits < 1 or array.ndim != 2 or array.dtype != np.uint8 or array.shape[1] != -(-bits // 8):
        raise InputError(
            f"packed codes of {bits} bits are a uint8 matrix (images, ceil(bits / 8)), "
            f"not {array.dtype} {array.shape}: give what pack returned and the same number of bits"
        )
    return array


def unpack(packed: Any, bits: int) -> NDArray[np.int8]:
    """Packed codes (N, ceil(bits / 8)) uint8 as int8 (N, bits) in {-1, +1}; the inverse of `pack`.

    Raises:
        InputError: see `as_packed`.
    """
    array = as_packed(packed, bits)
    return np.unpackbits(array, axis=1, count=bits, bitorder="little").astype(np.int8) * 2 - 1
