"""Classification protocols: official tests, a tenth of train to validate, no image on both sides."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hashrobust.datasets import ClassificationDataset, load_classification, load_dataset
from hashrobust.datasets._memory import MemoryImages
from hashrobust.datasets._protocol import classification
from hashrobust.errors import DataError, InputError

SPLITS = ("train", "validation", "test")


def pool(contents: list[int], targets: list[int], test: list[bool] | None = None) -> ClassificationDataset:
    """Images of 1x2 pixels that hold a number each: equal number, equal image."""
    pixels = np.array([[[[c // 256, c % 256]]] for c in contents], dtype=np.uint8)
    mask = None if test is None else np.array(test)
    return classification("pool", MemoryImages("pool", pixels), np.array(targets), ["a", "b"], mask)


def ids(data: ClassificationDataset) -> dict[str, set[int]]:
    return {split: set(getattr(data, split).ids.tolist()) for split in SPLITS}


def test_digits_are_split_by_class() -> None:
    data = load_classification("digits")
    found = ids(data)
    assert all(not found[one] & found[other] for one, other in combinations(SPLITS, 2))
    assert set.union(*found.values()) == set(range(1797))
    classes = {split: getattr(data, split).labels.sum(dim=0) for split in SPLITS}
    whole = sum(classes.values())
    assert torch.equal(classes["test"], whole // 10)
    assert torch.equal(classes["validation"], (whole - whole // 10) // 10)
    assert data.asked is data.test and not data.multi_label
    again = load_classification("digits")
    assert again.fingerprint == data.fingerprint != load_dataset("digits").fingerprint
    assert torch.equal(again.train.ids, data.train.ids)


def test_the_official_test_set_is_kept_whole() -> None:
    test = [i % 3 == 0 for i in range(120)]
    data = pool(list(range(120)), [i % 2 for i in range(120)], test)
    assert ids(data)["test"] == {i for i in range(120) if i % 3 == 0}
    assert len(data.validation) == 8 and len(data.train) == 72


def test_train_images_that_are_test_images_are_left_out_and_named() -> None:
    contents = list(range(60))
    contents[1] = contents[3] = contents[0]  # 0 is a test image, 1 and 3 copies of it
    contents[7] = contents[5]  # a copy within train
    data = pool(contents, [i % 2 for i in range(60)], [i < 1 or i >= 40 for i in range(60)])
    found = ids(data)
    assert 0 in found["test"] and not {1, 3} & (found["train"] | found["validation"])
    assert {5, 7} <= found["train"], "copies do not validate"
    assert [line.split(":")[0] for line in data.skipped] == ["pool/1", "pool/3"]
    assert data.duplicates == 5


def test_a_class_that_is_missing_in_a_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"class 'b' is left for the train split"):
        pool([1, 2, 3, 4], [0, 0, 0, 1], [False, False, True, True])


def test_lists_take_train_and_test_and_pass_over_the_database(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines: dict[str, list[str]] = {"train": [], "test": [], "database": []}
    for number in range(60):
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        split = ("train", "train", "test", "database")[number // 2 % 4]
        lines[split].append(f"{number}.png {1 - number % 2} {number % 2}")
    for split, rows in lines.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(rows))
    data = load_classification(f"list:{tmp_path}", image_size=8)
    assert (len(data.train) + len(data.validation), len(data.test)) == (
        len(lines["train"]),
        len(lines["test"]),
    )
    halved = load_classification(f"list:{tmp_path}", image_size=8, validation_from="test")
    assert halved.fingerprint == data.fingerprint
    # An image of the test list does not train, whether by its name or by a copy; one of the database is no matter.
    (tmp_path / "7.png").write_bytes((tmp_path / "5.png").read_bytes())
    (tmp_path / "0.png").write_bytes((tmp_path / "5.png").read_bytes())
    assert lines["train"][0].startswith("0.png") and lines["database"][1].startswith("7.png")
    (tmp_path / "train.txt").write_text("\n".join([*lines["train"], lines["test"][0]]))
    shared = load_classification(f"list:{tmp_path}", image_size=8)
    assert shared.skipped == (
        "4.png: it is on the test list too",
        "0.png: it is an exact copy of a test image",
    )
    assert len(shared.train) + len(shared.validation) == len(lines["train"]) - 1
    assert len(shared.test) == len(lines["test"])
    (tmp_path / "train.txt").write_text("\n".join([*lines["train"][1:], "0.png 1 1"]))
    with pytest.raises(DataError, match="several labels"):
        load_classification(f"list:{tmp_path}", image_size=8)


def test_folders_are_split_by_class(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for title in ("cat", "dog"):
        (tmp_path / title).mkdir()
        for number in range(20):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / title / f"{number}.png")
    data = load_classification(f"folder:{tmp_path}", image_size=8)
    assert [len(getattr(data, split)) for split in SPLITS] == [34, 2, 4]


def test_the_other_protocol_has_its_own_function() -> None:
    with pytest.raises(InputError, match="load_classification"):
        load_dataset("digits", protocol="classification")
