"""Packed codes and FAISS indexes for search by Hamming distance.

Source of the indexes: Douze et al., "The Faiss library", arXiv 2401.08281.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from hashrobust._arrays import as_codes, as_packed, as_whole, pack, unpack
from hashrobust._faiss_payload import (
    MOST_BUCKETS,
    MOST_EFFORT,
    HashTables,
    PayloadError,
    buckets_searched,
    check_payload,
)
from hashrobust.errors import InputError
from hashrobust.registry import did_you_mean

__all__ = ["KINDS", "HammingIndex", "pack", "unpack"]

MISSING = -1  # the index of a result that an approximate index did not find
MAGIC = b"hashrobust-index"
VERSION = 1
SEARCH_BYTES = 1 << 28  # memory for the tables of one exact search


def _flat(bits: int, count: int) -> Any:
    """Exact: compares with every code."""
    index: Any = faiss.IndexBinaryFlat(_padded(bits))
    index.use_heap = False  # count by distance instead: ties stay in database order
    return index


def _ivf(bits: int, count: int, *, lists: int | None = None, probes: int | None = None) -> Any:
    """Inverted lists around k-means centres: searches the `probes` nearest of `lists` lists."""
    # k-means wants 39 a list
    lists = max(1, min(math.isqrt(count), count // 39)) if lists is None else as_whole("lists", lists)
    if lists > count:
        raise InputError(f"index kind 'ivf' has {lists} lists for {count} codes: give between 1 and {count}")
    index: Any = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(_padded(bits)), _padded(bits), lists)
    index.nprobe = max(1, lists // 4) if probes is None else min(as_whole("probes", probes), lists)
    index.cp.min_points_per_centroid = 1
    return index


def _hnsw(bits: int, count: int, *, neighbors: int = 32, effort: int = 64) -> Any:
    """A graph of near neighbours, walked greedily with `effort` candidates in hand.

    Building it on several threads may give another graph each time; on one thread it does not.
    """
    index = faiss.IndexBinaryHNSW(_padded(bits), max(2, as_whole("neighbors", neighbors)))
    effort = as_whole("effort", effort)
    if effort > MOST_EFFORT:
        raise InputError(f"effort is {effort}: give at most {MOST_EFFORT}")
    index.hnsw.efSearch = effort
    return index


def _hash(
    bits: int, count: int, *, tables: int | None = None, key_bits: int | None = None, flips: int = 2
) -> Any:
    """Hash tables keyed by consecutive bits: searches the buckets within `flips` bits of the query's."""
    usual = min(bits, 32, max(1, round(math.log2(count + 1))))
    key_bits = usual if key_bits is None else as_whole("key_bits", key_bits)
    if key_bits > min(bits, 64):
        raise InputError(f"key_bits is {key_bits}: give between 1 and {min(bits, 64)}")
    most = bits // key_bits
    tables = min(4, most) if tables is None else as_whole("tables", tables)
    if tables > most:
        raise InputError(f"tables is {tables}: {bits} bits give between 1 and {most} keys of {key_bits} bits")
    flips = as_whole("flips", flips, least=0)
    if buckets_searched(key_bits, flips) > MOST_BUCKETS:
        raise InputError(f"flips is {flips} in keys of {key_bits} bits: give 0 or a few, such as 2")
    index = faiss.IndexBinaryMultiHash(_padded(bits), tables, key_bits)
    index.nflip = min(flips, key_bits)
    return index


KINDS: dict[str, Callable[..., Any]] = {"flat": _flat, "ivf": _ivf, "hnsw": _hnsw, "hash": _hash}


class HammingIndex:
    """Codes that are searched by Hamming distance; any number of bits.

    Kinds: "flat" is exact; "ivf" (`lists`, `probes`), "hnsw" (`neighbors`, `effort`) and "hash"
    (`tables`, `key_bits`, `flips`) trade exactness for speed on large databases.

    Attributes:
        bits, kind: the length of codes and one of `KINDS`.
    """

    def __init__(self, index: Any, bits: int, kind: str) -> None:
        self._index = index
        self.bits = bits
        self.kind = kind

    @classmethod
    def build(cls, codes: Any, kind: str = "flat", **params: Any) -> HammingIndex:
        """An index of codes (N, K) in {-1, +1}, numpy or torch; `params` as its kind takes them.

        Raises:
            InputError: other values, no codes, an unknown kind, or a parameter that the kind does not take.
        """
        array = as_codes(codes, "database codes")
        return cls.from_packed(pack(array), array.shape[1], kind, **params)

    @classmethod
    def from_packed(cls, packed: Any, bits: int, kind: str = "flat", **params: Any) -> HammingIndex:
        """As `build`, of codes (N, ceil(bits / 8)) that `pack` made: large databases are never unpacked.

        Raises:
            InputError: see `build`; a width that does not fit, or ones beyond the last bit.
        """
        bits = as_whole("bits", bits)
        packed = as_packed(packed, bits)
        if len(packed) == 0:
            raise InputError("there are no database codes: give at least one")
        if bits % 8 and bool((packed[:, -1] >> bits % 8).any()):
            raise InputError(
                f"packed codes of {bits} bits have ones beyond the last bit: give what pack returned"
            )
        index = _build(kind, bits, len(packed), params)
        if not index.is_trained:
            index.train(packed)
        index.add(packed)
        return cls(index, bits, kind)

    def add(self, codes: Any) -> None:
        """Append codes (N, K): their positions continue those present; for databases read in parts.

        Raises:
            InputError: values other than -1 and +1, or another number of bits.
        """
        self._index.add(pack(self._checked(codes, "codes")))

    def search(self, codes: Any, k: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The min(k, N) nearest codes of each query: distances and database positions, (Q, min(k, N)).

        Nearest first, equal distances by database position. An index of kind "flat" is exact, also in
        which of several items at the last distance it lists: those that come first. Other kinds may miss
        items; places that stay empty have index -1 and the distance K + 1.

        Raises:
            InputError: k is no whole number from 1 on; values other than -1 and +1, or another number of bits.
        """
        k = min(as_whole("k", k), len(self))
        packed = pack(self._checked(codes, "query codes"))
        # The counting search of faiss.IndexBinaryFlat holds k positions for each distance and query.
        batch = max(1, SEARCH_BYTES // (8 * k * (_padded(self.bits) + 1)))
        parts = [self._index.search(packed[i : i + batch], k) for i in range(0, len(packed), batch)]
        if not parts:
            return np.empty((0, k), np.int32), np.empty((0, k), np.int64)
        distances, indices = (np.concatenate(side) for side in zip(*parts, strict=True))
        distances[indices == MISSING] = self.bits + 1
        order = np.lexsort((indices, distances), axis=1)
        return np.take_along_axis(distances, order, axis=1), np.take_along_axis(indices, order, axis=1)

    @property
    def codes(self) -> NDArray[np.int8]:
        """The codes in the order that they were added, (N, K) int8 in {-1, +1}."""
        return unpack(_stored(self._index, self.kind), self.bits)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def __repr__(self) -> str:
        return f"HammingIndex({len(self)} codes of {self.bits} bits, kind '{self.kind}')"

    def save(self, path: str | Path) -> None:
        """Write the index to one file that FAISS itself can read too; a reader never sees half of it."""
        target = Path(path)
        payload = faiss.serialize_index_binary(self._index).tobytes()
        about = {"version": VERSION, "kind": self.kind, "bits": self.bits, "count": len(self)}
        about |= {"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
        header = json.dumps(about).encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(payload + header + struct.pack("<Q", len(header)) + MAGIC)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> HammingIndex:
        """The index that `save` wrote.

        Raises:
            InputError: no such file, not an index of this package, cut short, or changed since.
        """
        payload, about = _read(Path(path))
        kind, bits, count = about["kind"], about["bits"], about["count"]
        try:
            made_of = check_payload(payload, kind, code_size=_padded(bits) // 8, count=count)
        except PayloadError as error:
            raise InputError(f"index '{path}' is damaged ({error}): build it anew") from error
        if made_of is not None:
            return cls(_with_tables(made_of), bits, kind)
        index: Any = faiss.deserialize_index_binary(np.frombuffer(payload, np.uint8))
        if kind == "flat":
            index.use_heap = False  # a setting that FAISS does not write
        return cls(index, bits, kind)

    def _checked(self, codes: Any, name: str) -> NDArray[Any]:
        array = as_codes(codes, name)
        if array.shape[1] != self.bits:
            raise InputError(
                f"{name} have {array.shape[1]} bits and the index {self.bits}: encode with its model"
            )
        return array


def _padded(bits: int) -> int:
    return 8 * -(-bits // 8)


def _build(kind: str, bits: int, count: int, params: dict[str, Any]) -> Any:
    if kind not in KINDS:
        raise InputError(f"unknown index kind '{kind}': {did_you_mean(kind, list(KINDS))}")
    signature = inspect.signature(KINDS[kind]).parameters.values()
    known = [p.name for p in signature if p.kind is p.KEYWORD_ONLY]
    for name in params:
        if name not in known:
            raise InputError(f"index kind '{kind}' has no parameter '{name}': {did_you_mean(name, known)}")
    return KINDS[kind](bits, count, **params)


def _with_tables(made_of: HashTables) -> Any:
    """The hash tables of codes, made anew: FAISS believes stored ones, wherever they point."""
    index: Any = faiss.IndexBinaryMultiHash(8 * made_of.codes.shape[1], made_of.tables, made_of.key_bits)
    index.nflip = made_of.flips
    index.add(made_of.codes)
    return index


def _stored(index: Any, kind: str) -> NDArray[np.uint8]:
    """The packed codes that an index holds, in order of their positions."""
    if kind == "ivf":
        packed = np.empty((index.ntotal, index.code_size), np.uint8)
        for number in range(index.nlist):
            size = index.invlists.list_size(number)
            if size:
                ids = faiss.rev_swig_ptr(index.invlists.get_ids(number), size)
                codes = faiss.rev_swig_ptr(index.invlists.get_codes(number), size * index.code_size)
                packed[ids] = codes.reshape(size, index.code_size)
        return packed
    flat: Any = index if kind == "flat" else faiss.downcast_IndexBinary(index.storage)
    vectors: NDArray[np.uint8] = faiss.vector_to_array(flat.xb)
    return vectors.reshape(index.ntotal, -1)


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """FAISS's part of a file and the facts behind it, checked before FAISS sees a byte."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"index '{path}' cannot be read ({error.strerror}): build it first") from error
    damaged = InputError(f"index '{path}' is damaged or is not an index of this package: build it anew")
    end = len(content) - len(MAGIC) - 8
    if end < 0 or not content.endswith(MAGIC):
        raise damaged
    (length,) = struct.unpack_from("<Q", content, end)
    try:
        about = json.loads(content[max(0, end - length) : end])
        payload = content[: end - length]
        sound = len(payload) == about["size"] and hashlib.sha256(payload).hexdigest() == about["sha256"]
        sound = sound and about["kind"] in KINDS
        sound = sound and all(type(about[fact]) is int and about[fact] >= 1 for fact in ("bits", "count"))
        version = about["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged from error
    if not sound:
        raise damaged
    if version != VERSION:
        raise InputError(f"index '{path}' is of version {version}, not {VERSION}: build it anew")
    return payload, about
