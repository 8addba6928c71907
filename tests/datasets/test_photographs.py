"""NUS-WIDE-21, MS-COCO, FLICKR-25K and ImageNet100 from small files of the layouts that their owners give out."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hashrobust.datasets import (
    RetrievalDataset,
    _files,
    dataset_info,
    datasets,
    flickr25k,
    imagenet100,
    load_classification,
    load_dataset,
    mscoco,
    nuswide,
)
from hashrobust.datasets._photographs import Locator, Photographs, draw
from hashrobust.datasets._protocol import SPLITS
from hashrobust.errors import DataError, HashRobustError, InputError

SETS: dict[str, Photographs] = {
    "nuswide": nuswide.NUSWIDE,
    "mscoco": mscoco.MSCOCO,
    "flickr25k": flickr25k.FLICKR25K,
    "imagenet100": imagenet100.IMAGENET100,
}
COUNT = 60
SMALL = {"train": 10, "query": 6, "validation": 4, "top_k": 20}
RANDOM = np.random.default_rng(0)
NUS_LABELS = (RANDOM.random((COUNT, 21)) < 0.15).astype(int)
MIR_LABELS = (RANDOM.random((COUNT, 38)) < 0.1).astype(int)


def sizes(data: RetrievalDataset) -> list[int]:
    return [len(getattr(data, split)) for split in SPLITS]


def by_path(data: RetrievalDataset) -> dict[str, list[int]]:
    """The labels of every image by its path."""
    return {
        split.path(place): split.labels[place].tolist()
        for split in (data.train, data.query, data.validation, data.database)
        for place in range(len(split))
    }


# The protocols


@pytest.mark.parametrize(
    ("name", "count", "classes", "expected"),
    [
        ("nuswide", 195_834, 21, [10_500, 2_100, 2_100, 181_134]),
        ("mscoco", 123_287, 80, [10_000, 5_000, 5_000, 103_287]),
        ("flickr25k", 25_000, 38, [5_000, 1_700, 1_000, 22_300]),
    ],
)
def test_splits_have_the_protocols_sizes(name: str, count: int, classes: int, expected: list[int]) -> None:
    kind = SETS[name]
    labels = np.zeros((count, classes), dtype=np.uint8)
    labels[np.arange(count), np.arange(count) % classes] = 1
    labels[:400] = 0  # nobody can ask for them
    digests = [number.to_bytes(4, "big") for number in range(count)]
    digests[1000] = digests[2000]
    members = draw(kind, labels, digests)
    assert (len(kind.classes), len(set(kind.classes)), kind.top_k) == (classes, classes, 5000)
    assert [len(members[split]) for split in SPLITS] == expected
    ids = {split: set(members[split].tolist()) for split in SPLITS}
    assert ids["train"] <= ids["database"] if kind.train_in_database else not ids["train"] & ids["database"]
    assert set.union(*ids.values()) == set(range(count))
    for split in ("train", "query", "validation"):
        assert not ids[split] & {*range(400), 1000, 2000}
        assert split == "train" or not ids[split] & ids["database"]
    assert not ids["query"] & ids["validation"] and not ids["train"] & (ids["query"] | ids["validation"])
    assert all((members[split] == draw(kind, labels, digests)[split]).all() for split in SPLITS)


def test_too_few_images_are_refused() -> None:
    labels = np.ones((7_700, 38), dtype=np.uint8)
    with pytest.raises(DataError, match="7700 different images have a label, and the protocol draws 7700"):
        draw(flickr25k.FLICKR25K, labels, [bytes([n // 256, n % 256]) for n in range(7_700)])


@pytest.mark.parametrize("name", list(SETS))
def test_absent_sets_say_what_fetches_them(name: str, tmp_path: Path) -> None:
    info = dataset_info(name, data_dir=tmp_path)
    assert info.present is False and str(tmp_path / name) in info.places
    with pytest.raises(DataError, match=f"{name} is not on this machine") as caught:
        load_dataset(name, data_dir=tmp_path)
    assert info.fetch in str(caught.value)


@pytest.mark.parametrize("name", ["mscoco", "flickr25k", "nuswide"])
def test_several_labels_are_no_classification(name: str) -> None:
    with pytest.raises(InputError, match="no classification protocol"):
        load_classification(name)


def test_images_are_found_in_any_of_the_layouts(tmp_path: Path) -> None:
    for file in ("a/x_1.jpg", "train/x/x_2.jpg", "val/x_3.jpg"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    locate = Locator(tmp_path, ["{path}", "train/{synset}/{name}", "val/{name}"])
    assert locate("a\\x_1.jpg") == "a/x_1.jpg"
    assert locate("/of/another/machine/image/x_2.jpg") == "train/x/x_2.jpg"
    assert locate("../../elsewhere/x_3.jpg") == "val/x_3.jpg"
    assert locate("a/x_1.jpg") == "a/x_1.jpg"
    for listed in ("../x_4.jpg", "/etc/passwd", "a/../../../etc/passwd"):
        found = locate(listed)
        assert ".." not in found and not found.startswith("/")


# NUS-WIDE: a list of images, and a file of 0 and 1 for each concept


def nus_name(number: int) -> str:
    return f"actor\\{number:04}_{number * 77}.jpg"


@pytest.fixture
def nus(tmp_path: Path, save_image: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "NUS-WIDE"
    (root / "ImageList").mkdir(parents=True)
    (root / "Groundtruth" / "AllLabels").mkdir(parents=True)
    lines = "".join(f"{nus_name(number)}\r\n" for number in range(COUNT))
    (root / "ImageList" / "Imagelist.txt").write_bytes(lines.encode())
    for concept, column in zip(nuswide.CONCEPTS, NUS_LABELS.T, strict=True):
        file = root / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt"
        file.write_text("".join(f"{label}\n" for label in column))
    for number in np.flatnonzero(NUS_LABELS.any(axis=1)).tolist():
        save_image(root / "Flickr" / nus_name(number).replace("\\", "/"), number, size=(9, 8))
    monkeypatch.setattr(nuswide, "ALL_IMAGES", COUNT)
    monkeypatch.setattr(nuswide, "IMAGES", int(NUS_LABELS.any(axis=1).sum()))
    monkeypatch.setattr(nuswide, "NUSWIDE", replace(nuswide.NUSWIDE, **SMALL))
    return root


def load(name: str, data_dir: Path) -> RetrievalDataset:
    return load_dataset(name, data_dir=data_dir, image_size=8)


def test_nuswide_is_what_its_text_files_say(nus: Path) -> None:
    data = load("nuswide", nus.parent)
    expected = {
        f"Flickr/{nus_name(number)}".replace("\\", "/"): NUS_LABELS[number].tolist()
        for number in range(COUNT)
        if NUS_LABELS[number].any()
    }
    assert by_path(data) == expected
    assert sizes(data) == [10, 6, 4, len(expected) - 20]
    assert (data.multi_label, data.classes[:2], data.top_k) == (True, ("animal", "beach"), 20)
    assert data.query.load([2]).shape == (1, 3, 8, 8)
    (nus / "Groundtruth" / "AllLabels").rename(nus / "AllLabels")  # as the archive itself unpacks
    (nus / "Flickr" / "actor").rename(nus / "images")
    again = load("nuswide", nus.parent)
    assert again.fingerprint == data.fingerprint and again.query.path(0).startswith("images/")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("Labels_lake.txt", lambda text: text + "1\n", r"Labels_lake\.txt' has 61 lines and NUS-WIDE 60 images"),
        ("Labels_lake.txt", lambda text: "-1130179\n" + text[2:], r"Labels_lake\.txt:1: '-1130179' is neither 0 nor 1"),
        ("Labels_sky.txt", lambda text: text.replace("1", "0"), r"one of the 21 concepts, and NUS-WIDE-21 has"),
        ("Imagelist.txt", lambda text: text[: len(text) // 2], r"Imagelist\.txt' names \d+ images"),
    ],
)  # fmt: skip
def test_malformed_nuswide_is_refused(
    nus: Path, file: str, change: Callable[[str], str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = nus.rglob(file)
    path.write_text(change(path.read_text()))
    monkeypatch.setattr(nuswide, "IMAGES", -1 if "one of the 21" in message else nuswide.IMAGES)
    with pytest.raises(DataError, match=message):
        load("nuswide", nus.parent)


def test_missing_photographs_are_counted_and_named(nus: Path) -> None:
    gone = sorted((nus / "Flickr" / "actor").iterdir())[:2]
    for path in gone:
        path.unlink()
    with pytest.raises(DataError, match=rf"nuswide: 2 of \d+ images.*{gone[0].name}.*list:") as caught:
        load("nuswide", nus.parent)
    assert isinstance(caught.value, _files.BrokenImagesError) and len(caught.value.broken) == 2


# MS-COCO: a json of images, objects and their kinds


def coco_json(images: range, part: str, year: str) -> dict[str, Any]:
    """Image ids do not begin at 0 nor run on, nor do those of categories; image 7 of 8 is empty."""
    stem = f"COCO_{part}2014_" if year == "2014" else ""
    return {
        "info": {"description": "COCO"},
        "licenses": [],
        "images": [
            {"id": 9 + 5 * n, "file_name": f"{stem}{9 + 5 * n:012}.jpg", "height": 8, "width": 9}
            for n in images
        ],
        "annotations": [
            {
                "id": 100 * n + k,
                "image_id": 9 + 5 * n,
                "category_id": kind,
                "bbox": [1, 1, 2, 2],
                "iscrowd": 0,
            }
            for n in images
            if n % 8 != 7
            for k, kind in enumerate([1, 90 if n % 3 else 44, 1])
        ],
        "categories": [
            {"supercategory": "x", "id": number, "name": name}
            for number, name in [(1, "person"), (44, "bottle"), (90, "toothbrush")]
        ],
    }


@pytest.fixture
def coco(tmp_path: Path, save_image: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setattr(mscoco, "IMAGES", COUNT)
    monkeypatch.setattr(mscoco, "MSCOCO", replace(mscoco.MSCOCO, **SMALL))

    def lay_out(year: str = "2014", cut: int = 40, place: str = "coco") -> Path:
        root = tmp_path / year / place
        (root / "annotations").mkdir(parents=True)
        for part, images in (("train", range(cut)), ("val", range(cut, COUNT))):
            content = coco_json(images, part, year)
            (root / "annotations" / f"instances_{part}{year}.json").write_text(json.dumps(content))
            for number, entry in zip(images, content["images"], strict=True):
                save_image(root / f"{part}{year}" / entry["file_name"], number, size=(9, 8))
        return root

    return lay_out


def test_mscoco_is_what_its_annotations_say(coco: Callable[..., Path]) -> None:
    root = coco()
    data = load("mscoco", root.parent)
    assert sizes(data) == [10, 6, 4, 40]
    found = by_path(data)
    person, bottle, brush = (data.classes.index(name) for name in ("person", "bottle", "toothbrush"))
    assert (person, bottle, brush) == (0, 39, 79)
    for n in range(COUNT):
        part = "train" if n < 40 else "val"
        expected = [0] * 80
        if n % 8 != 7:
            expected[person] = expected[brush if n % 3 else bottle] = 1
        assert found[f"{part}2014/COCO_{part}2014_{9 + 5 * n:012}.jpg"] == expected
    empty = {f"{9 + 5 * n:012}" for n in range(COUNT) if n % 8 == 7}
    for split in (data.train, data.query, data.validation):
        assert not empty & {split.path(place)[-16:-4] for place in range(len(split))}


def test_both_years_of_mscoco_are_one_dataset(coco: Callable[..., Path]) -> None:
    """2017 parts the same photographs otherwise and names them otherwise."""
    one, other = load("mscoco", coco("2014").parent), load("mscoco", coco("2017", cut=55).parent)
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-30], "cannot be read"),
        (lambda text: "[" * 200_000, "cannot be read"),
        (lambda text: "[1, 2]", "lacks lists of images, annotations, categories"),
        (lambda text: text.replace('"category_id": 90', '"category_id": 91'), r"format.*KeyError\(91\)"),
        (lambda text: text.replace("toothbrush", "tooth brush"), "format of MS-COCO"),
        (
            lambda text: text.replace('"image_id": 9,', '"image_id": 8,'),
            "an object in image 8, which it does not",
        ),
        (lambda text: text.replace('"id": 9,', '"id": 14,'), "names 59 images and MS-COCO has 60"),
        (lambda text: text.replace('"id": 9,', '"id": [9],'), "format of MS-COCO"),
    ],
)
def test_malformed_annotations_are_refused(
    coco: Callable[..., Path], change: Callable[[str], str], message: str
) -> None:
    root = coco()
    file = root / "annotations" / "instances_train2014.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(DataError, match=message):
        load("mscoco", root.parent)


# FLICKR-25K: a list of image numbers for each annotation


@pytest.fixture
def flickr(tmp_path: Path, save_image: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "flickr25k"
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "README.txt").write_text("MIRFLICKR-25000 annotations")
    for name, column in zip(flickr25k.ANNOTATIONS, MIR_LABELS.T, strict=True):
        numbers = (np.flatnonzero(column) + 1).tolist()
        (root / "annotations" / f"{name}.txt").write_text("".join(f"{number}\r\n" for number in numbers))
    for number in range(COUNT):
        save_image(root / "mirflickr" / f"im{number + 1}.jpg", number, size=(9, 8))
    monkeypatch.setattr(flickr25k, "IMAGES", COUNT)
    monkeypatch.setattr(flickr25k, "FLICKR25K", replace(flickr25k.FLICKR25K, **SMALL))
    return root


def test_flickr25k_is_what_its_annotations_say(flickr: Path) -> None:
    data = load("flickr25k", flickr.parent)
    assert by_path(data) == {f"mirflickr/im{n + 1}.jpg": MIR_LABELS[n].tolist() for n in range(COUNT)}
    assert sizes(data) == [10, 6, 4, COUNT - 10]
    assert set(data.train.ids.tolist()) < set(data.database.ids.tolist())
    assert data.classes[:4] == ("animals", "baby", "baby_r1", "bird") and data.multi_label
    assert bool(data.query.labels.any(dim=1).all())


@pytest.mark.parametrize(
    "line", ["61", "0", "-3", "im3.jpg", "3 4", "99999999999999999999", "³", "00000000199999", "9" * 5000]
)
def test_malformed_annotation_numbers_are_refused(flickr: Path, line: str) -> None:
    (flickr / "annotations" / "dog_r1.txt").write_text(f"1\n\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"dog_r1\.txt:3: '.*' is no number from 1 to 60"):
        load("flickr25k", flickr.parent)


def test_flickr25k_is_fetched_part_by_part(
    flickr: Path, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that fails does not hide the others, nor is one that came fetched again."""
    remotes = []
    for remote, folder in zip(flickr25k.FLICKR25K.remotes, ("mirflickr", "annotations"), strict=True):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for file in sorted((flickr / folder).iterdir()):
                archive.write(file, file.name if folder == "annotations" else f"mirflickr/{file.name}")
        site.files[remote.name] = packed.getvalue()
        digest = hashlib.md5(packed.getvalue()).hexdigest()
        remotes.append(replace(remote, addresses=(f"{site.address}/{remote.name}",), md5=digest))
    monkeypatch.setattr(flickr25k, "FLICKR25K", replace(flickr25k.FLICKR25K, remotes=tuple(remotes)))
    late = site.files.pop(remotes[1].name)
    with pytest.raises(HashRobustError, match="flickr25k could not be downloaded"):
        load_dataset("flickr25k", data_dir=tmp_path / "new", image_size=8, download=True)
    assert dataset_info("flickr25k", data_dir=tmp_path / "new").present is False
    site.files = {remotes[1].name: late}
    data = load_dataset("flickr25k", data_dir=tmp_path / "new", image_size=8, download=True)
    assert data.fingerprint == load("flickr25k", flickr.parent).fingerprint
    left = sorted(path.name for path in (tmp_path / "new" / "flickr25k").iterdir())
    assert left == ["annotations", "mirflickr"]


@pytest.mark.parametrize("name", ["mscoco", "flickr25k"])
def test_what_tells_that_a_set_is_here_comes_last(name: str) -> None:
    """Else a set of which a part is lacking would pass for whole, and the rest would never be fetched."""
    *before, last = SETS[name].remotes
    assert set(last.makes) in [set(layout) for layout in SETS[name].layouts]
    files = {file for layout in SETS[name].layouts for file in layout}
    assert not files & {made for remote in before for made in remote.makes}


# HashNet lists


@pytest.fixture
def imagenet(tmp_path: Path, save_image: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HashNet's own lists, with absolute paths of another machine, beside ImageNet as its owners give it out."""
    root = tmp_path / "imagenet100"
    home = "/of/another/machine/imagenet"

    def line(number: int, path: str) -> str:
        return f"{path} {' '.join(str(int(column == number % 5)) for column in range(5))}\n"

    train = {n: f"n{n % 5:08}_{n}.JPEG" for n in range(30)}
    test = {n: f"ILSVRC2012_val_{n:08}.JPEG" for n in range(30, 40)}
    for number, name in train.items():
        save_image(root / "train" / name.partition("_")[0] / name, number, size=(9, 8))
    for number, name in test.items():
        save_image(root / "val" / name, number, size=(9, 8))
    images = [line(n, f"{home}/image/{name}") for n, name in train.items()]
    (root / "train.txt").write_text("".join(images[:10]))
    (root / "database.txt").write_text("".join(images))
    (root / "test.txt").write_text("".join(line(n, f"{home}/val_image/{name}") for n, name in test.items()))
    small = {"train": 10, "query": 5, "validation": 5, "classes": tuple("01234")}
    monkeypatch.setattr(imagenet100, "IMAGENET100", replace(imagenet100.IMAGENET100, **small))
    return root


def test_imagenet100_follows_hashnets_lists(imagenet: Path) -> None:
    data = load("imagenet100", imagenet.parent)
    assert sizes(data) == [10, 5, 5, 30] and not data.multi_label
    numbers = [int(data.query.path(place)[-13:-5]) for place in range(5)]
    assert numbers == [30, 32, 34, 36, 38]
    assert [int(data.validation.path(place)[-13:-5]) for place in range(5)] == [31, 33, 35, 37, 39]
    assert data.train.path(1) == "train/n00000001/n00000001_1.JPEG"
    assert data.train.labels.argmax(dim=1).tolist() == [0, 1, 2, 3, 4] * 2
    assert (imagenet100.IMAGENET100.top_k, data.top_k) == (1000, None)
    assert sum(len(split) for split in (data.query, data.validation)) == 10
    own = load_classification("imagenet100", data_dir=imagenet.parent, image_size=8)
    assert (len(own.train) + len(own.validation), len(own.test)) == (10, 10)


def test_queries_that_published_lists_have_in_the_database_are_refused_unless_waived(imagenet: Path) -> None:
    (query,) = (imagenet / "val").glob("*30.JPEG")
    (imagenet / "train" / "n00000001" / "n00000001_21.JPEG").write_bytes(query.read_bytes())
    with pytest.raises(DataError, match=r"imagenet100: 1 query .*n00000001_21\.JPEG.*allow_overlap=True"):
        load("imagenet100", imagenet.parent)
    assert all("allow_overlap" in datasets.parameters(name) for name in SETS)
    waived = load_dataset("imagenet100", data_dir=imagenet.parent, image_size=8, allow_overlap=True)
    assert waived.overlap == 1 and sizes(waived) == [10, 5, 5, 30]


def test_photographs_may_lie_behind_a_link(imagenet: Path, tmp_path: Path) -> None:
    before = load("imagenet100", imagenet.parent).fingerprint
    (imagenet / "train").rename(tmp_path / "elsewhere")
    (imagenet / "train").symlink_to(tmp_path / "elsewhere")
    assert load("imagenet100", imagenet.parent).fingerprint == before


def test_lists_of_other_sizes_are_of_another_protocol(imagenet: Path) -> None:
    whole = (imagenet / "train.txt").read_text().splitlines(keepends=True)
    (imagenet / "train.txt").write_text("".join(whole[:9]))
    with pytest.raises(DataError, match=r"train list names 9 images, not 10.*read them by list:"):
        load("imagenet100", imagenet.parent)
    (imagenet / "train.txt").write_text("".join(whole))
    for name in ("train", "test", "database"):
        text = (imagenet / f"{name}.txt").read_text()
        (imagenet / f"{name}.txt").write_text(text.replace("\n", " 0\n"))
    with pytest.raises(DataError, match="the lists have 6 classes, not 5"):
        load("imagenet100", imagenet.parent)


def test_lists_win_over_the_layout_and_hold_validation_out(flickr: Path) -> None:
    def write(name: str, numbers: range) -> None:
        lines = [f"im{n + 1}.jpg {' '.join(map(str, MIR_LABELS[n]))}\n" for n in numbers]
        (flickr / f"{name}.txt").write_text("".join(lines))

    write("train", range(10))
    write("database", range(50))
    write("test", range(50, 56))
    data = load("flickr25k", flickr.parent)
    assert sizes(data) == [10, 6, 4, 46]
    assert [data.query.path(place) for place in range(6)] == [
        f"mirflickr/im{n + 1}.jpg" for n in range(50, 56)
    ]
    assert not set(data.validation.ids.tolist()) & set(data.train.ids.tolist())
    write("database", range(12))
    with pytest.raises(DataError, match="too few to hold out 4"):
        load("flickr25k", flickr.parent)


def test_images_do_not_differ_from_those_of_lists(imagenet: Path, tmp_path: Path) -> None:
    data = load("imagenet100", imagenet.parent)
    for name in ("train", "test", "database"):
        text = (imagenet / f"{name}.txt").read_text()
        for line in text.splitlines():
            path = line.split()[0]
            file = Path(path).name
            place = f"train/{file.partition('_')[0]}/{file}" if file.startswith("n") else f"val/{file}"
            text = text.replace(path, place)
        (imagenet / f"{name}.txt").write_text(text)
    listed = load_dataset(f"list:{imagenet}", image_size=8, validation_from="test", top_k=1000)
    assert listed.fingerprint == data.fingerprint
    assert torch.equal(listed.query.images, data.query.images)
