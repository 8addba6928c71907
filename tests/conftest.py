"""Commands in processes of their own, forked from one that has imported everything: see zygote.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Process:
    """One command on its way."""

    def __init__(self, zygote: Zygote, pid: int, said: Path) -> None:
        self._zygote, self.pid, self._said = zygote, pid, said

    @property
    def said(self) -> str:
        """What it wrote to stderr so far."""
        return self._said.read_text()

    def wait(self, seconds: float = 300) -> int | None:
        """Its exit code, minus a signal's number if one killed it; None if it still runs after so long."""
        return self._zygote.ask({"wait": self.pid, "seconds": seconds})

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; it may have ended already, unwaited for."""
        os.kill(self.pid, number)


class Zygote:
    """Starts commands by forking: see zygote.py."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        words = [sys.executable, str(Path(__file__).with_name("zygote.py"))]
        # Without PATH there is no git, whose answer may change while tests run.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": "", "MPLBACKEND": "Agg"}
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def ask(self, job: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *words: object, **job: Any) -> Process:
        """Start a command; `script`, `environment`, `fault`, `file_size`, `durable` and `forking` as in zygote.py."""
        self._count += 1
        said = self._folder / f"{self._count}.txt"
        said.touch()
        pid = self.ask({"words": [str(word) for word in words], "said": str(said), **job})
        return Process(self, pid, said)

    def run(self, *words: object, **job: Any) -> tuple[int | None, str]:
        """Run a command to its end: its exit code, and what it said."""
        process = self.start(*words, **job)
        return process.wait(), process.said

    def finish(self, *words: object, **job: Any) -> None:
        """Run a command that has to succeed."""
        code, said = self.run(*words, **job)
        assert code == 0, (words, code, said)

    def changes(self, below: Path, *words: object, what: str = "") -> int:
        """How often a command that has to succeed changes something below a folder."""
        report = self._folder / "changes.txt"
        code, said = self.run(*words, fault={"below": str(below), "what": what, "report": str(report)})
        assert code == 0, (words, code, said)
        return int(report.read_text())

    def stop(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session", autouse=True)
def _unwaited_disk() -> Iterator[None]:
    """Files need not outlive a loss of power, of which only tests/steadiness/test_full_disks.py knows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    found = Zygote(tmp_path_factory.mktemp("said"))
    yield found
    found.stop()
