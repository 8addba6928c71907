"""What a result depends on besides its configuration: versions, commit, device, threads, data."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import hashrobust
from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.store import Folder
from hashrobust.training import parallel

ENVIRONMENT = "environment.json"
PACKAGES = (
    "hashrobust",
    "torch",
    "torchvision",
    "timm",
    "faiss-cpu",
    "numpy",
    "numba",
    "pandas",
    "scikit-learn",
    "pillow",
)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where present, else Apple's MPS, else the CPU; other names are torch's own.

    Of several processes that train together each gets the GPU of its number, for `auto` and `cuda`, or the CPU.

    Raises:
        InputError: no such device on this machine.
    """
    if parallel.size() > 1:
        name = _shared_device(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device '{name}' is not there: use auto or cpu") from error
    return device


def _shared_device(name: str) -> str:
    """The device of one of several processes: each takes a GPU of its own where there are any."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is one for all processes of torchrun: use auto, cpu or cuda")
    if name == "cpu":
        return name
    if parallel.local_rank() >= torch.cuda.device_count():
        raise InputError(
            f"torchrun started more processes than there are GPUs here, {torch.cuda.device_count()}: "
            "start one for each, or use --device cpu"
        )
    return f"cuda:{parallel.local_rank()}"


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Let torch use this many threads within the block (None: as it is)."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def git_commit() -> str | None:
    """The commit of the checkout that the package runs from (with `-dirty`), None outside of one."""
    root = Path(hashrobust.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def record_environment(folder: Folder, *, device: torch.device, fingerprint: str) -> None:
    """Write `environment.json`, once; who goes on with the folder elsewhere, or with other versions, is added to it.

    Raises:
        StoreError: the folder was begun with other data under the same name.
    """
    content: dict[str, Any] = {
        "versions": versions(),
        "git_commit": git_commit(),
        "machine": platform.machine(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "data_fingerprint": fingerprint,
    }
    if parallel.size() > 1:
        content["processes"] = parallel.size()
    if not folder.has(ENVIRONMENT):
        folder.write_json(ENVIRONMENT, content)
        return
    check_fingerprint(folder, fingerprint)
    first = folder.read_json(ENVIRONMENT, made_by=folder.command)
    later = first.pop("resumed_in", [])
    if content not in (first, *later):
        folder.write_json(ENVIRONMENT, {**first, "resumed_in": [*later, content]})


def check_fingerprint(folder: Folder, fingerprint: str) -> None:
    """Refuse data that are not those that a folder was made with.

    Raises:
        StoreError: they differ.
    """
    stored = folder.read_json(ENVIRONMENT, made_by=folder.command)["data_fingerprint"]
    if stored != fingerprint:
        raise StoreError(
            f"run '{folder.path}' was made with other data ({stored}, now {fingerprint}): "
            "restore the data, or make the run again with --overwrite"
        )
