"""Packing and indexes against brute force."""

from __future__ import annotations

import tracemalloc

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashrobust.errors import InputError
from hashrobust.retrieval import KINDS, HammingIndex, pack, unpack

BITS = [1, 12, 32, 36, 64, 128]


def random_codes(seed, count, bits):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), (count, bits))


def brute_force(queries, database, k):
    distances = (queries[:, None] != database[None]).sum(axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(0, 9), st.integers(1, 70))
def test_unpack_undoes_pack(seed, count, bits):
    codes = random_codes(seed, count, bits)
    packed = pack(codes)
    assert packed.shape == (count, -(-bits // 8))
    assert packed.dtype == np.uint8
    assert (unpack(packed, bits) == codes).all()
    assert (pack(torch.from_numpy(codes).float()) == packed).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 70))
def test_padding_leaves_distances(seed, bits):
    a, b = random_codes(seed, 2, bits)
    first, second = pack([a])[0], pack([b])[0]
    assert np.unpackbits(first ^ second).sum() == (a != b).sum()


def test_wrong_packed_codes_are_named():
    packed = pack(random_codes(0, 3, 12))
    for bad, bits in [(packed, 17), (packed, 8), (packed, 0), (packed.astype(int), 12), (packed[0], 12)]:
        with pytest.raises(InputError, match="packed codes"):
            unpack(bad, bits)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("k", [1, 7, 150, 700, 5000])
def test_flat_is_exact_with_ties_by_position(bits, k):
    database = random_codes(bits, 700, bits)
    database[300:500] = database[0]  # a large tie that cuts go through
    queries = np.concatenate([random_codes(bits + 1, 20, bits), database[:4]])
    distances, indices = HammingIndex.build(database).search(queries, k)
    wanted_distances, wanted_indices = brute_force(queries, database, k)
    assert (distances == wanted_distances).all()
    assert (indices == wanted_indices).all()
    assert distances.dtype == np.int32
    assert indices.dtype == np.int64


@pytest.mark.parametrize("bits", [1, 12, 36, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_true_distances_in_order(kind, bits):
    database, queries = random_codes(0, 900, bits), random_codes(1, 15, bits)
    index = HammingIndex.build(torch.from_numpy(database), kind)
    assert (index.kind, index.bits, len(index)) == (kind, bits, 900)
    assert repr(index) == f"HammingIndex(900 codes of {bits} bits, kind '{kind}')"
    assert index.codes.dtype == np.int8
    assert (index.codes == database).all()
    distances, indices = index.search(queries, 30)
    found = indices >= 0
    true = (queries[:, None] != database[np.maximum(indices, 0)]).sum(axis=2)
    assert (distances == np.where(found, true, bits + 1)).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    tied = (np.diff(distances, axis=1) == 0) & found[:, 1:]
    assert (np.diff(indices, axis=1)[tied] > 0).all()
    for row in indices:
        assert len(set(row[row >= 0])) == (row >= 0).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_the_code_itself(kind):
    database = random_codes(2, 1500, 48)
    distances, indices = HammingIndex.build(database, kind).search(database[:50], 1)
    assert (distances == 0).mean() >= 0.9
    assert (indices[:, 0] == np.arange(50)).mean() >= 0.9


def test_approximate_kinds_are_exact_when_told_to_search_everything():
    database, queries = random_codes(3, 400, 24), random_codes(4, 10, 24)
    wanted, _ = brute_force(queries, database, 20)
    for kind, params in {
        "ivf": {"lists": 8, "probes": 8},
        "hnsw": {"effort": 400},
        "hash": {"tables": 1, "key_bits": 6, "flips": 6},
    }.items():
        distances, _ = HammingIndex.build(database, kind, **params).search(queries, 20)
        assert (distances == wanted).mean() > 0.99, kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_codes_are_enough_for_every_kind(kind, count):
    database = random_codes(5, count, 12)
    distances, indices = HammingIndex.build(database, kind).search(database, 10)
    assert distances.shape == indices.shape == (count, count)
    assert (distances[:, 0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_codes_may_come_in_parts(kind):
    database = random_codes(6, 300, 20)
    index = HammingIndex.build(database[:200], kind)
    index.add(database[200:])
    assert len(index) == 300
    assert (index.codes == database).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 36])
def test_load_gives_back_what_was_saved(kind, bits, tmp_path):
    database, queries = random_codes(7, 500, bits), random_codes(8, 9, bits)
    index = HammingIndex.build(database, kind)
    index.save(tmp_path / "deep" / "index.faiss")
    loaded = HammingIndex.load(str(tmp_path / "deep" / "index.faiss"))
    assert (loaded.kind, loaded.bits, len(loaded)) == (kind, bits, 500)
    assert (loaded.codes == database).all()
    for mine, other in zip(loaded.search(queries, 40), index.search(queries, 40), strict=True):
        assert (mine == other).all()
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["index.faiss"]


def test_saved_file_is_the_same_each_time_and_opens_in_faiss(tmp_path):
    database = random_codes(9, 60, 16)
    for name in ("a", "b"):
        HammingIndex.build(database).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert faiss.read_index_binary(str(tmp_path / "a")).ntotal == 60


def test_damaged_files_are_told_apart_from_indexes(tmp_path):
    path = tmp_path / "index.faiss"
    HammingIndex.build(random_codes(10, 50, 16)).save(path)
    sound = path.read_bytes()
    flipped = bytearray(sound)
    flipped[40] ^= 1
    plain = tmp_path / "plain"
    faiss.write_index_binary(faiss.IndexBinaryFlat(16), str(plain))
    tail = sound[-16:]
    for bad in (
        b"",
        b"garbage" * 30,
        bytes(flipped),
        sound[:-1],
        sound[5:],
        plain.read_bytes(),
        b"\xff" * 8 + tail,
        b"{}" + (2).to_bytes(8, "little") + tail,
        b"[]" + (2).to_bytes(8, "little") + tail,
        b"[" * 100_000 + (100_000).to_bytes(8, "little") + tail,
    ):
        path.write_bytes(bad)
        with pytest.raises(InputError, match="damaged"):
            HammingIndex.load(path)
    path.write_bytes(sound.replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(InputError, match="version 9"):
        HammingIndex.load(path)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            HammingIndex.load(missing)


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "index.faiss"
    HammingIndex.build(random_codes(11, 50, 16)).save(path)
    before = path.read_bytes()

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        HammingIndex.build(random_codes(12, 50, 16)).save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["index.faiss"]
    assert path.read_bytes() == before


def test_more_probes_than_lists_are_all_lists(tmp_path):
    codes = random_codes(12, 50, 16)
    index = HammingIndex.build(codes, "ivf", lists=3, probes=2**40)
    index.save(tmp_path / "index.faiss")
    found = HammingIndex.load(tmp_path / "index.faiss").search(codes, 50)
    np.testing.assert_array_equal(found[0], HammingIndex.build(codes).search(codes, 50)[0])


def test_wrong_requests_are_named():
    codes = random_codes(13, 50, 16)
    index = HammingIndex.build(codes)
    for call, message in [
        (lambda: HammingIndex.build(codes, "flatt"), "did you mean 'flat'"),
        (lambda: HammingIndex.build(codes, "ivf", list=3), "did you mean 'lists'"),
        (lambda: HammingIndex.build(codes, lists=3), "no parameter 'lists'"),
        (lambda: HammingIndex.build(codes, "ivf", lists=51), "between 1 and 50"),
        (lambda: HammingIndex.build(codes, "ivf", probes=0), "probes is 0"),
        (lambda: HammingIndex.build(codes, "ivf", lists=2.0), "lists is 2.0"),
        (lambda: HammingIndex.build(codes, "hnsw", effort="64"), "effort is '64'"),
        (lambda: HammingIndex.build(codes, "hash", key_bits=17), "between 1 and 16"),
        (lambda: HammingIndex.build(codes, "hash", flips=-1), "flips is -1"),
        (lambda: HammingIndex.build(codes, "hash", key_bits=8, tables=3), "between 1 and 2"),
        (lambda: HammingIndex.build(codes * 0), "-1 and \\+1"),
        (lambda: HammingIndex.build(codes[:0]), "no database codes"),
        (lambda: index.search(codes, 0), "k is 0"),
        (lambda: index.search(codes, 2.0), "k is 2.0"),
        (lambda: index.search(codes, None), "k is None"),
        (lambda: index.search(codes[:, :8], 1), "8 bits and the index 16"),
        (lambda: index.add(codes[:, :8]), "8 bits and the index 16"),
    ]:
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_numpy_are_numbers(kind):
    """As they come out of a shape, an array or a table."""
    codes = random_codes(15, 200, 16)
    params = {
        "flat": {},
        "ivf": {"lists": 4, "probes": 2},
        "hnsw": {"neighbors": 8, "effort": 30},
        "hash": {"tables": 2, "key_bits": 6, "flips": 1},
    }[kind]
    wanted = HammingIndex.build(codes, kind, **params).search(codes[:5], 3)
    own = {name: np.int64(value) for name, value in params.items()}
    index = HammingIndex.from_packed(pack(codes), np.int64(16), kind, **own)
    for found, expected in zip(index.search(codes[:5], np.int64(3)), wanted, strict=True):
        assert (found == expected).all()


def test_no_queries_give_no_results():
    index = HammingIndex.build(random_codes(14, 50, 16))
    distances, indices = index.search(np.empty((0, 16)), 3)
    assert distances.shape == indices.shape == (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_codes_give_the_same_index(kind):
    codes, queries = random_codes(1, 300, 12), random_codes(2, 5, 12)
    built, packed = HammingIndex.build(codes, kind), HammingIndex.from_packed(pack(codes), 12, kind)
    assert (packed.codes == codes).all()
    for one, other in zip(built.search(queries, 7), packed.search(queries, 7), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (np.zeros((3, 1), np.uint8), "12 bits"),
        (np.zeros((3, 2), np.int64), "12 bits"),
        (np.zeros((0, 2), np.uint8), "at least one"),
        (np.full((3, 2), 255, np.uint8), "beyond the last bit"),
    ],
)
def test_packed_codes_are_checked(packed, message):
    with pytest.raises(InputError, match=message):
        HammingIndex.from_packed(packed, 12)


def test_packed_codes_are_never_unpacked():
    packed = np.random.default_rng(0).integers(0, 256, (100_000, 8), dtype=np.uint8)
    tracemalloc.start()  # numpy's arrays, not FAISS's own
    try:
        HammingIndex.from_packed(packed, 64)
        assert tracemalloc.get_traced_memory()[1] < packed.nbytes / 2
    finally:
        tracemalloc.stop()
