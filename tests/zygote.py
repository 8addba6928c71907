"""Commands of hashrobust, each in a process that is forked from one that has imported everything, so that hundreds can
be killed in minutes: imports take seconds of the processor. Jobs come as JSON lines, answers go back likewise.

python zygote.py    # started by conftest.py
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import resource
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

MODULES = (
    "hashrobust.experiments.audit",
    "hashrobust.experiments.study",
    "hashrobust.experiments.verification",
)
MODULES += ("hashrobust.reports.page", "hashrobust.reports.write", "hashrobust.reports.audit_screen")
MODULES += ("torchvision", "sklearn.datasets", "matplotlib.pyplot", "pyarrow.parquet")
REGISTRIES = [
    f"hashrobust.{name}.{name}" for name in ("rules", "objectives", "rotations", "backbones", "datasets")
]
REGISTRIES += ["hashrobust.attacks.attacks", "hashrobust.training.defences.defences"]
CHANGES = {"os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.chmod": 1, "os.truncate": 1}
"""Audit events that change files, and how many of their arguments are paths."""
MAKING = ("open", "os.rename", "os.mkdir")
"""Those that need room."""


class Fault:
    """Counts what a process changes below a folder, and goes wrong at one of those changes.

    `at` is the number of the change, 0 for none; `what` a signal's name, sent to the process instead of that change,
    or the name of an error number, with which that change fails and all after it (`once`: it alone). `report` gets
    the number of changes when the process ends well.
    """

    def __init__(self, below: str, at: int = 0, what: str = "", report: str = "", once: bool = False) -> None:
        self.below, self.at, self.what, self.report, self.once = below, at, what, report, once
        self.count = 0
        self.process = os.getpid()
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._counts(event, arguments) or os.getpid() != self.process:
            return
        needs_room = event in MAKING
        errors = getattr(importlib.import_module("errno"), self.what, None)
        if errors is not None and self.what != "EROFS" and not needs_room:
            return  # a full disk still lets files go
        self.count += 1
        if not self.at or self.count < self.at:
            return
        if errors is not None and not (self.once and self.count > self.at):
            raise OSError(errors, os.strerror(errors), str(arguments[0]))
        if errors is None and self.count == self.at:
            signal.raise_signal(getattr(signal, self.what))

    def _counts(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            changing = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            return bool(changing) and self._is_below(path)
        if event not in CHANGES:
            return False
        # `rmtree` names what it removes relative to a folder that it holds open.
        relative = event in ("os.remove", "os.rmdir") and arguments[-1] not in (-1, None)
        return relative or any(self._is_below(path) for path in arguments[: CHANGES[event]])

    def _is_below(self, path: object) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.below)


def work(job: dict[str, Any]) -> None:
    """In the forked process: the command, or the Python of `script` with these words, to its end.

    `environment` holds variables that it has besides; `file_size` is the most bytes that a file of it may have, `fault`
    the arguments of a `Fault`. It waits for the disk only if it is to be `durable`. With `forking`, processes that it
    starts are forked from it, where they would take seconds to begin.
    """
    said = os.open(job["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor, target in ((nothing, 0), (nothing, 1), (said, 2)):
        os.dup2(descriptor, target)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not job.get("durable"):
        os.fsync = lambda descriptor: None  # type: ignore[assignment]
    if job.get("file_size"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"], resource.RLIM_INFINITY))
    if job.get("forking"):
        forked = multiprocessing.get_context("fork")
        multiprocessing.get_context = lambda method=None: forked  # type: ignore[assignment]
    fault = Fault(**job["fault"]) if job.get("fault") else None
    os.environ.update(job.get("environment", {}))
    sys.argv = [job.get("script", "hashrobust"), *job["words"]]
    try:
        if "script" in job:
            runpy.run_path(job["script"], run_name="__main__")
        else:
            importlib.import_module("hashrobust.cli").main()
    finally:
        if job.get("file_size"):  # where coverage is measured, it writes its own files now
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if fault is not None and fault.report:
            counted = fault.count
            fault.below = "\0"
            Path(fault.report).write_text(str(counted))


def ended(pid: int, seconds: float) -> int | None:
    """The exit code of a process, minus a signal's number if one killed it; None if it still runs."""
    limit = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > limit:
            return None
        time.sleep(0.002)


def serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the tests' terminal: the tests end this process
    for name in MODULES:
        importlib.import_module(name)
    for name in REGISTRIES:
        package, _, registry = name.rpartition(".")
        list(getattr(importlib.import_module(package), registry))  # imports all that register themselves
    importlib.import_module("typer.main").get_command(importlib.import_module("hashrobust.cli").app)
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            print(json.dumps(ended(job["wait"], job["seconds"])), file=answers, flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            answers.close()
            work(job)
            return
        print(json.dumps(pid), file=answers, flush=True)


if __name__ == "__main__":
    serve()
