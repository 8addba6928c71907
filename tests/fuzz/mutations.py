"""Bytes and documents as an accident or an attacker would change them."""

from __future__ import annotations

import os
import struct

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = "HASHROBUST_FUZZ_EXAMPLES"
TELLING = [0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]


def examples(usual: int) -> settings:
    """Settings of a fuzz test: `usual` inputs, or as many as the environment variable says."""
    return settings(
        max_examples=int(os.environ.get(EXAMPLES, usual)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def _places(length: int) -> st.SearchStrategy[int]:
    """Headers are short and stand at the beginning; trailers at the end."""
    return st.one_of(
        st.integers(0, min(length, 64)), st.integers(0, length), st.integers(max(0, length - 64), length)
    )


@st.composite
def mutated(draw: st.DrawFn, content: bytes, most: int = 4) -> bytes:
    """Other bytes: some turned, cut off, put in, or overwritten by a number that lengths and positions dread."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        place = draw(_places(len(changed)))
        match draw(st.sampled_from(["turn", "number", "number", "cut", "insert", "remove"])):
            case "turn" if place < len(changed):
                changed[place] ^= draw(st.integers(1, 255))
            case "number":
                form = draw(st.sampled_from(["<B", "<I", "<Q", ">I"]))
                size = struct.calcsize(form)
                value = draw(st.sampled_from(TELLING)) % 2 ** (8 * size)
                changed[place : place + size] = struct.pack(form, value)
            case "cut":
                del changed[place:]
            case "insert":
                changed[place:place] = draw(st.binary(min_size=1, max_size=16))
            case "remove":
                del changed[place : place + draw(st.integers(1, 16))]
    return bytes(changed)
