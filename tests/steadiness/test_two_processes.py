"""Several processes on one run folder: each works alone, is refused, or waits, and nothing is made twice or torn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hashrobust.experiments.files import locked
from hashrobust.experiments.verification import verify

WAITING = ("audit",)
"""Commands that wait for the run; the others are refused."""


@pytest.mark.parametrize("name", ["finetune", "index", "evaluate", "attack", "audit"])
def test_a_run_that_another_process_holds(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Any, name: str
) -> None:
    task = tasks(name)
    results = task.begin(tmp_path)
    run = results / next(path.name for path in sorted(task.after.glob("*-brsf-*")))
    before = contents(results)
    with locked(run):
        process = zygote.start(*task.said_for(results))
        code = process.wait(5 if name in WAITING else 120)
        if name in WAITING:
            assert code is None, process.said
        else:
            assert code == 2
            assert process.said.startswith("error: run folder ") and process.said.count("\n") == 1
            assert "is in use by another process: wait for it to end" in process.said
        assert contents(results) == before
    if name in WAITING:
        assert process.wait() == 0, process.said
    else:
        zygote.finish(*task.said_for(results))
    assert contents(results) == contents(task.after)


@pytest.mark.parametrize("name", ["finetune", "attack"])
def test_the_same_command_three_times_at_once(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Any, name: str
) -> None:
    task = tasks(name)
    results = task.begin(tmp_path)
    processes = [zygote.start(*task.said_for(results)) for _ in range(3)]
    codes = [process.wait() for process in processes]
    assert 0 in codes and set(codes) <= {0, 2}, [process.said for process in processes]
    for code, process in zip(codes, processes, strict=True):
        assert code == 0 or "in use" in process.said or "another study" in process.said, process.said
    found, wanted = contents(results), contents(task.after)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    state = verify(results)
    assert state.wrong == 0 and state.unsealed == []
