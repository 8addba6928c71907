"""A worker process that may die of its job, and says so when it does."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 900
"""No job may wait longer, for nothing; how long one may work, the worker says."""


class Worker:
    """Runs jobs of jobs.py in another process, with bounds on memory and time; started anew after a death."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, job: str, *arguments: object) -> dict[str, Any]:
        """The job's value, or its refusal.

        Any other end - an exception, a crash, too much time or memory - fails the test.
        """
        found = self._ask({"job": job, "arguments": [str(argument) for argument in arguments]})
        assert "error" not in found, found["traceback"]
        return found

    def command(self, *words: object, codes: Collection[int] = (0, 1, 2)) -> str:
        """Run a command line and return what it wrote to stderr.

        Fails if it ends by another code, or badly without one sentence that begins with `error:`.
        """
        return self.check(self("command", *words)["value"], codes)

    @staticmethod
    def check(found: dict[str, Any], codes: Collection[int] = (0, 1, 2)) -> str:
        """See `command`, of one that was run."""
        code, said = found["code"], found["err"]
        assert code in codes, found
        assert code == 0 or said.startswith("error: ") or "\nerror: " in said, found
        assert "Traceback" not in said, said
        return str(said)

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], SECONDS)
        line = process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            raise AssertionError(f"{'died' if ready else 'hung'} ({process.returncode}) of {job}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        words = [sys.executable, str(Path(__file__).with_name("worker.py"))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    found = Worker()
    yield found
    found.stop()
