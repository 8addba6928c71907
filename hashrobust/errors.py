"""What can go wrong, and whose mistake it is.

Every message is one sentence or two that name the input, what is wrong with it and the way out.
The command line prints the message without a traceback and exits with `exit_code`.
"""

from __future__ import annotations

import errno

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""What the system says of a disk that takes no more, whatever is written: no mistake of the user's."""


class HashRobustError(Exception):
    """Something failed that the user could not have known beforehand (exit code 1)."""

    exit_code = 1


class InputError(HashRobustError, ValueError):
    """The request or its input is wrong: a bad value, shape or combination (exit code 2)."""

    exit_code = 2


class UnknownNameError(InputError, LookupError):
    """A name that no registry holds."""


class DataError(InputError):
    """A dataset or image is missing, malformed, or breaks its protocol."""


class StoreError(InputError):
    """A run folder is missing, incomplete, damaged, or from another version."""


class BusyError(StoreError):
    """A folder that another process works on."""


class UnwritableError(StoreError):
    """A place that cannot be written: full, read-only, or not allowed."""

    exit_code = 1


class ModelError(HashRobustError):
    """A model that was made elsewhere raised an error of its own, which is the cause of this one."""


class TrainingError(HashRobustError):
    """Training cannot go on, for example because the loss is not a number."""


def lacks_memory(error: Exception) -> bool:
    """Python's and NumPy's own kind of error, or torch's, which has none of its own on the processor."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    )
