"""Cells on a Dask cluster: a real scheduler and real workers on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hashrobust.errors import InputError
from hashrobust.experiments.study import cluster, plan_study, run_study

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="the extra distributed is not installed"
)

Contents = Callable[[Path], dict[str, bytes]]


class Dask:
    """A scheduler and its workers as processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        place = folder / "scheduler.json"
        self._start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(place))
        self.address = str(
            _soon(lambda: place.exists() and json.loads(place.read_text() or "{}").get("address"))
        )

    def worker(self, *options: str, preload: str = "") -> subprocess.Popen[bytes]:
        """One more worker; `preload` is Python that it runs first."""
        words = ["--no-nanny", "--local-directory", str(self.folder), "--host", "127.0.0.1", *options]
        if preload:
            file = self.folder / f"preload{len(self.processes)}.py"
            file.write_text(preload)
            words += ["--preload", str(file)]
        return self._start("dask_worker", self.address, *words)

    def wait(self, count: int) -> None:
        """Until so many workers have come."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=120)

    def _start(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--no-dashboard", *words]
        log = (self.folder / f"{module}-{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(command, env=dict(os.environ), stdout=log, stderr=log)
        log.close()
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def _soon(condition: Callable[[], object]) -> object:
    limit = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < limit
        time.sleep(0.002)
    return found


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    folder = tmp_path / "dask"
    folder.mkdir()
    started = Dask(folder)
    yield started
    started.close()


def test_a_worker_killed_in_the_middle_of_a_cell_changes_nothing(
    study: Callable[..., Path], tmp_path: Path, dask: Dask, undisturbed: Path, contents: Contents
) -> None:
    results = tmp_path / "results"
    workers = [dask.worker("--nthreads", "1") for _ in range(2)]
    dask.wait(2)
    killed: list[int] = []

    def kill() -> None:
        """The worker that holds the run which has just finished an epoch."""
        (path,) = _soon(lambda: list(results.glob("*frsf*/checkpoints/epoch-001.safetensors")))  # type: ignore[misc]
        lock = path.parents[1] / ".lock"
        for worker in workers:
            if any(file.samefile(lock) for file in _open_files(worker.pid)):
                worker.kill()
                killed.append(worker.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    result = run_study(plan_study(study(), results), scheduler=dask.address)
    killer.join(timeout=60)
    assert len(killed) == 1
    assert result.failures == []
    found, wanted = contents(results), contents(undisturbed)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


def _open_files(pid: int) -> list[Path]:
    files = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = link.readlink()
        except FileNotFoundError:
            continue
        if target.is_file():
            files.append(target)
    return files


VERSION = "import hashrobust.experiments.environment as e\ne.git_commit = lambda: 'cafe'\n"


@pytest.mark.parametrize(
    ("options", "preload", "words"),
    [
        (["--nthreads", "1"], VERSION, "has commit cafe, here it is"),
        (["--nthreads", "2"], "", "has 2 threads, and cells cannot share a process"),
        (["--nthreads", "1"], "import sys\nsys.modules['hashrobust'] = None\n", "cannot use hashrobust"),
    ],
)
def test_a_worker_that_would_make_something_else_is_refused(
    study: Callable[..., Path], tmp_path: Path, dask: Dask, options: list[str], preload: str, words: str
) -> None:
    dask.worker(*options, preload=preload)
    dask.wait(1)
    results = tmp_path / "results"
    with pytest.raises(InputError, match=words):
        run_study(plan_study(study(), results), scheduler=dask.address)
    assert not list(results.glob("digits-*"))


def test_a_scheduler_without_workers_is_refused(
    study: Callable[..., Path], tmp_path: Path, dask: Dask
) -> None:
    with pytest.raises(InputError, match="has no worker: start some with `dask worker"):
        run_study(plan_study(study(), tmp_path / "results"), scheduler=dask.address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x", "127.0.0.1:notaport"])
def test_a_scheduler_that_cannot_be_reached(
    study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 1.0)
    with pytest.raises(InputError, match=f"scheduler '{address}' cannot be reached"):
        run_study(plan_study(study(), tmp_path / "results"), scheduler=address)


def test_the_extra_is_named_where_it_is_missing(
    study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'hashrobust\[distributed\]'"):
        run_study(plan_study(study(), tmp_path / "results"), scheduler="tcp://127.0.0.1:1")
