"""Tests run in forked children of a process that has imported torch and its like, but nothing of the package."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import hypothesis
import pytest

OPTIONS = ("-p", "no:cacheprovider", "-p", "no:unraisableexception", "-p", "_hypothesis_pytestplugin")
OPTIONS += ("--hypothesis-profile=mutants",)
MOST_MEMORY = 16 * 2**30  # of addresses, many of which torch never fills
WAITING = 6
"""How long a second of the processor may take: others may be at work."""

hypothesis.settings.register_profile(
    "mutants",
    database=None,
    deadline=None,
    derandomize=True,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    suppress_health_check=list(hypothesis.HealthCheck),
)


def answer_of(work: Callable[[], object], seconds: float) -> Any:
    """What `work` returns in a child; "timeout" after so many seconds of the processor, "died" without an answer."""
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _settle(seconds)
            with os.fdopen(sending, "w") as answers:
                json.dump(work(), answers)
        finally:
            os._exit(0)
    os.close(sending)
    answer, until, late = b"", time.monotonic() + WAITING * seconds, False
    try:
        while not late:
            ready, _, _ = select.select([receiving], [], [], max(0.0, until - time.monotonic()))
            late = not ready
            part = os.read(receiving, 2**16) if ready else b""
            if not part:
                break
            answer += part
    finally:  # whatever it started goes with it, also where someone interrupts
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.close(receiving)
        _, status = os.waitpid(pid, 0)
    if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return "timeout"
    return json.loads(answer) if answer else "died"


def _settle(seconds: float) -> None:
    """Limits of a child, and silence."""
    os.setpgid(0, 0)
    processor = max(1, round(seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (processor, processor + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)


class _Chosen:
    """A plugin: these tests alone, in this order; remembers the first that fails."""

    def __init__(self, names: list[str]) -> None:
        self.order = {name: place for place, name in enumerate(names)}
        self.failed: str | None = None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = (item for item in items if item.nodeid in self.order)
        items[:] = sorted(chosen, key=lambda item: self.order[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid


def first_failure(path: Path, source: str, names: list[str]) -> str:
    """The first of some tests that fails when a module has another source; empty if none does. For a child."""
    plainly = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        return (
            compile(source, str(path), "exec")
            if Path(loader.path).resolve() == path
            else plainly(loader, name)
        )

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    chosen = _Chosen(names)
    files = dict.fromkeys(name.partition("::")[0] for name in names)
    code = pytest.main([*OPTIONS, "-x", *files], plugins=[chosen])
    ended_well = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    return "" if ended_well else chosen.failed or "pytest itself"
