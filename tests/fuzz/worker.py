"""A process of its own for what may crash, hang or fill the memory: jobs come as JSON lines, outcomes go back.

python worker.py    # started by conftest.py
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

MEGABYTES = 1024
"""What one job may take beyond what the process has when the job comes."""
SECONDS = 60
"""Longer than any job takes; the process ends when they are over."""


def outcome(job: dict[str, Any]) -> dict[str, Any]:
    """What a job of jobs.py gives: its value, a refusal, or the error that should not have come up."""
    from hashrobust.errors import HashRobustError

    try:
        return {"value": JOBS[job["job"]](*job["arguments"])}
    except HashRobustError as error:
        return {"refused": str(error), "code": error.exit_code}
    except OSError as error:  # the command line says these in a sentence of its own
        return {"refused": str(error), "code": 2}
    except Exception as error:
        import traceback

        return {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEGABYTES * 2**20, most))


def serve(answers: TextIO) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        limit_memory()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor: other work may run beside the tests
        with contextlib.redirect_stdout(io.StringIO()):
            found = outcome(json.loads(line))
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def load_jobs() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("jobs", Path(__file__).with_name("jobs.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.JOBS
    return found


if __name__ == "__main__":
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    JOBS = load_jobs()
    serve(answers)
