"""Bytes and documents as an accident or an attacker would change them."""

from __future__ import annotations

import copy
import os
import struct
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = "HASHROBUST_FUZZ_EXAMPLES"
TELLING = [0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]


def examples(usual: int) -> settings:
    """Settings of a fuzz test: `usual` inputs, the same each time, or so many others as the environment says."""
    return settings(
        max_examples=int(os.environ.get(EXAMPLES, usual)),
        derandomize=EXAMPLES not in os.environ,
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


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([*TELLING, -1, -(2**63), 10**30, 10**400]),
    st.floats(),
    st.sampled_from(["", "bp", "<script>", "../..", "/etc/passwd", "\0", "a\nb", "x" * 5000, "[red]"]),
    st.text(max_size=8),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
"""Values that are valid in a document and mean nothing."""


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in a document, that of the whole first."""
    yield path
    entries: Any = value.items() if isinstance(value, dict) else []
    for key, entry in enumerate(value) if isinstance(value, list) else entries:
        yield from _paths(entry, (*path, key))


@st.composite
def misshapen(draw: st.DrawFn, document: Any, junk: st.SearchStrategy[Any] = JUNK) -> Any:
    """A document of another shape: values replaced, taken out, or put one in another's place."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from([*_paths(changed)][1:] or [("new",)]))
        holder = changed
        for key in above:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "rename"])):
            case "replace":
                holder[last] = draw(junk)
            case "remove":
                del holder[last]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.text(max_size=6))] = holder.pop(last)
    return changed


def toml_values(value: Any) -> Any:
    """The value as far as TOML can say it."""
    if isinstance(value, dict):
        return {name: toml_values(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [toml_values(entry) for entry in value if entry is not None]
    return value
