"""CIFAR from the byte layouts of its two archives, written here with struct and pickle opcodes."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from hashrobust.datasets import cifar, dataset_info, load_dataset
from hashrobust.datasets._cifar_files import read_binary, read_pickle
from hashrobust.errors import DataError, HashRobustError

PER_FILE = 10_000
FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
PIXELS = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)


def numbered_rows(start: int, count: int = PER_FILE) -> np.ndarray:
    rows = np.zeros((count, 3072), dtype=np.uint8)
    rows[:, :4] = np.arange(start, start + count, dtype=">u4").view(np.uint8).reshape(-1, 4)
    return rows


def batch(rows: np.ndarray, labels: list[int]) -> dict[bytes, Any]:
    names = [f"{number}.png".encode() for number in labels]
    return {b"batch_label": b"training batch 1", b"labels": labels, b"data": rows, b"filenames": names}


def python2_pickle(rows: np.ndarray, labels: list[int]) -> bytes:
    """What Python 2 wrote: 8-bit strings as keys and as the array's content."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def integer(number: int) -> bytes:
        return b"J" + struct.pack("<i", number)

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + integer(0) + b"\x85" + short(b"b")
        + b"\x87R" + b"(" + integer(1) + integer(len(rows)) + integer(3072) + b"\x86"
        + b"cnumpy\ndtype\n" + short(b"u1") + integer(0) + integer(1) + b"\x87R"
        + b"(" + integer(3) + short(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
        + b"\x89" + b"T" + struct.pack("<i", rows.size) + rows.tobytes() + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(integer(label) for label in labels) + b"e"
    return b"\x80\x02}(" + short(b"data") + array + short(b"labels") + numbers + b"u."


def labels_of(file: int) -> list[int]:
    return [(file + number) % 10 for number in range(PER_FILE)]


@pytest.fixture(scope="module")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("pickled")
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir()
    for number, name in enumerate(FILES):
        (folder / name).write_bytes(python2_pickle(numbered_rows(number * PER_FILE), labels_of(number)))
    return data_dir


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("binary")
    folder = data_dir / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate(FILES):
        labels = np.array(labels_of(number), dtype=np.uint8)[:, None]
        (folder / f"{name}.bin").write_bytes(np.hstack([labels, numbered_rows(number * PER_FILE)]).tobytes())
    return data_dir


def test_protocol_of_cifar10(pickled: Path) -> None:
    data = load_dataset("cifar10", data_dir=pickled)
    splits = [data.train, data.query, data.validation, data.database]
    assert [len(split) for split in splits] == [5000, 1000, 1000, 53_000]
    assert [split.labels.sum(dim=0).tolist() for split in splits] == [[n] * 10 for n in (500, 100, 100, 5300)]
    assert torch.equal(torch.cat([split.ids for split in splits]).sort().values, torch.arange(60_000))
    assert (data.top_k, data.image_shape) == (5000, (3, 32, 32))
    assert data.classes[:2] == ("airplane", "automobile")
    image = data.query.load([3])[0]
    assert (image[0, 0, :4] * 255).round().int().tolist() == list(struct.pack(">I", int(data.query.ids[3])))
    file, number = divmod(int(data.query.ids[3]), PER_FILE)
    assert int(data.query.labels[3].argmax()) == labels_of(file)[number]


def test_both_archives_give_the_same_dataset(pickled: Path, binary: Path) -> None:
    one, other = load_dataset("cifar10", data_dir=pickled), load_dataset("cifar10", data_dir=binary)
    assert one.fingerprint == other.fingerprint
    assert dataset_info("cifar10", data_dir=binary).present is True


def test_channels_come_before_rows(tmp_path: Path) -> None:
    """A record is 1,024 red, then green, then blue values, each row by row."""
    file = tmp_path / "batch.bin"
    file.write_bytes(b"\x03" + b"\xff" * 32 + b"\0" * 992 + b"\x01" * 1024 + b"\x02" * 1024)
    images, labels = read_binary(file, 1, 10)
    assert labels.tolist() == [3]
    assert (images[0, 0, 0] == 255).all() and (images[0, 0, 1:] == 0).all()
    assert (images[0, 1] == 1).all() and (images[0, 2] == 2).all()


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name, start, count in (("train", 0, 50_000), ("test", 50_000, 10_000)):
        fine = np.arange(count, dtype=np.uint32) % 100
        labels = np.stack([fine % 20, fine], axis=1).astype(np.uint8)
        (folder / f"{name}.bin").write_bytes(np.hstack([labels, numbered_rows(start, count)]).tobytes())
    data = load_dataset("cifar100", data_dir=tmp_path)
    assert data.train.labels.sum(dim=0).tolist() == [50] * 100
    assert len(data.database) == 53_000
    assert len(set(data.classes)) == 100
    assert (data.query.labels.argmax(dim=1) == data.query.ids % 100).all()


def test_cifar100_pickles_give_the_fine_labels(tmp_path: Path) -> None:
    """Its files hold coarse labels as well, and another key than those of CIFAR-10."""
    content = batch(PIXELS, [1, 9]) | {b"fine_labels": [98, 3], b"coarse_labels": [7, 8]}
    del content[b"labels"]
    file = tmp_path / "train"
    file.write_bytes(pickle.dumps(content, protocol=2))
    assert read_pickle(file, b"fine_labels", 100)[1].tolist() == [98, 3]
    content[b"fine_labels"] = [98, 100]
    file.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=r"outside 0 \.\. 99"):
        read_pickle(file, b"fine_labels", 100)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_python_3_are_read(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "batch"
    file.write_bytes(pickle.dumps(batch(PIXELS, [1, 9]), protocol=protocol))
    images, labels = read_pickle(file, b"labels", 10)
    np.testing.assert_array_equal(images.reshape(2, -1), PIXELS)
    assert labels.tolist() == [1, 9]


class Hostile:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_run_no_code(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "made"
    attempts = [
        Hostile(os.mkdir, str(target)),
        Hostile(eval, f"__import__('os').mkdir({str(target)!r})"),
        Hostile(getattr, 1, "real"),
        Hostile(np.fromfile, str(tmp_path)),
    ]
    for attempt in attempts:
        file = tmp_path / "batch"
        file.write_bytes(pickle.dumps(batch(PIXELS, [1, 9]) | {b"extra": attempt}, protocol=protocol))
        with pytest.raises(DataError, match="names '"):
            read_pickle(file, b"labels", 10)
        assert not target.exists()


def test_codecs_of_a_pickle_are_only_latin1(tmp_path: Path) -> None:
    file = tmp_path / "batch"
    file.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0hex\x86R.")
    with pytest.raises(DataError, match="codec 'hex'"):
        read_pickle(file, b"labels", 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(batch(PIXELS, [1, 9]), protocol=2)[:-50], "CIFAR"),
        (b"", "CIFAR"),
        (b"not a pickle", "CIFAR"),
        (pickle.dumps([1, 2]), "dictionary"),
        (pickle.dumps({b"data": PIXELS}, protocol=2), "labels"),
        (pickle.dumps(batch(PIXELS[:, :-1], [1, 9]), protocol=2), "3072"),
        (pickle.dumps(batch(PIXELS.astype(np.float32), [1, 9]), protocol=2), "bytes"),
        (pickle.dumps(batch(PIXELS, [1]), protocol=2), "2 whole numbers"),
        (pickle.dumps(batch(PIXELS, [1, 10]), protocol=2), "outside 0 .. 9"),
        (pickle.dumps(batch(PIXELS, [-1, 1]), protocol=2), "outside 0 .. 9"),
    ],
)
def test_malformed_pickles_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "batch"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_pickle(file, b"labels", 10)


def shared(times: int) -> bytes:
    """Entries of a dict: a list of ten numbers, one of ten references to it, ...; the last stands for 10^times."""
    lists = b"X\x01\0\0\0a](" + b"K\x01" * 10 + b"eq\x64s"
    for place in range(100, 99 + times):
        key = b"labels" if place == 98 + times else bytes([place])
        items = (b"h" + bytes([place])) * 10 + b"eq" + bytes([place + 1])
        lists += b"X" + struct.pack("<I", len(key)) + key + b"](" + items + b"s"
    return lists


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"}(U\x01aNr\xff\xff\xff\xffu", "lacks 'data'"),  # a memo of 2^32 places
        (b"}(" + b")" + b"\x85" * 300_000 + b"Nu", "key"),  # its hash overflows the stack of the process
        (b"}(" + b")" + b"q\x00h\x00\x86" * 60 + b"Nu", "key"),  # its hash takes 2^60 steps
        (b"}(" + b")" + b"2\x86" * 60 + b"Nu", "DUP"),
        (b"cnumpy\ndtype\nU\x02V8K\x00K\x01\x87R", "'V8'"),
        (b"cnumpy\nndarray\n(U\x02u1t\x81", "NEWOBJ"),
        (b"cnumpy\nndarray\n)R", "array type"),
        (b"c_codecs\nencode\n}b", "CIFAR"),
    ],
)
def test_pickles_that_would_harm_an_unpickler_are_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "batch"
    file.write_bytes(b"\x80\x02" + content + b".")
    with pytest.raises(DataError, match=message):
        read_pickle(file, b"labels", 10)


NESTED = b")" + b"q\x00h\x00\x86" * 12
"""A tuple of two tuples of two ...: 4,096 in words, and 2^60 if there are 60 instead of 12."""


@pytest.mark.parametrize(
    "content",
    [
        NESTED + b"\x8c\x01a\x93",
        b"\x8c\x01a" + NESTED + b"\x93",
        b"c_codecs\nencode\nX\x01\0\0\0a" + NESTED + b"\x86R",
    ],
)
def test_what_is_no_text_is_not_told_in_words(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "batch"
    file.write_bytes(b"\x80\x04" + content + b".")
    with pytest.raises(DataError, match="no text") as caught:
        read_pickle(file, b"labels", 10)
    assert len(str(caught.value)) < 300


def test_labels_that_stand_for_more_than_any_memory_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "batch"
    plain = pickle.dumps({b"data": PIXELS}, protocol=2)
    file.write_bytes(plain[:-1] + shared(12) + b".")
    with pytest.raises(DataError, match="no whole numbers"):
        read_pickle(file, b"labels", 10)


def test_files_beyond_any_cifar_are_not_read(tmp_path: Path) -> None:
    for name, read in (("batch", read_pickle), ("batch.bin", read_binary)):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(2**40)  # takes no room
        with pytest.raises(DataError, match="more than"):
            read(tmp_path / name, b"labels" if read is read_pickle else 1, 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "multiple"), (b"\x01" * 3072, "multiple"), (b"\x0a" + b"\0" * 3072, "outside 0 .. 9")],
)
def test_malformed_binaries_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "batch.bin"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_binary(file, 1, 10)


def test_short_archives_and_absent_ones_are_refused(binary: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="download=True"):
        load_dataset("cifar10", data_dir=tmp_path)
    for file in (binary / "cifar-10-batches-bin").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "test_batch.bin").unlink()
    (tmp_path / "test_batch.bin").write_bytes(b"\0" * 3073)
    with pytest.raises(DataError, match="50001 images"):
        load_dataset("cifar10", data_dir=tmp_path)


def test_the_archive_is_fetched_checked_and_unpacked(
    site: Any, pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "cifar-10-batches-py"
    with tarfile.open(tmp_path / "made.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(pickled / folder, folder)
    site.files["cifar-10-python.tar.gz"] = (tmp_path / "made.tar.gz").read_bytes()
    served = replace(cifar.CIFAR10, address=f"{site.address}/cifar-10-python.tar.gz")
    monkeypatch.setattr(cifar, "CIFAR10", served)
    with pytest.raises(HashRobustError, match=r"cifar10 could not be downloaded \(.*another checksum"):
        load_dataset("cifar10", data_dir=tmp_path / "data", download=True)
    digest = hashlib.md5(site.files["cifar-10-python.tar.gz"]).hexdigest()
    monkeypatch.setattr(cifar, "CIFAR10", replace(served, md5=digest))
    data = load_dataset("cifar10", data_dir=tmp_path / "data", download=True)
    assert data.fingerprint == load_dataset("cifar10", data_dir=pickled).fingerprint
    assert [path.name for path in (tmp_path / "data").iterdir()] == [folder]


def test_published_checksums_are_torchvisions() -> None:
    for kind, theirs in ((cifar.CIFAR10, datasets.CIFAR10), (cifar.CIFAR100, datasets.CIFAR100)):
        assert (kind.address, kind.md5) == (theirs.url, theirs.tgz_md5)
