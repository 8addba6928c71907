"""Memory that is freed stays with the process, where the system's C library can be told so."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRIAL = """
import resource, sys
import torch
from hashrobust._memory import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
# Above 32 MiB, the most that glibc's own threshold adapts to: smaller blocks it may keep by itself.
def use():
    torch.ones(16_000_000)
for _ in range(10):
    use()
before = faults()
for _ in range(5):
    use()
print(int(kept), faults() - before)
"""


def tried(mode: str) -> tuple[bool, int]:
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, mode], capture_output=True, text=True, check=True, timeout=120
    )
    kept, faults = done.stdout.split()
    return kept == "1", int(faults)


def test_blocks_that_were_freed_serve_again():
    kept, faults = tried("keep")
    if not kept:
        # musl and macOS have no `mallopt`; the command goes on without, so that nothing is left to test.
        pytest.skip("this C library cannot be told what to do with freed memory")
    _, otherwise = tried("plain")
    assert faults < otherwise / 10
