"""Which of how many processes this one is, as torchrun tells each by its environment. No torch here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from hashrobust.errors import InputError

_NUMBER = re.compile("[0-9]{1,9}")
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True)
class Launch:
    """One of `size` processes, counted from 0 over all machines by `rank` and on its own by `local_rank`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0


ALONE = Launch()


def launch() -> Launch:
    """What the environment says; alone where it does not say all of it.

    Raises:
        InputError: it says what cannot be.
    """
    if not all(name in os.environ for name in _VARIABLES):
        return ALONE
    texts = [os.environ[name] for name in _VARIABLES]
    numbers = [int(text) if _NUMBER.fullmatch(text) else -1 for text in texts]
    found = Launch(*numbers)
    if min(numbers) < 0 or found.rank >= found.size:
        said = ", ".join(f"{name}={text}" for name, text in zip(_VARIABLES, texts, strict=True))
        raise InputError(f"the environment says {said}: leave these variables to torchrun, or unset them")
    return found
