"""One command in several processes, as torchrun starts it: they train together, and one of them speaks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import ParamSpec

from hashrobust.errors import InputError
from hashrobust.launch import launch

Arguments = ParamSpec("Arguments")

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TOGETHER = ("finetune", "pretrain")
"""Commands that several processes do as one."""


def together(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """A command that trains, joined with the other processes that torchrun started."""

    @wraps(command)
    def joined_command(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        if launch().size == 1:
            command(*arguments, **options)
            return
        from hashrobust.training.parallel import joined

        with joined():
            command(*arguments, **options)

    return joined_command


def refuse_several(command: str | None) -> None:
    """Refuse commands that do not train where torchrun started several processes.

    Raises:
        InputError: it did.
    """
    processes = launch().size
    if processes > 1 and command is not None and command not in _TOGETHER:
        raise InputError(
            f"torchrun started {processes} processes, and only {' and '.join(_TOGETHER)} share their work among them: "
            f"run `hashrobust {command}` without torchrun; many runs and attacks at once are for `hashrobust study` "
            "with --jobs or --scheduler"
        )


@contextmanager
def one_voice() -> Iterator[None]:
    """Silence all processes but the first within the block."""
    if launch().first:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def has_last_word() -> bool:
    """Whether this process says how the command failed: of several the first that asks, whichever that is."""
    try:
        launched = launch()
    except InputError:
        return True
    if launched.size == 1:
        return True
    try:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return store.add(f"hashrobust/last-word/{attempt}", 1) == 1
    except (ImportError, KeyError, ValueError, RuntimeError):  # no torchrun to ask
        return launched.first


def answer_signals() -> None:
    """Answer those that end commands as Ctrl-C is answered, but for what the caller ignores, as `nohup` does."""
    for number in _ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Answer a signal as Ctrl-C is answered. torchrun may send several, of which one is enough."""
    if "RANK" in os.environ:
        for again in _ENDING:
            signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt


def let_signals_end_it() -> None:
    """Nothing is left to be tidied up: one more signal ends the process, with no word of Python's."""
    for number in _ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no signal come between the end of a command and what is said of it; after that one ends the process.

    torchrun signals all others as soon as one process has ended, and so just when they notice it themselves.
    """
    answered = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    for number in answered:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number in answered:
            signal.signal(number, signal.SIG_DFL)
