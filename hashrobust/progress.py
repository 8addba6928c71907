"""How the library tells of long work without printing: the caller gives a `Progress`, or nothing is said."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int, str], None]
"""Called with the number of units done and a short note, such as the current loss."""

Left = Callable[[], float]
"""Tells how many seconds are left, where units differ much in what they cost."""


class Progress(Protocol):
    """Receives the progress of long work."""

    def track(
        self, description: str, total: int, unit: str, done: int = 0, left: Left | None = None
    ) -> AbstractContextManager[Advance]:
        """A stretch of work of `total` units, `done` of which were finished before; without `left` all cost alike."""

    def say(self, text: str) -> None:
        """One line for the user."""


class Silent:
    """Says nothing."""

    def track(
        self, description: str, total: int, unit: str, done: int = 0, left: Left | None = None
    ) -> AbstractContextManager[Advance]:
        """A stretch of work that nobody watches."""
        return nullcontext(lambda amount, note: None)

    def say(self, text: str) -> None:
        """Nothing."""
