"""Fashion-MNIST and MNIST from idx files that the tests lay out byte by byte."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from hashrobust.datasets import dataset_info, load_classification, load_dataset, mnist
from hashrobust.datasets._idx import read_idx
from hashrobust.errors import DataError, HashRobustError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
MNIST_SIZES = (6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958)
IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def numbered_images(count: int) -> np.ndarray:
    """Different 28x28 images: each begins with its number."""
    images = np.zeros((count, 784), dtype=np.uint8)
    images[:, :4] = np.arange(count, dtype=">u4").view(np.uint8).reshape(-1, 4)
    return images.reshape(-1, 28, 28)


def lay_out(folder: Path, class_sizes: tuple[int, ...]) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = numbered_images(70_000)
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(10, dtype=np.uint8), class_sizes))
    (folder / "train-images-idx3-ubyte").write_bytes(idx(images[:60_000]))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(targets[:60_000]))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(images[60_000:]))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(targets[60_000:]), 1))
    return targets


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    data_dir = tmp_path_factory.mktemp("data")
    return data_dir, lay_out(data_dir / "FashionMNIST" / "raw", (7000,) * 10)


def test_protocol_of_the_pooled_sets(fashion: tuple[Path, np.ndarray]) -> None:
    data_dir, targets = fashion
    data = load_dataset("fashion-mnist", data_dir=data_dir)
    splits = [data.train, data.query, data.validation, data.database]
    assert [len(split) for split in splits] == [5000, 1000, 1000, 63_000]
    assert [split.labels.sum(dim=0).tolist() for split in splits] == [[n] * 10 for n in (500, 100, 100, 6300)]
    assert torch.equal(torch.cat([split.ids for split in splits]).sort().values, torch.arange(70_000))
    assert (data.top_k, data.image_shape, data.duplicates) == (5000, (1, 28, 28), 0)
    for split in splits:  # test images come after train images
        chosen = [0, 7, len(split) - 1]
        ids = split.ids[chosen]
        numbers = (split.load(chosen).flatten(1)[:, :4].double() * 255).round() @ torch.tensor(
            [2.0**24, 2**16, 2**8, 1], dtype=torch.float64
        )
        assert torch.equal(numbers.long(), ids)
        np.testing.assert_array_equal(split.labels[chosen].argmax(dim=1), targets[ids])


def test_the_official_test_set_is_the_last_ten_thousand(fashion: tuple[Path, np.ndarray]) -> None:
    data = load_classification("fashion-mnist", data_dir=fashion[0])
    assert set(data.test.ids.tolist()) == set(range(60_000, 70_000))
    assert len(data.train) + len(data.validation) == 60_000 and 5_990 <= len(data.validation) <= 6_000
    assert not set(data.train.ids.tolist()) & set(data.validation.ids.tolist())


def test_files_of_the_other_set_are_refused(fashion: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """The two sets' files carry the same names: a mix-up must not pass silently."""
    data_dir, _ = fashion
    with pytest.raises(DataError, match="not mnist's"):
        load_dataset("mnist", data_dir=data_dir / "FashionMNIST" / "raw")
    lay_out(tmp_path / "mnist", MNIST_SIZES)
    assert len(load_dataset("mnist", data_dir=tmp_path).database) == 63_000
    assert dataset_info("mnist", data_dir=tmp_path).present is True


def test_copies_in_the_pool_stay_in_the_database(fashion: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    data_dir, _ = fashion
    before = load_dataset("fashion-mnist", data_dir=data_dir)
    query = int(before.query.ids[before.query.ids < 60_000][0])
    lay_out(tmp_path, (7000,) * 10)
    images = numbered_images(60_000)
    other = int(before.database.ids[before.database.ids < 60_000][0])
    images[other] = images[query]
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    data = load_dataset("fashion-mnist", data_dir=tmp_path)
    assert data.duplicates == 2
    assert {query, other} <= set(data.database.ids.tolist())
    assert [len(data.query), len(data.database)] == [1000, 63_000]
    assert data.fingerprint != before.fingerprint


@pytest.mark.parametrize("gzipped", [True, False])
def test_idx_files_are_read(tmp_path: Path, gzipped: bool) -> None:
    file = tmp_path / ("images.gz" if gzipped else "images")
    file.write_bytes(gzip.compress(idx(IMAGES)) if gzipped else idx(IMAGES))
    np.testing.assert_array_equal(read_idx(file, ndim=3), IMAGES)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: b"", "magic"),
        (lambda raw: b"\x89PNG" + raw, "magic"),
        (lambda raw: raw[:2] + b"\x0d" + raw[3:], "magic"),
        (lambda raw: raw[:3] + b"\x01" + raw[4:], "magic"),
        (lambda raw: raw[:10], "header"),
        (lambda raw: raw[:-1], "only 23"),
        (lambda raw: raw + b"\0", "more"),
        (lambda raw: raw[:4] + b"\xff\xff\xff\xff" + raw[8:], "promises"),
    ],
)
@pytest.mark.parametrize("gzipped", [True, False])
def test_malformed_idx_files_are_refused(
    tmp_path: Path, spoil: Callable[[bytes], bytes], message: str, gzipped: bool
) -> None:
    file = tmp_path / ("images.gz" if gzipped else "images")
    spoilt = spoil(idx(IMAGES))
    file.write_bytes(gzip.compress(spoilt) if gzipped else spoilt)
    with pytest.raises(DataError, match=f"images.*{message}"):
        read_idx(file, ndim=3)


def test_damaged_gzip_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "images.gz"
    whole = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (whole[: len(whole) // 2], whole[:-6], bytes(flipped), idx(IMAGES), whole[5:]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="fetch it again"):
            read_idx(file, ndim=3)


def test_labels_that_do_not_match_the_images_are_refused(
    fashion: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    data_dir, targets = fashion
    for file in (data_dir / "FashionMNIST" / "raw").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(targets[:59_999]))
    with pytest.raises(DataError, match="59999"):
        load_dataset("fashion-mnist", data_dir=tmp_path)


def test_absent_files_say_what_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="download=True"):
        load_dataset("mnist", data_dir=tmp_path)
    assert dataset_info("mnist", data_dir=tmp_path).present is False


def test_the_four_files_are_fetched_and_checked(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path / "made", MNIST_SIZES)
    names = [remote.name for remote in mnist.MNIST.remotes]
    for name in names:
        file = tmp_path / "made" / name
        site.files[name] = (
            file.read_bytes() if file.is_file() else gzip.compress(file.with_suffix("").read_bytes(), 1)
        )
    checksums = tuple(hashlib.md5(site.files[name]).hexdigest() for name in names)
    served = replace(mnist.MNIST, mirrors=(f"{site.address}/away", site.address), checksums=checksums)
    monkeypatch.setattr(mnist, "MNIST", served)
    assert len(load_dataset("mnist", data_dir=tmp_path / "data", download=True).query) == 1000
    assert sorted(path.name for path in (tmp_path / "data" / "mnist").iterdir()) == sorted(names)


def test_a_failed_download_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "MNIST", replace(mnist.MNIST, mirrors=("http://127.0.0.1:1",)))
    with pytest.raises(HashRobustError, match="mnist could not be downloaded") as caught:
        load_dataset("mnist", data_dir=tmp_path, download=True)
    assert caught.value.exit_code == 1


def test_published_checksums_are_torchvisions() -> None:
    for kind, theirs in ((mnist.FASHION, datasets.FashionMNIST), (mnist.MNIST, datasets.MNIST)):
        ours = {remote.name: remote.md5 for remote in kind.remotes}
        assert ours == dict(theirs.resources)
        assert set(kind.mirrors) == {mirror.rstrip("/") for mirror in theirs.mirrors}


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_real_fashion_mnist(tmp_path: Path) -> None:
    """Facts of the published data: sizes, no exact copies, the well-known mean and deviation of pixels."""
    data = load_dataset("fashion-mnist", data_dir=tmp_path)
    assert [len(data.train), len(data.query), len(data.database)] == [5000, 1000, 63_000]
    assert data.duplicates == 0
    assert data.mean[0] == pytest.approx(0.286, abs=0.003)
    assert data.std[0] == pytest.approx(0.353, abs=0.003)
    with gzip.open(DEBIAN / "train-labels-idx1-ubyte.gz") as stream:
        labels = np.frombuffer(stream.read(), dtype=np.uint8, offset=8)
    ids = data.train.ids.numpy()
    known = ids < 60_000
    np.testing.assert_array_equal(data.train.labels.argmax(dim=1).numpy()[known], labels[ids[known]])
