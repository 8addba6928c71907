"""What the process does with memory that tensors no longer use."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE, _NEVER = 1 << 30, 2**31 - 1


def keep_freed_memory() -> bool:
    """Let freed blocks below 1 GiB serve the next step, instead of going back to the system; whether that worked.

    A step frees blocks and asks for the same ones again. By default glibc maps each large one anew, and every page
    of it is zeroed at its first touch: a sixth of a training step of `resnet20` (docs/performance.md).
    No number changes.
    For whole processes: command lines and workers, never for a library's import.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
