"""FAISS's binary indexes read by their bytes, so that FAISS never parses what it would stumble over.

FAISS trusts the lengths, positions and links in what it deserialises, and reads or writes beyond its memory where
they lie. Formats: faiss/impl/index_write.cpp of 1.8 to 1.15, little-endian; only what `retrieval` writes is known.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_EFFORT = 1 << 20
MOST_BUCKETS = 1 << 20
"""Candidates of a search in a graph, and buckets of one in hash tables; beyond them it does not come back."""

_AT_ONCE = 1 << 14  # codes whose links are looked at together
_METRIC = 1  # what FAISS writes for binary indexes, which know one metric


class PayloadError(ValueError):
    """The bytes are no index of the kind, size and length of code that they should be."""


@dataclass(frozen=True)
class HashTables:
    """What an index of hash tables is made of; the tables themselves follow from it and are not read."""

    codes: NDArray[np.uint8]
    key_bits: int
    tables: int
    flips: int


def check_payload(payload: bytes, kind: str, *, code_size: int, count: int) -> HashTables | None:
    """Check an index of `count` codes of `code_size` bytes, byte by byte; of kind "hash" return what it is made of.

    Raises:
        PayloadError: FAISS would refuse it, crash on it, or search outside its memory; or bytes are left over.
    """
    _require(count * code_size <= len(payload), f"{count} codes do not fit into it")
    content = _Bytes(payload)
    made_of = _KINDS[kind](content, code_size, count)
    content.end()
    return made_of


def buckets_searched(key_bits: int, flips: int) -> int:
    """The buckets that one query looks into, in one table."""
    return sum(math.comb(key_bits, flipped) for flipped in range(min(flips, key_bits) + 1))


class _Bytes:
    """A cursor over bytes that never goes beyond their end."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._content) - self._place:
            raise PayloadError(f"{size} bytes are promised at {self._place} and do not follow")
        self._place += size
        return self._content[self._place - size : self._place]

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype=dtype)

    def vector(self, dtype: str, count: int | None = None) -> NDArray[Any]:
        """An array behind its own length, which must be `count` if that is given."""
        length = self.number("Q")
        if count is not None:
            _require(length == count, f"an array has {length} entries, not {count}")
        return self.array(dtype, length)

    def tag(self, *known: bytes) -> bytes:
        found = self.take(4)
        _require(found in known, f"'{found!r}' stands where one of {known} should")
        return found

    def end(self) -> None:
        _require(self._place == len(self._content), "bytes are left over")


def _require(holds: Any, otherwise: str) -> None:
    if not holds:
        raise PayloadError(otherwise)


def _header(content: _Bytes, tag: bytes, code_size: int, count: int) -> None:
    content.tag(tag)
    found = tuple(content.number(form) for form in "iiqBi")  # bits, bytes, codes, trained, metric
    wanted = (8 * code_size, code_size, count, 1, _METRIC)
    _require(found == wanted, f"a header tells {found}, not {wanted}")


def _flat(content: _Bytes, code_size: int, count: int) -> NDArray[np.uint8]:
    _header(content, b"IBxF", code_size, count)
    return content.vector("u1", count * code_size).reshape(count, code_size)


def _check_flat(content: _Bytes, code_size: int, count: int) -> None:
    _flat(content, code_size, count)


def _check_ivf(content: _Bytes, code_size: int, count: int) -> None:
    _header(content, b"IBwF", code_size, count)
    lists, probes = content.number("Q"), content.number("Q")
    _require(lists >= 1 and 1 <= probes < 2**31, f"it has {lists} lists and probes {probes}")
    _flat(content, code_size, lists)
    _require(content.number("B") == 0, "it has a map from positions to places")
    content.vector("i8", 0)
    content.tag(b"ilar")
    found = (content.number("Q"), content.number("Q"))
    _require(found == (lists, code_size), f"its lists and their codes are {found}, not {(lists, code_size)}")
    seen = np.zeros(count, dtype=bool)
    sizes = _list_sizes(content, lists)
    _require(sum(sizes) == count, f"its lists hold {sum(sizes)} codes, not {count}")
    for size in sizes:
        content.take(size * code_size)
        positions = content.array("<i8", size)
        _require(((positions >= 0) & (positions < count)).all(), "a position is outside the index")
        seen[positions] = True
    _require(seen.all(), "some positions stand in no list")


def _list_sizes(content: _Bytes, lists: int) -> list[int]:
    """The codes in each list: all sizes, or pairs of a list and its size where most are empty."""
    if content.tag(b"full", b"sprs") == b"full":
        sizes: list[int] = content.vector("<u8", lists).tolist()
        return sizes
    numbers = content.vector("<u8")
    _require(len(numbers) % 2 == 0, "sizes of lists are no pairs")
    places, sizes = numbers[::2].tolist(), numbers[1::2].tolist()
    in_order = all(before < after for before, after in zip([-1, *places], [*places, lists], strict=True))
    _require(in_order, "sizes of lists are out of order")
    return sizes


def _check_hnsw(content: _Bytes, code_size: int, count: int) -> None:
    _header(content, b"IBHf", code_size, count)
    chances = content.vector("<f8")  # of levels, for codes that are added
    slots = content.vector("<i4")  # of a code that reaches a level: slots[l] to slots[l + 1] are its level l
    _require(len(slots) == len(chances) + 1 >= 2 and slots[0] == 0, "levels begin nowhere")
    _require((np.diff(slots.astype(np.int64)) >= 0).all(), "levels have fewer than no neighbours")
    levels = content.vector("<i4", count).astype(np.int64)
    _require(((levels >= 1) & (levels < len(slots))).all(), "a code has a level that is not there")
    offsets = content.vector("<u8", count + 1)
    ends = np.concatenate([[0], np.cumsum(slots[levels], dtype=np.int64)])
    _require((offsets == ends.astype(np.uint64)).all(), "neighbours are not where levels end")
    neighbours = content.vector("<i4", int(ends[-1]))
    for first in range(0, count, _AT_ONCE):
        last = min(first + _AT_ONCE, count)
        _check_links(neighbours[ends[first] : ends[last]], levels, slots, slots[levels[first:last]])
    entry, top, building, effort, _ = (content.number("i") for _ in range(5))
    _require(0 <= entry < count and levels[entry] == top + 1 == levels.max(), "the way in is not at the top")
    efforts = (building, effort)
    _require(all(1 <= e <= MOST_EFFORT for e in efforts), f"it builds and searches with efforts of {efforts}")
    _flat(content, code_size, count)


def _check_links(
    neighbours: NDArray[Any], levels: NDArray[Any], slots: NDArray[Any], sizes: NDArray[Any]
) -> None:
    """Whether every neighbour of some codes, `sizes` of each, is a code that reaches the level on which it is one."""
    linked = neighbours != -1
    inside = (neighbours >= 0) & (neighbours < len(levels))
    _require((inside | ~linked).all(), "a neighbour is outside the index")
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    level = np.searchsorted(slots, np.arange(len(neighbours)) - starts, side="right")
    _require((levels[neighbours[linked]] >= level[linked]).all(), "a neighbour does not reach the level")


def _check_hash(content: _Bytes, code_size: int, count: int) -> HashTables:
    _header(content, b"IBHm", code_size, count)
    codes = _flat(content, code_size, count)
    key_bits, tables, flips = (content.number("i") for _ in range(3))
    _require(1 <= key_bits <= 64 and 1 <= tables <= 8 * code_size // key_bits, "keys do not fit into codes")
    _require(0 <= flips <= key_bits and buckets_searched(key_bits, flips) <= MOST_BUCKETS, "too many flips")
    for _ in range(tables):
        content.number("i")  # bits of a position
        content.number("Q")  # buckets
        content.vector("u1")
    return HashTables(codes, key_bits, tables, flips)


_KINDS: dict[str, Callable[[_Bytes, int, int], HashTables | None]] = {
    "flat": _check_flat,
    "ivf": _check_ivf,
    "hnsw": _check_hnsw,
    "hash": _check_hash,
}
