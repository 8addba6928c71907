"""Folders of images as users have them: odd modes, rotated, damaged, copied, empty."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, UnidentifiedImageError
from torchvision import transforms

from hashrobust.datasets import RetrievalDataset, dataset_info, load_dataset
from hashrobust.datasets._files import decode
from hashrobust.datasets._protocol import SPLITS
from hashrobust.datasets.image_folder import class_sizes
from hashrobust.errors import DataError, InputError, UnknownNameError


def fill(root: Path, save_image, **counts: int) -> None:  # type: ignore[no-untyped-def]
    seed = 0
    for name, count in counts.items():
        for number in range(count):
            save_image(root / name / f"{number:03}.png", seed)
            seed += 1


def paths(data: RetrievalDataset) -> dict[str, set[str]]:
    return {
        split: {getattr(data, split).path(i) for i in range(len(getattr(data, split)))} for split in SPLITS
    }


def png(array: np.ndarray, colour_type: int) -> bytes:
    """A PNG file of 16-bit samples (H, W, channels), by the specification's layout."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_every_image_stands_in_one_split_by_proportion(tmp_path: Path, save_image) -> None:  # type: ignore[no-untyped-def]
    fill(tmp_path, save_image, cat=20, dog=30)
    data = load_dataset(f"folder:{tmp_path}", image_size=16)
    assert data.classes == ("cat", "dog")
    assert data.query.labels.sum(dim=0).tolist() == [2, 3]
    assert data.validation.labels.sum(dim=0).tolist() == [2, 3]
    assert data.train.labels.sum(dim=0).tolist() == [8, 12]
    assert data.database.labels.sum(dim=0).tolist() == [8, 12]
    where = paths(data)
    assert sum(map(len, where.values())) == len(set.union(*where.values())) == 50
    for split in SPLITS:
        part = getattr(data, split)
        for i in range(len(part)):
            assert part.path(i).startswith(data.classes[int(part.labels[i].argmax())] + "/")
    assert (data.skipped, data.top_k, data.image_shape) == ((), None, (3, 16, 16))
    again = load_dataset(f"folder:{tmp_path}", image_size=16)
    assert paths(again) == where and again.fingerprint == data.fingerprint


@given(count=st.integers(4, 5000))
def test_class_sizes_leave_something_for_each_split(count: int) -> None:
    sizes = class_sizes(count)
    assert min(sizes.train, sizes.query, sizes.validation, count - sizes.total) >= 1
    assert sizes.train <= 500
    assert sizes.query == max(1, count // 10)
    assert sizes.validation >= 2 or count == 4


def test_images_are_resized_and_cropped_as_torchvision_does(tmp_path: Path, save_image) -> None:  # type: ignore[no-untyped-def]
    fill(tmp_path, save_image, a=4, b=4)
    save_image(tmp_path / "a" / "wide.png", 99, size=(90, 40))
    data = load_dataset(f"folder:{tmp_path}", image_size=28)
    reference = transforms.Compose(
        [transforms.Resize(32), transforms.CenterCrop(28), transforms.PILToTensor()]
    )
    for split in (data.train, data.database):
        for i, image in enumerate(split.images):
            with Image.open(tmp_path / split.path(i)) as original:
                assert torch.equal((image * 255).round().byte(), reference(original))
    assert load_dataset(f"folder:{tmp_path}").image_shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("x.png", "1", {}),
        ("x.png", "L", {}),
        ("x.png", "LA", {}),
        ("x.png", "P", {}),
        ("x.gif", "P", {"transparency": 0}),
        ("x.png", "RGBA", {}),
        ("x.webp", "RGBA", {}),
        ("x.jpg", "CMYK", {}),
        ("x.tif", "CMYK", {}),
        ("x.jpg", "L", {}),
        ("x.bmp", "RGB", {}),
        ("x.ppm", "RGB", {}),
        ("x.unknown", "RGB", {"format": "PNG"}),
    ],
)
def test_odd_modes_and_formats_are_read(tmp_path: Path, save_image, name, mode, options) -> None:  # type: ignore[no-untyped-def]
    fill(tmp_path, save_image, a=4, b=4)
    save_image(tmp_path / "a" / name, 50, mode=mode, **options)
    data = load_dataset(f"folder:{tmp_path}", image_size=14)
    assert data.skipped == ()
    assert f"a/{name}" in set.union(*paths(data).values())
    for split in SPLITS:
        images = getattr(data, split).images
        assert images.shape[1:] == (3, 14, 14) and images.dtype == torch.float32
        assert images.min() >= 0 and images.max() <= 1


def test_sixteen_bit_greys_are_scaled_not_clipped() -> None:
    grey = np.array([[0, 257, 32896, 65535]])[:, :, None]
    assert np.asarray(decode(png(grey, colour_type=0)))[0].tolist() == [
        [0] * 3,
        [1] * 3,
        [128] * 3,
        [255] * 3,
    ]
    colour = np.array([[[0, 32896, 65535]]])
    assert np.asarray(decode(png(colour, colour_type=2)))[0].tolist() == [[0, 128, 255]]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparent_pixels_are_laid_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 255))
    assert np.asarray(decode(encoded(image, "PNG")))[0].tolist() == [[255, 255, 255], [200, 0, 0]]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, [[1, 2, 3], [4, 5, 6]]),
        (2, [[3, 2, 1], [6, 5, 4]]),
        (3, [[6, 5, 4], [3, 2, 1]]),
        (4, [[4, 5, 6], [1, 2, 3]]),
        (5, [[1, 4], [2, 5], [3, 6]]),
        (6, [[4, 1], [5, 2], [6, 3]]),
        (7, [[6, 3], [5, 2], [4, 1]]),
        (8, [[3, 6], [2, 5], [1, 4]]),
    ],
)
def test_exif_rotation_is_applied(orientation: int, upright: list[list[int]]) -> None:
    """By the table of the Exif standard (tag 0x0112), for greys of 8 and 16 bits."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind, factor in ((np.uint8, 1), (np.uint16, 257)):
        image = Image.fromarray((np.array([[1, 2, 3], [4, 5, 6]]) * factor).astype(kind))
        turned = np.asarray(decode(encoded(image, "PNG", exif=exif)))
        assert turned[..., 0].tolist() == upright and (turned[..., :1] == turned).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_animations_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    image = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(np.asarray(image).astype(int) - (255, 0, 0)).max() <= 3


def test_cmyk_is_what_it_looks_like() -> None:
    for kind in ("JPEG", "TIFF"):
        image = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), kind))
        assert np.abs(np.asarray(image).astype(int) - (255, 0, 0)).max() <= 3


def test_useless_files_are_skipped_and_named(tmp_path: Path, save_image) -> None:  # type: ignore[no-untyped-def]
    fill(tmp_path, save_image, a=5, b=5)
    a = tmp_path / "a"
    (a / "empty.png").touch()
    (a / "notes.jpg").write_text("no image at all")
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
    (a / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (a / "cut.png").write_bytes((a / "000.png").read_bytes()[:-200])
    (a / "float.tif").write_bytes(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))
    (a / "drawing.eps").write_bytes(encoded(Image.new("RGB", (4, 4)), "EPS"))
    (a / "copy.png").write_bytes((a / "001.png").read_bytes())
    (tmp_path / "b" / "copy.png").write_bytes((a / "002.png").read_bytes())
    (a / "broken-link.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(a / "pipe.png")
    with (a / "film.mp4").open("wb") as film:
        film.truncate(2**40)  # takes no room
    (tmp_path / "README.txt").write_text("hello")
    (a / ".DS_Store").write_text("hidden")
    (tmp_path / ".cache").mkdir()
    data = load_dataset(f"folder:{tmp_path}", image_size=8)
    reasons = dict(entry.split(": ", 1) for entry in data.skipped)
    assert reasons.keys() == {
        "README.txt", "a/empty.png", "a/notes.jpg", "a/cut.jpg", "a/cut.png", "a/float.tif", "a/drawing.eps",
        "a/copy.png", "b/copy.png", "a/broken-link.png", "a/pipe.png", "a/film.mp4",
    }  # fmt: skip
    assert "empty" in reasons["a/empty.png"] and "not an image" in reasons["a/notes.jpg"]
    assert "1099511627776 bytes, more than" in reasons["a/film.mp4"]
    assert "not an image" in reasons["a/drawing.eps"] and "class folder" in reasons["README.txt"]
    assert "truncated" in reasons["a/cut.jpg"] and "copy of a/001.png" in reasons["a/copy.png"]
    assert "copy of a/002.png" in reasons["b/copy.png"]
    assert sum(len(getattr(data, split)) for split in SPLITS) == 10
    assert data.duplicates == 0


def test_no_image_starts_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript, also what lies in a file of another format."""
    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: started.append(arguments))
    drawing = encoded(Image.new("L", (4, 4)), "EPS")
    fields = {(3, 20): b"\0\4", (3, 30): b"\0\4", (3, 60): b"\1\0", (3, 120): b"\5", (8, 10): drawing}
    enveloped = b"".join(
        b"\x1c" + bytes(name) + struct.pack(">H", len(body)) + body for name, body in fields.items()
    )
    for content in (drawing, enveloped):
        with pytest.raises(UnidentifiedImageError):
            decode(content)
    assert not started


def test_nested_and_linked_class_folders_count(tmp_path: Path, save_image) -> None:  # type: ignore[no-untyped-def]
    fill(tmp_path / "elsewhere", save_image, a=4, b=4)
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (root / "b").mkdir()
    (tmp_path / "elsewhere" / "b").rename(root / "b" / "deeper")
    data = load_dataset(f"folder:{root}", image_size=8)
    assert sum(len(getattr(data, split)) for split in SPLITS) == 8
    assert any("deeper" in path for path in paths(data)["train"])


def test_folders_that_are_not_looked_into_are_named(
    tmp_path: Path,
    save_image,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A link may lead round in a circle, a folder may be closed: neither may leave images out unsaid."""
    root = tmp_path / "root"
    fill(root, save_image, a=4, b=4)
    fill(tmp_path, save_image, elsewhere=3)
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "circle").symlink_to(root)
    (root / "a" / ".more").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "closed").mkdir()
    scandir = os.scandir

    def closed(path: object) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", closed)
    data = load_dataset(f"folder:{root}", image_size=8)
    assert sum(len(getattr(data, split)) for split in SPLITS) == 8
    reasons = dict(entry.split(": ", 1) for entry in data.skipped)
    assert reasons.keys() == {"a/more", "a/circle", "b/closed"}
    assert "link to a folder" in reasons["a/more"] and reasons["b/closed"] == "Permission denied"


def test_a_tilde_is_the_users_folder(tmp_path: Path, save_image, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Shells leave it as it is behind a colon."""
    fill(tmp_path / "photos", save_image, a=4, b=4)
    monkeypatch.setenv("HOME", str(tmp_path))
    data = load_dataset("folder:~/photos", image_size=8)
    assert data.name == "folder:~/photos" and len(data.query) == 2
    assert dataset_info("folder:~/photos").present is True
    with pytest.raises(DataError, match=rf"searched '{tmp_path}/data"):
        load_dataset("cifar10", data_dir="~/data")
    with pytest.raises(DataError, match=r"folder:~nobody-of-this-name: there is no such folder"):
        load_dataset("folder:~nobody-of-this-name")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 5, "lonely": 1}, "class 'lonely' has 1 usable image"),
        ({"a": 5, "b": 3}, "class 'b' has 3"),
        ({"a": 5}, "1 class folder"),
        ({}, "0 class folders"),
    ],
)
def test_too_little_is_refused_by_name(tmp_path: Path, save_image, counts, message) -> None:  # type: ignore[no-untyped-def]
    fill(tmp_path, save_image, **counts)
    with pytest.raises(DataError, match=message):
        load_dataset(f"folder:{tmp_path}")


def test_an_empty_class_is_named(tmp_path: Path, save_image) -> None:  # type: ignore[no-untyped-def]
    fill(tmp_path, save_image, a=5)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.png").touch()
    with pytest.raises(DataError, match=r"class 'empty' has 0 usable images \(1 skipped\)"):
        load_dataset(f"folder:{tmp_path}")


def test_wrong_requests_are_explained(tmp_path: Path, save_image) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="no such folder"):
        load_dataset(f"folder:{tmp_path / 'nowhere'}")
    fill(tmp_path, save_image, a=4, b=4)
    for bad in ({"image_size": -1}, {"top_k": 0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            load_dataset(f"folder:{tmp_path}", **bad)
    assert load_dataset(f"folder:{tmp_path}", top_k=1).top_k == 1


def test_a_file_that_vanishes_later_is_named(tmp_path: Path, save_image) -> None:  # type: ignore[no-untyped-def]
    fill(tmp_path, save_image, a=4, b=4)
    data = load_dataset(f"folder:{tmp_path}")
    (tmp_path / data.query.path(0)).unlink()
    with pytest.raises(DataError, match=data.query.path(0)):
        data.query.load([0])


def test_a_folder_without_its_kind_is_told_how_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for ask in (load_dataset, dataset_info):
        for name in ("photos", Path("photos")):
            with pytest.raises(UnknownNameError, match="which is a folder here: write folder:photos if"):
                ask(name)
        with pytest.raises(UnknownNameError, match="unknown dataset 'elsewhere': known: "):
            ask("elsewhere")
