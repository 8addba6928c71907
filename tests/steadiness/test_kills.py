"""SIGKILL, Ctrl-C and SIGTERM at any moment: the same command again ends in the files of one that nobody disturbed.

The moments are drawn by a seed. HASHROBUST_MOMENTS=50 tries so many of each kind, see docs/reliability.md.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hashrobust.experiments.checkpoints import STATE
from hashrobust.experiments.store import list_runs
from hashrobust.experiments.verification import verify

MOMENTS = int(os.environ.get("HASHROBUST_MOMENTS", "5"))
SEED = int(os.environ.get("HASHROBUST_SEED", "0"))
CAMPAIGN = "HASHROBUST_MOMENTS" in os.environ
TASKS = ["finetune", "index", "attack", "audit", "study"]
if CAMPAIGN:
    TASKS = ["finetune", "index", "attack with a picture", "audit beside its twin", "study"]
SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(scope="module")
def met() -> Iterator[list[str]]:
    """What the signals met, told at the end (pytest -s)."""
    found: list[str] = []
    yield found
    counts = {what: found.count(what) for what in sorted(set(found))}
    print(f"\n{counts}")


def fresh(words: tuple[object, ...]) -> subprocess.Popen[str]:
    """A command in an interpreter of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": "", "MPLBACKEND": "Agg"}
    command = [sys.executable, "-m", "hashrobust", *(str(word) for word in words)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Shells let commands in the background ignore Ctrl-C, and these would inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def equal(found: dict[str, str], wanted: dict[str, str]) -> bool:
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    return True


def sound(results: Path) -> bool:
    """Whether nothing in a results folder contradicts its checksums, so far as it holds anything."""
    return not any(results.rglob("checksums.json")) or verify(results).wrong == 0


def whole(results: Path) -> bool:
    found = verify(results)
    return found.wrong == 0 and found.unsealed == []


@pytest.mark.parametrize("number", range(MOMENTS))
def test_killed_at_a_random_moment(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Path, met: list[str], number: int
) -> None:
    """Once or several times in a row, in the midst of work or, in interpreters of their own, of importing."""
    task = tasks(TASKS[number % len(TASKS)])
    draw = random.Random(f"{SEED} {number}")
    results = task.begin(tmp_path)
    words = task.said_for(results)
    for _ in range(draw.choice([1, 1, 2, 3]) if CAMPAIGN else 1):
        alone = number % 7 == 6
        process = fresh(words) if alone else zygote.start(*words)
        time.sleep(draw.uniform(0, task.seconds + 10 * alone))
        process.send_signal(signal.SIGKILL)
        code = process.wait(300)
        assert code in (0, -signal.SIGKILL)
        met.append(f"{'killed' if code else 'ended before'}{', its own interpreter' * alone}")
        assert sound(results)
    zygote.finish(*words)
    assert equal(contents(results), contents(task.after)) and whole(results)


@pytest.mark.parametrize("number", range(MOMENTS if CAMPAIGN else 2))
def test_interrupted_at_a_random_moment(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Path, met: list[str], number: int
) -> None:
    """Ctrl-C and SIGTERM: exit code 130 and one sentence, whatever the command is at."""
    task = tasks(TASKS[(number // 2) % len(TASKS)])
    draw = random.Random(f"{SEED} signal {number}")
    results = task.begin(tmp_path)
    words = task.said_for(results)
    alone = number % 7 == 6
    process = fresh(words) if alone else zygote.start(*words)
    time.sleep(draw.uniform(0, task.seconds + 10 * alone))
    wanted, sent = SIGNALS[number % 2], time.monotonic()
    process.send_signal(wanted)
    code = process.wait(300)
    seconds = 1 + int(time.monotonic() - sent)
    # Python that is only starting has no handler yet, and nothing begun either.
    assert code in (0, 130, -wanted)
    met += [f"{wanted.name}: code {code}{', its own interpreter' * alone}", f"ended within {seconds} s"]
    if code == 130:
        said = process.stderr.read() if alone else process.said
        assert said.endswith("the same command again goes on from there\n")
        assert "Traceback" not in said
        assert not list(results.rglob(".tmp*"))
    assert sound(results)
    zygote.finish(*words)
    assert equal(contents(results), contents(task.after)) and whole(results)


@pytest.mark.parametrize("name", TASKS if CAMPAIGN else TASKS[:1])
@pytest.mark.parametrize("kill", [True, False])
def test_stopped_before_any_change_of_a_file(
    zygote: Any,
    tasks: Callable[[str], Any],
    contents: Any,
    tmp_path: Path,
    met: list[str],
    name: str,
    kill: bool,
) -> None:
    """Killed or interrupted between any two changes, and not only where a moment happens to fall."""
    task = tasks(name)
    draw = random.Random(f"{SEED} {name} {kill}")
    every = range(1, task.changes + 1)
    for at in sorted(draw.sample(every, min(task.changes, MOMENTS if CAMPAIGN else 1))):
        results = task.begin(tmp_path / str(at))
        what = "SIGKILL" if kill else draw.choice(SIGNALS).name
        fault = {"below": str(results), "at": at, "what": what}
        code, said = zygote.run(*task.said_for(results), fault=fault)
        assert code == (-signal.SIGKILL if kill else 130), (at, code, said)
        assert kill or said.endswith("the same command again goes on from there\n"), (at, said)
        assert "Traceback" not in said, (at, said)
        met.append(f"{what} before a change")
        assert sound(results), at
        zygote.finish(*task.said_for(results))
        assert equal(contents(results), contents(task.after)) and whole(results), at
        shutil.rmtree(results)


def test_a_last_state_that_a_kill_left_unlisted_is_listed_in_the_end(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Path
) -> None:
    """Killed between the last epoch's state and its checksum: no later epoch writes it again."""
    task = tasks("finetune")
    results = Path(shutil.copytree(task.after, tmp_path / "results"))
    (run,) = list_runs(results)
    later = ("feedback.safetensors", "history.csv", "alignment.csv", "model.safetensors")
    run.unseal(STATE, *later)
    for name in later:
        (run.path / name).unlink()
    zygote.finish(*task.said_for(results))
    assert equal(contents(results), contents(task.after)) and whole(results)
