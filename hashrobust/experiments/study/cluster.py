"""Cells on a Dask cluster (the extra `distributed`): the same cells, on machines that share the results folder."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hashrobust._memory import keep_freed_memory
from hashrobust.errors import InputError
from hashrobust.experiments.environment import git_commit, versions
from hashrobust.experiments.study.cells import Failure, Outcome, Place, run_cell
from hashrobust.experiments.study.plan import Cell
from hashrobust.registry import load_plugin

SECONDS_TO_CONNECT = 10.0
_MUST_AGREE = ("hashrobust", "torch")
_ONE_AT_A_TIME = threading.Lock()


class Cluster:
    """Hands cells to a scheduler; a cell whose worker dies is given to another one by it.

    Raises:
        InputError: the extra is missing, the scheduler does not answer or has no worker, a worker has another
            version or several threads, or does not see the results folder.
    """

    def __init__(self, place: Place, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise InputError(
                "--scheduler needs the extra 'distributed': pip install 'hashrobust[distributed]'"
            ) from None
        self._place = place
        self._client = _connect(distributed.Client, address)
        try:
            _check_workers(self._client, address, place)
        except BaseException:
            self._client.close()
            raise
        self._done: Any = distributed.as_completed(loop=self._client.loop)  # type: ignore[no-untyped-call]
        self._cells: dict[str, Cell] = {}

    def submit(self, cell: Cell, runs: Sequence[str]) -> None:
        """See `Executor`."""
        arguments = (cell, tuple(runs), self._place, _code())
        # The key is new each time: the scheduler must not answer with what an earlier study made of the cell.
        future = self._client.submit(
            _work,
            *arguments,
            key=f"{cell.key}-{secrets.token_hex(4)}",
            priority=-len(self._cells),
            pure=False,
        )
        self._cells[future.key] = cell
        self._done.add(future)

    def next(self) -> tuple[str, Outcome]:
        """See `Executor`."""
        future = next(self._done)
        cell = self._cells[future.key]
        if future.status == "finished":
            return cell.key, future.result()
        why = repr(future.exception()) if future.status == "error" else f"the scheduler says {future.status}"
        return cell.key, Outcome(failures=(Failure(cell.label, f"lost on the cluster: {why}"),))

    def close(self) -> None:
        """See `Executor`; workers go on to the end of what they are at."""
        self._client.cancel(list(self._done.futures))
        self._client.close()


def _work(cell: Cell, runs: Sequence[str], place: Place, code: dict[str, str]) -> Outcome:
    """A cell on a worker, which may have come later than the others and was not checked."""
    if _code() != code:
        return Outcome(
            failures=(Failure(cell.label, f"a worker has {_code()}, this study {code}: update it"),)
        )
    keep_freed_memory()
    with _ONE_AT_A_TIME:
        for plugin in place.plugins:
            load_plugin(plugin)
        return run_cell(cell, runs, place)


def _connect(client: Callable[..., Any], address: str) -> Any:
    try:
        return client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"scheduler '{address}' cannot be reached within {SECONDS_TO_CONNECT:g} s ({error}): start one with "
            "`dask scheduler`, and give the address that it prints"
        ) from error


def _code() -> dict[str, str]:
    """What must be the same wherever cells run."""
    found = versions()
    return {name: found[name] for name in _MUST_AGREE} | {"commit": git_commit() or "none"}


def _check_workers(client: Any, address: str, place: Place) -> None:
    """Refuse workers that would make something else than this process, or leave it elsewhere."""
    threads = {
        name: facts["nthreads"] for name, facts in client.scheduler_info(n_workers=-1)["workers"].items()
    }
    if not threads:
        raise InputError(
            f"scheduler '{address}' has no worker: start some with `dask worker {address} --nthreads 1`"
        )
    for worker, count in threads.items():
        if count != 1:
            raise InputError(
                f"worker '{worker}' has {count} threads, and cells cannot share a process: start it with --nthreads 1"
            )
    own = _code()
    for worker, code in client.run(_code, on_error="return").items():
        if isinstance(code, BaseException):
            raise InputError(f"worker '{worker}' cannot use hashrobust ({code}): install it there")
        for name, value in own.items():
            if code[name] != value:
                raise InputError(
                    f"worker '{worker}' has {name} {code[name]}, here it is {value}: results would not be "
                    "comparable, install the same version"
                )
    token = place.results / ".study" / secrets.token_hex(4)
    token.touch()
    try:
        seen = client.run(Path.exists, token)
    finally:
        token.unlink()
    for worker, sees in seen.items():
        if not sees:
            raise InputError(
                f"worker '{worker}' does not see '{place.results}': give a results folder that all machines share"
            )
