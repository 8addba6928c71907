"""Cells on this machine: in this process, or in several of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from hashrobust._memory import keep_freed_memory
from hashrobust.experiments.study.cells import Failure, Outcome, Place, run_cell
from hashrobust.experiments.study.plan import Cell
from hashrobust.registry import load_plugin

Job = tuple[Cell, tuple[str, ...]]
"""A cell, and the names of the runs that it needs."""


class Executor(Protocol):
    """Who does cells, in the order given as far as that is possible."""

    def submit(self, cell: Cell, runs: Sequence[str]) -> None:
        """Take on a cell whose needs are met."""

    def next(self) -> tuple[str, Outcome]:
        """Wait until a cell ends; its key and what became of it."""

    def close(self) -> None:
        """Let go of all that runs: what is half done is taken up by the next study."""


class InProcess:
    """One cell after the other, in this process."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._jobs: deque[Job] = deque()

    def submit(self, cell: Cell, runs: Sequence[str]) -> None:
        """See `Executor`."""
        self._jobs.append((cell, tuple(runs)))

    def next(self) -> tuple[str, Outcome]:
        """See `Executor`."""
        cell, runs = self._jobs.popleft()
        return cell.key, run_cell(cell, runs, self._place)

    def close(self) -> None:
        """See `Executor`."""
        self._jobs.clear()


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job


class Processes:
    """So many cells at once, each in a process of its own that starts afresh (spawned, not forked).

    A cell whose process dies is tried once more. The processes end with this one, however it ends.
    """

    def __init__(self, place: Place, jobs: int) -> None:
        self._place, self._jobs = place, jobs
        self._context = multiprocessing.get_context("spawn")
        self._waiting: deque[Job] = deque()
        self._idle: list[tuple[BaseProcess, Connection]] = []
        self._busy: list[_Worker] = []
        self._died: set[str] = set()

    def submit(self, cell: Cell, runs: Sequence[str]) -> None:
        """See `Executor`."""
        self._waiting.append((cell, tuple(runs)))

    def next(self) -> tuple[str, Outcome]:
        """See `Executor`."""
        while True:
            while self._waiting and len(self._busy) < self._jobs:
                self._start(self._waiting.popleft())
            ready = wait([worker.pipe for worker in self._busy])
            worker = next(worker for worker in self._busy if worker.pipe in ready)
            self._busy.remove(worker)
            cell = worker.job[0]
            try:
                outcome: Outcome = worker.pipe.recv()
            except (EOFError, ConnectionError):
                worker.process.join()
                worker.pipe.close()
                if cell.key in self._died:
                    return cell.key, Outcome(failures=(_death(cell, worker.process.exitcode),))
                self._died.add(cell.key)
                self._waiting.appendleft(worker.job)
                continue
            self._idle.append((worker.process, worker.pipe))
            return cell.key, outcome

    def _start(self, job: Job) -> None:
        """Give the job to a process that is free, or to a new one."""
        while self._idle:
            process, pipe = self._idle.pop()
            try:
                pipe.send(job)
            except (BrokenPipeError, ConnectionError):  # it died while it had nothing to do
                pipe.close()
                continue
            self._busy.append(_Worker(process, pipe, job))
            return
        pipe, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._place), daemon=True)
        with deaf_to_ctrl_c():
            process.start()
        theirs.close()
        with suppress(BrokenPipeError, ConnectionError):  # it died at once, as `next` will see
            pipe.send(job)
        self._busy.append(_Worker(process, pipe, job))

    def close(self) -> None:
        """See `Executor`."""
        everyone = [*self._idle, *((worker.process, worker.pipe) for worker in self._busy)]
        for process, _ in everyone:
            process.kill()
        for process, pipe in everyone:
            process.join()
            pipe.close()
        self._idle, self._busy = [], []


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started within never hear Ctrl-C, which reaches all of a terminal's, those too that are only
    importing; the study tells them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(cell: Cell, code: int | None) -> Failure:
    killed = code is not None and code < 0
    how = f"by signal {signal.Signals(-(code or 0)).name}" if killed else f"with exit code {code}"
    return Failure(
        cell.label, f"its process died twice, {how}: look for a lack of memory, or use fewer --jobs"
    )


def _serve(pipe: Connection, place: Place) -> None:
    """A worker's life: cells in, outcomes out."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    for plugin in place.plugins:
        load_plugin(plugin)
    while True:
        try:
            cell, runs = pipe.recv()
        except (EOFError, ConnectionError):
            return
        pipe.send(run_cell(cell, runs, place))


def _end_with_parent() -> None:
    """Leave when the study is gone, lest an orphan works on beside the next one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
