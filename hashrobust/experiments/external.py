"""Arrays that were not made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashrobust.errors import InputError


def read_array(path: Path) -> NDArray[Any]:
    """A numeric array from a .npy file; files that would need unpickling are refused.

    Raises:
        InputError: the file is missing, no .npy file, or holds objects.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"array file '{path}' does not exist: check the path") from None
    except Exception as error:  # readers of damaged files raise whatever they come upon
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"'{path}' is no .npy file of numbers ({said}): save it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"'{path}' holds several arrays: give a .npy file with one")
    return array
