"""Disks that are full, read-only or over quota: one clear sentence, what was there stays, and afterwards all goes on.
So it does on disks whose power fails.

Injected at each kind of change of a file, and real: small and read-only tmpfs, a limit on the size of files, and file
systems that are shut down without their journal, as a loss of power leaves them. HASHROBUST_MOMENTS=50 tries so many
places of each kind, see docs/reliability.md.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hashrobust.experiments.verification import verify

MOMENTS = int(os.environ.get("HASHROBUST_MOMENTS", "1"))
SEED = int(os.environ.get("HASHROBUST_SEED", "0"))
CAMPAIGN = "HASHROBUST_MOMENTS" in os.environ
TASKS = ["finetune", "index"]
if CAMPAIGN:
    TASKS = [
        "finetune",
        "index",
        "evaluate",
        "attack with a picture",
        "audit beside its twin",
        "study",
        "report",
    ]
    TASKS += ["page"]
LISTS = "checksums.json"
FOR_WORDS = 1000
"""Bytes that the file may have to which a command's own words go."""
SHUT_DOWN, WITHOUT_JOURNAL = 0x8004587D, struct.pack("I", 2)
"""FS_IOC_SHUTDOWN of Linux, and how."""
JOURNALED = {"ext4": "noauto_da_alloc,commit=1", "xfs": "defaults"}
"""File systems, and how they are mounted: ext4 so that it writes the journal often, and contents as late as it may."""


def check_failure(code: int | None, said: str, task: Any, results: Path) -> None:
    """Exit code 1, one sentence, nothing lost."""
    assert code == 1, (code, said)
    assert "Traceback" not in said and ".tmp-" not in said, said
    if task.words[0] != "study":  # which tells what failed of its parts in a table
        assert said.count("\n") == 1 and said.startswith("error: "), said
        assert any(word in said for word in ("room", "disk", "permission")), said
    check_kept(task, results)


def check_kept(task: Any, results: Path) -> None:
    assert not any(results.rglob(LISTS)) or verify(results).wrong == 0
    for path in [] if task.before is None else task.before.rglob("*"):
        if path.is_file() and path.name not in (LISTS, "timing.json", ".lock"):
            assert (results / path.relative_to(task.before)).read_bytes() == path.read_bytes()


def check_goes_on(zygote: Any, task: Any, results: Path, contents: Any) -> None:
    """With room, the same command ends in the same files."""
    zygote.finish(*task.said_for(results))
    found, wanted = contents(results), contents(task.after)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    state = verify(results)
    assert state.wrong == 0 and state.unsealed == []


@pytest.mark.parametrize("name", TASKS)
def test_any_change_may_fail(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Path, name: str
) -> None:
    task = tasks(name)
    draw = random.Random(f"{SEED} {name}")
    for _ in range(MOMENTS):
        at, what = draw.randint(1, task.changes), draw.choice(["ENOSPC", "EDQUOT", "EROFS"])
        once = what != "EROFS" and draw.random() < 0.3
        results = task.begin(tmp_path)
        fault = {"below": str(results), "at": at, "what": what, "once": once}
        code, said = zygote.run(*task.said_for(results), fault=fault)
        where = (at, what, once, said)
        if code == 0:  # what failed was not needed, or there were fewer changes of this kind
            check_kept(task, results)
        else:
            check_failure(code, said, task, results)
            assert what == "EROFS" or not list(results.rglob(".*tmp*")), where
        check_goes_on(zygote, task, results, contents)
        shutil.rmtree(results)


@pytest.mark.parametrize("name", TASKS)
def test_no_file_may_grow_beyond_a_size(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Path, name: str
) -> None:
    """Writes themselves fail, whatever library makes them."""
    task = tasks(name)
    sizes = sorted({path.stat().st_size for path in task.after.rglob("*") if path.is_file()})
    draw = random.Random(f"{SEED} {name}")
    for _ in range(MOMENTS):
        most = draw.randint(0, draw.choice(sizes))
        results = task.begin(tmp_path)
        code, said = zygote.run(*task.said_for(results), file_size=FOR_WORDS + most)
        if code:
            check_failure(code, said, task, results)
        assert not list(results.rglob(".*tmp*")), said
        check_goes_on(zygote, task, results, contents)
        shutil.rmtree(results)


def order(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


@contextmanager
def small_disk(place: Path) -> Iterator[Callable[[str], None]]:
    """A tmpfs on a folder, and how to change its options."""
    place.mkdir()
    try:
        order("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place)
    except (OSError, subprocess.CalledProcessError) as error:
        # Only root mounts; the injected faults and the limit on sizes below are tried everywhere.
        pytest.skip(f"no tmpfs can be mounted here ({error})")
    try:
        yield lambda options: order("mount", "-o", f"remount,{options}", place)
    finally:
        order("umount", place)


@pytest.mark.parametrize("name", TASKS)
def test_disks_that_are_full(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Path, name: str
) -> None:
    task = tasks(name)
    draw = random.Random(f"{SEED} {name}")
    for number in range(MOMENTS):
        with small_disk(tmp_path / str(number)) as remount:
            place = tmp_path / str(number)
            results = task.begin(place)
            pages = os.statvfs(place)
            used = pages.f_blocks - pages.f_bfree
            needed = sum(-(-path.stat().st_size // 4096) for path in task.after.rglob("*") if path.is_file())
            remount(f"size={4096 * (used + draw.randint(0, max(1, needed - used)))}")
            code, said = zygote.run(*task.said_for(results))
            if code:
                check_failure(code, said, task, results)
            assert not list(results.rglob(".*tmp*")), said
            remount("size=64m")
            check_goes_on(zygote, task, results, contents)


@pytest.mark.parametrize("name", TASKS)
def test_disks_that_are_read_only(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Path, name: str
) -> None:
    task = tasks(name)
    with small_disk(tmp_path / "disk") as remount:
        results = task.begin(tmp_path / "disk")
        remount("ro")
        code, said = zygote.run(*task.said_for(results))
        remount("rw")
        check_failure(code, said, task, results)
        before = set() if task.before is None else {path.name for path in task.before.rglob("*")}
        assert {path.name for path in results.rglob("*")} == before
        check_goes_on(zygote, task, results, contents)


def test_a_disk_that_is_full_for_a_moment_is_no_verdict_on_a_model(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Path
) -> None:
    """An audit tells what its attacks failed of, but a disk is no property of the model."""
    task = tasks("audit")
    results = task.begin(tmp_path)
    (run,) = results.glob("*-brsf-*")
    fault = {"below": str(run / "attacks"), "at": 5, "what": "ENOSPC", "once": True}
    code, said = zygote.run(*task.said_for(results), fault=fault)
    check_failure(code, said, task, results)
    assert list(results.glob("*/attacks/*")) != []
    check_goes_on(zygote, task, results, contents)


@contextmanager
def failing_disk(kind: str, place: Path) -> Iterator[tuple[Path, Callable[[Any], None]]]:
    """A folder on a disk of its own, and what to call for its power to fail, and to come back, under a process."""
    image, folder = place / "disk.img", place / "disk"
    folder.mkdir(parents=True)
    image.touch()
    os.truncate(image, 320 << 20)
    how = ("-o", f"loop,{JOURNALED[kind]}", image, folder)
    try:
        order(f"mkfs.{kind}", "-q", image)
        order("mount", *how)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no {kind} can be made and mounted here ({error})")

    def power_fails(process: Any) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.ioctl(descriptor, SHUT_DOWN, WITHOUT_JOURNAL)
        os.close(descriptor)
        process.send_signal(signal.SIGKILL)
        process.wait()
        order("umount", folder)
        order("mount", *how)

    try:
        yield folder, power_fails
    finally:
        order("umount", folder)
        image.unlink()


@pytest.mark.parametrize("kind", JOURNALED if CAMPAIGN else ["ext4"])
@pytest.mark.parametrize("name", TASKS if CAMPAIGN else TASKS[:1])
def test_disks_whose_power_fails(
    zygote: Any, tasks: Callable[[str], Any], contents: Any, tmp_path: Path, kind: str, name: str
) -> None:
    task = tasks(name)
    draw = random.Random(f"{SEED} {name} {kind}")
    for number in range(MOMENTS):
        with failing_disk(kind, tmp_path / str(number)) as (place, power_fails):
            results = task.begin(place)
            os.sync()
            process = zygote.start(*task.said_for(results), durable=True)
            time.sleep(draw.uniform(0, 1.5 * task.seconds))
            power_fails(process)
            check_kept(task, results)
            check_goes_on(zygote, task, results, contents)
