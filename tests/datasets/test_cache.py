"""What is remembered of image files, and that it never changes what is loaded."""

from __future__ import annotations

import hashlib
import io
import os
import pwd
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashrobust.datasets import _cache, _files, load_dataset
from hashrobust.datasets._base import Split
from hashrobust.datasets._files import ImageFiles, inspect_files
from hashrobust.errors import DataError

COUNT = 6


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HASHROBUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_cache, "WORTH_IT", COUNT)
    return tmp_path / "cache"


@pytest.fixture
def paths(tmp_path: Path, save_image: Any) -> list[Path]:
    found = [tmp_path / "images" / f"{number}.png" for number in range(COUNT)]
    for number, path in enumerate(found):
        save_image(path, number)
    return found


def images_of(paths: list[Path], size: int = 8) -> ImageFiles:
    return ImageFiles(paths[0].parent, [path.name for path in paths], inspect_files(paths), size)  # type: ignore[arg-type]


def split_of(images: ImageFiles) -> Split:
    return Split(torch.zeros(len(images), 1, dtype=torch.uint8), torch.arange(len(images)), images)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to be inspected."""
    noted: list[Path] = []
    inspect = _files._inspect
    monkeypatch.setattr(_files, "_inspect", lambda path: (noted.append(path), inspect(path))[1])
    return noted


def test_sound_files_are_read_once(paths: list[Path], read: list[Path]) -> None:
    first = inspect_files(paths)
    assert inspect_files(paths) == first and sorted(read) == paths
    assert inspect_files(paths[::-1]) == first[::-1] and len(read) == 2 * COUNT  # another list of files


def test_what_a_killed_process_left_is_removed_when_the_file_is_next_written(
    own_cache: Path, paths: list[Path]
) -> None:
    """Decoded images take up to 1 GiB."""
    images_of(paths).load(np.arange(COUNT))
    files = sorted(path for path in own_cache.rglob("*") if path.is_file())
    for file in files:
        file.rename(file.with_name(f".tmp-0123abcd.{file.name}"))
    images_of(paths).load(np.arange(COUNT))
    assert sorted(path for path in own_cache.rglob("*") if path.is_file()) == files


def test_changed_and_broken_files_are_read_again(
    paths: list[Path], read: list[Path], save_image: Any
) -> None:
    paths[1].write_bytes(b"broken")
    before = inspect_files(paths)
    assert before[1] == "it is not an image"
    read.clear()
    save_image(paths[1], 1)
    save_image(paths[2], 99)
    facts = paths[3].stat()
    paths[3].write_bytes(paths[4].read_bytes())
    os.utime(paths[3], ns=(facts.st_atime_ns, facts.st_mtime_ns))  # a copy may carry the time of another
    after = inspect_files(paths)
    assert sorted(read) == paths[1:4]
    assert isinstance(after[1], bytes) and after[2] != before[2] and after[3] == after[4]
    paths[0].unlink()
    assert inspect_files(paths)[0] == "No such file or directory"


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode()


def zipped() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, np.zeros(3))
    return stream.getvalue()


HUGE = "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000000000000000000000,)}\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        b"\x93NUMPY\x01\x00v\x00",
        b"PK\3\4",
        zipped(),
        npy(HUGE),
        npy("{[]: 3}\n"),
        npy("[[\n"),
    ],
)
def test_a_damaged_memory_is_made_anew(
    own_cache: Path, paths: list[Path], read: list[Path], content: bytes
) -> None:
    first = inspect_files(paths)
    expected = images_of(paths).load(np.arange(COUNT))
    for file in own_cache.rglob("*.npy"):
        file.write_bytes(content + hashlib.sha256(content).digest())
    read.clear()
    assert inspect_files(paths) == first and len(read) == COUNT
    assert torch.equal(images_of(paths).load(np.arange(COUNT)), expected)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_flipped_bit_reaches_no_image(own_cache: Path, paths: list[Path], place: float, bit: int) -> None:
    """It would change results, and no checksum of theirs would tell."""
    first = inspect_files(paths)
    expected = images_of(paths).load(np.arange(COUNT))
    files = list(own_cache.rglob("*.npy"))
    assert len(files) == 2
    for file in files:
        content = bytearray(file.read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        file.write_bytes(content)
    assert inspect_files(paths) == first
    assert torch.equal(images_of(paths).load(np.arange(COUNT)), expected)


def test_a_pickle_in_its_place_is_not_believed(own_cache: Path, paths: list[Path], tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "made"),))

    first = inspect_files(paths)
    (file,) = own_cache.rglob("*.npy")
    np.save(file, np.array([Hostile()], dtype=object), allow_pickle=True)
    file.write_bytes(file.read_bytes() + hashlib.sha256(file.read_bytes()).digest())
    assert inspect_files(paths) == first and not (tmp_path / "made").exists()


def test_images_are_decoded_once_and_kept_when_all_are_there(
    own_cache: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setattr(_cache, "MOST_DECODED_BYTES", 0)
        expected = images_of(paths).load(np.arange(COUNT))
    images = images_of(paths)
    assert torch.equal(images.load(np.array([4, 1, 4])), expected[[4, 1, 4]])
    assert not (own_cache / "decoded").exists()
    assert torch.equal(images.load(np.arange(COUNT)), expected)
    assert len(list((own_cache / "decoded").iterdir())) == 1
    monkeypatch.setattr(_files, "decode", lambda content: pytest.fail("decoded again"))
    assert torch.equal(images.load(np.array([5, 0])), expected[[5, 0]])
    assert torch.equal(images_of(paths).load(np.array([3, 2])), expected[[3, 2]])  # as in another process


def test_kept_images_belong_to_content_and_size(own_cache: Path, paths: list[Path], save_image: Any) -> None:
    before = images_of(paths).load(np.arange(COUNT))
    assert images_of(paths, 4).load(np.arange(COUNT)).shape == (COUNT, 3, 4, 4)
    save_image(paths[2], 99)
    after = images_of(paths).load(np.arange(COUNT))
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False, *[True] * 3]
    assert len(list((own_cache / "decoded").iterdir())) == 3


def test_a_user_without_a_home_needs_none(
    paths: list[Path], read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs under any number."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("HASHROBUST_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert inspect_files(paths) == inspect_files(paths) and len(read) == 2 * COUNT


def test_without_a_place_to_write_all_works(paths: list[Path], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HASHROBUST_CACHE", str(tmp_path / "file"))
    assert images_of(paths).load(np.arange(COUNT)).shape == (COUNT, 3, 8, 8)


def test_few_files_leave_no_trace(own_cache: Path, paths: list[Path], monkeypatch: Any) -> None:
    monkeypatch.setattr(_cache, "WORTH_IT", COUNT + 1)
    images_of(paths).load(np.arange(COUNT))
    assert not own_cache.exists()


def test_the_next_batch_is_decoded_while_the_caller_works(paths: list[Path]) -> None:
    """The second batch comes while the first is still in the caller's hands, and no batch before it is due."""
    images = images_of(paths)
    asked: list[list[int]] = []
    second = threading.Event()
    load = images.load

    def noting(ids: Any) -> torch.Tensor:
        asked.append(ids.tolist())
        if len(asked) == 2:
            second.set()
        return load(ids)

    images.load = noting  # type: ignore[method-assign]
    batches = split_of(images).batches(2)
    next(batches)
    assert second.wait(10) and asked == [[0, 1], [2, 3]]
    next(batches)
    next(batches)
    assert asked == [[0, 1], [2, 3], [4, 5]] and next(batches, None) is None


def test_batches_are_those_of_the_split(paths: list[Path]) -> None:
    split = split_of(images_of(paths))
    assert [len(images) for images, _ in split.batches(4)] == [4, 2]
    assert torch.equal(torch.cat([images for images, _ in split.batches(4)]), split.images)
    chosen = [[5, 1], [], [0]]
    assert [x.shape[0] for x in split.load_each(chosen)] == [2, 0, 1]
    assert torch.equal(next(split.load_each(chosen)), split.load([5, 1]))
    assert list(split.load_each([])) == []


def test_a_damaged_image_is_told_when_its_batch_is_due(paths: list[Path]) -> None:
    images = images_of(paths)
    paths[4].write_bytes(b"damaged")
    batches = split_of(images).batches(2)
    assert len(next(batches)[0]) == len(next(batches)[0]) == 2
    with pytest.raises(DataError, match=r"4\.png.*can no longer be read"):
        next(batches)


def test_reading_tells_its_progress(paths: list[Path], tmp_path: Path) -> None:
    from contextlib import nullcontext

    told: list[tuple[str, int, int]] = []

    class Noting:
        def track(self, description: str, total: int, unit: str, done: int = 0) -> Any:
            return nullcontext(lambda amount, note: told.append((description, total, amount)))

        def say(self, text: str) -> None:
            pass

    root = tmp_path / "images"
    for number, path in enumerate(paths):
        for title in ("a", "b"):
            copy = root / title / path.name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes() + title.encode())
        path.unlink()
        assert number < COUNT
    load_dataset(f"folder:{root}", image_size=8, progress=Noting())
    assert told == [("reading", 2 * COUNT, 1)] * 2 * COUNT
