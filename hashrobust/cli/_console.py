"""Terminals: tables to stdout, words and progress to stderr, plain lines where there is no terminal."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from hashrobust.progress import Advance, Left

_WIDTH_OF_FILES = 160
"""Columns of what is not written to a terminal, so that tables in logs keep their words."""


class _Console(Console):
    """Names of files and classes may hold anything: what cannot be printed is shown by its code, as Python shows it, so
    that it does nothing to the terminal. No word between colons becomes a picture.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("".join(map(_printable, text)), **options)

    def on_broken_pipe(self) -> None:
        """Raise the error that is being handled, for the command to answer; Rich would end Python."""
        raise


def _printable(letter: str) -> str:
    shown = letter.isprintable() or letter in "\n\t\xa0"
    return letter if shown else letter.encode("unicode_escape").decode()


def _open_streams() -> None:
    """Let streams that the caller closed lead nowhere: files opened later would take their numbers, and get what
    libraries print."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def pass_over_odd_sizes() -> None:
    """Forget a size of the terminal in the environment that is none: Rich takes any digits for a number, also ² and
    thousands of them.
    """
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch("[0-9]{1,5}", os.environ.get(name, "0")):
            del os.environ[name]


_open_streams()
pass_over_odd_sizes()
stdout = _Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_FILES)
stderr = _Console(stderr=True)

_SECONDS_BETWEEN_LINES = 15.0


class ConsoleProgress:
    """Progress on stderr: a Rich bar with rate and time left, or a plain line now and then."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print one line, unless quiet."""
        if not self.quiet:
            stderr.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def track(
        self, description: str, total: int, unit: str, done: int = 0, left: Left | None = None
    ) -> Iterator[Advance]:
        """Show one stretch of work."""
        if self.quiet:
            yield lambda amount, note: None
        elif stderr.is_terminal:
            with _bar(TimeRemainingColumn() if left is None else TextColumn("{task.fields[left]}")) as bar:
                task = bar.add_task(description, total=total, completed=done, rate="", left="", note="")
                started = time.perf_counter()

                def advance(amount: int, note: str) -> None:
                    bar.advance(task, amount)
                    worked = bar.tasks[0].completed - done
                    rate = worked / max(time.perf_counter() - started, 1e-9)
                    shown = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
                    bar.update(task, rate=f"{shown} {unit}/s", left=_clock(left()) if left else "", note=note)

                yield advance
        else:
            yield self._plain(description, total, unit, done, left)

    def _plain(self, description: str, total: int, unit: str, done: int, left: Left | None) -> Advance:
        started = said = time.perf_counter()
        finished = done

        def advance(amount: int, note: str) -> None:
            nonlocal finished, said
            finished += amount
            now = time.perf_counter()
            if now - said < _SECONDS_BETWEEN_LINES:
                return
            said = now
            rate = (finished - done) / (now - started)
            seconds = left() if left else (total - finished) / rate if rate else math.inf
            self.say(
                f"{description}: {finished}/{total} {unit}, {rate:.3g}/s, {_clock(seconds)} left {note}".rstrip()
            )

        return advance


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as Rich shows time left."""
    return str(timedelta(seconds=round(seconds))) if math.isfinite(seconds) else "-:--:--"


def _bar(time_left: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),  # patterns of layers have brackets
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        time_left,
        TextColumn("{task.fields[note]}", markup=False),
        console=stderr,
        transient=True,
    )


def print_error(sentence: str) -> None:
    """One sentence on what went wrong, to stderr."""
    stderr.print("[bold red]error:[/]", end=" ", soft_wrap=True)
    stderr.print(sentence, markup=False, highlight=False, soft_wrap=True)


def print_json(content: Any) -> None:
    """JSON to stdout, nothing else; what is not a number becomes null."""
    print(json.dumps(_plain(content), indent=1, sort_keys=True, allow_nan=False))


def _plain(value: Any) -> Any:
    """The value in words that JSON has."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    numbers: Collection[str] = (),
    whole: str | None = None,
) -> Table:
    """A table in the look of the reports': words to the left, the columns of `numbers` to the right.

    What does not fit is folded, not cut off; the column `whole` is not folded either, so that it can be copied.
    """
    made = Table(
        title=None if title is None else escape(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in numbers else "left",
            overflow="fold",
            no_wrap=column == whole,
        )
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def key_value_table(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """A table of two columns without a head."""
    made = table(("", ""), rows, title=title)
    made.show_header = False
    return made
