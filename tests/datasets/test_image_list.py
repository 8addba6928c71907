"""HashNet lists, well and badly formed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashrobust.datasets import load_dataset
from hashrobust.datasets._protocol import SPLITS
from hashrobust.errors import DataError, InputError


@pytest.fixture
def folder(tmp_path: Path, save_image: Any) -> Path:
    """40 images; 24 in the database, of which 10 train; 6 queries; labels of three classes."""
    for number in range(40):
        save_image(tmp_path / "images" / f"{number}.png", number, size=(9, 8))
    write(tmp_path, "train", range(10))
    write(tmp_path, "database", range(24))
    write(tmp_path, "test", range(24, 30))
    return tmp_path


def line(number: int) -> str:
    return f"images/{number}.png {number % 2} {int(number % 3 == 0)} 1"


def write(folder: Path, name: str, numbers: range) -> None:
    (folder / f"{name}.txt").write_text("".join(f"{line(number)}\n" for number in numbers))


def append(folder: Path, name: str, text: str) -> None:
    with (folder / f"{name}.txt").open("a") as stream:
        stream.write(text)


def load(folder: Path, **own: Any) -> Any:
    return load_dataset(f"list:{folder}", image_size=8, **own)


def numbers(split: Any) -> list[int]:
    return [int(Path(split.path(i)).stem) for i in range(len(split))]


def test_lists_are_the_splits(folder: Path) -> None:
    write(folder, "validation", range(30, 35))
    data = load(folder)
    assert numbers(data.train) == list(range(10))
    assert numbers(data.query) == list(range(24, 30))
    assert numbers(data.validation) == list(range(30, 35))
    assert numbers(data.database) == list(range(24))
    for split in SPLITS:
        part = getattr(data, split)
        expected = [[n % 2, int(n % 3 == 0), 1] for n in numbers(part)]
        np.testing.assert_array_equal(part.labels.numpy(), expected)
    assert (data.multi_label, data.classes, data.top_k) == (True, ("0", "1", "2"), None)
    assert data.train.images.shape == (10, 3, 8, 8)
    train_ids, database_ids = data.train.ids.tolist(), data.database.ids.tolist()
    assert set(train_ids) < set(database_ids)  # one image, one id, in whichever list
    assert data.train.path(3) == data.database.path(database_ids.index(train_ids[3])) == "images/3.png"


def test_validation_is_held_out_of_the_database_outside_train(folder: Path) -> None:
    data, again = load(folder), load(folder)
    assert numbers(data.validation) == numbers(again.validation)
    assert len(data.validation) == 1  # a tenth of the 14 outside train
    assert set(numbers(data.validation)) <= set(range(10, 24))
    assert sorted(numbers(data.database) + numbers(data.validation)) == list(range(24))
    assert numbers(data.train) == list(range(10))


def test_a_thousand_are_held_out_of_large_databases(
    tmp_path: Path, monkeypatch: Any, save_image: Any
) -> None:
    """On 10,000 listed images that share a few files' content only in name, by a stub for reading them."""
    import hashrobust.datasets._files as module

    def fake(paths: list[Path], progress: object) -> list[bytes]:
        return [path.name.encode() for path in paths]

    monkeypatch.setattr(module, "inspect_files", fake)
    write(tmp_path, "train", range(50))
    write(tmp_path, "test", range(50, 60))
    for size, held in ((60 + 9_999, 999), (60 + 10_007, 1000)):
        (tmp_path / "database.txt").write_text(
            "".join(f"{line(n)}\n" for n in [*range(50), *range(60, size)])
        )
        data = load(tmp_path)
        assert len(data.validation) == held
        assert data.top_k == 5000


def test_validation_never_takes_an_image_with_a_copy(folder: Path) -> None:
    for number in range(10, 20):
        (folder / "images" / f"{number}.png").write_bytes((folder / "images" / "20.png").read_bytes())
    write(folder, "database", range(34))
    write(folder, "test", range(34, 40))
    data = load(folder)
    assert not set(numbers(data.validation)) & set(range(21))
    assert data.duplicates == 11


def test_too_small_a_database_asks_for_a_validation_list(folder: Path) -> None:
    write(folder, "database", range(10))
    with pytest.raises(DataError, match=r"validation\.txt"):
        load(folder)


def test_every_second_test_line_can_be_validation(folder: Path) -> None:
    data = load(folder, validation_from="test", top_k=20)
    assert data.top_k == 20
    assert numbers(data.query) == [24, 26, 28]
    assert numbers(data.validation) == [25, 27, 29]
    assert numbers(data.database) == list(range(24))
    with pytest.raises(InputError, match="validation_from"):
        load(folder, validation_from="train")


def test_queries_in_the_database_are_refused_unless_waived(folder: Path) -> None:
    append(folder, "database", line(25) + "\n")
    with pytest.raises(DataError, match=r"images/25\.png.*allow_overlap=True"):
        load(folder)
    assert load(folder, allow_overlap=True).overlap == 1


def test_a_copy_under_another_name_is_found(folder: Path) -> None:
    (folder / "images" / "23.png").write_bytes((folder / "images" / "26.png").read_bytes())
    with pytest.raises(DataError, match=r"images/26\.png' is database 'images/23\.png"):
        load(folder)


def test_listed_validation_in_the_database_is_refused(folder: Path) -> None:
    write(folder, "validation", range(22, 31, 8))
    with pytest.raises(DataError, match=r"validation 'images/22\.png' is database"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images/38.png 0 1\n", r"database\.txt:25: 2 labels .* 3"),
        ("images/38.png 0 1 0 1\n", r"database\.txt:25: 4 labels .* 3"),
        ("images/38.png\n", r"database\.txt:25"),
        ("0 1 0\n", r"database\.txt:25"),
        ("images/38.png 0 2 0\n", r"database\.txt:25: 1 labels"),
        ("images/38.png 0 1 -1\n", r"database\.txt:25"),
        ("images/38.png a b c\n", r"database\.txt:25"),
        ("\n\n../outside.png 0 1 0\n", r"database\.txt:27: '\.\./outside\.png' leaves"),
        ("images/../../outside.png 0 1 0\n", r"database\.txt:25: .* leaves"),
        ("/etc/passwd 0 1 0\n", r"database\.txt:25: '/etc/passwd' leaves"),
        ("link/x.png 0 1 0\n", r"database\.txt:25: 'link/x\.png' leaves"),
        (". 0 1 0\n", r"database\.txt:25"),
        ("images/\0.png 0 1 0\n", r"database\.txt:25"),
        ("images/3.png 1 1 0\n", r"database\.txt:25: 'images/3\.png' has other labels"),
    ],
)
def test_malformed_lines_are_refused_with_their_place(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, text: str, message: str
) -> None:
    (folder / "link").symlink_to(tmp_path_factory.mktemp("outside"))
    append(folder, "database", text)
    with pytest.raises(DataError, match=message):
        load(folder)


def test_spaces_windows_line_ends_and_byte_order_marks_are_read(folder: Path, save_image: Any) -> None:
    save_image(folder / "my images" / "a 1.png", 77)
    lines = [*(line(number) for number in range(24)), "", "my images/a 1.png 0\t1 0"]
    (folder / "database.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    data = load(folder)
    found = {split.path(i) for split in (data.database, data.validation) for i in range(len(split))}
    assert "my images/a 1.png" in found


def test_names_may_hold_what_python_takes_for_the_end_of_a_line(folder: Path, save_image: Any) -> None:
    odd = "images/a\u2028b\x85c\x0bd.png"
    save_image(folder / odd, 78)
    (folder / "train.txt").write_text(f"{odd} 0 1 0\n" + (folder / "train.txt").read_text(), encoding="utf-8")
    data = load(folder)
    assert data.train.path(0) == odd and len(data.train) == 11


def test_repeated_lines_count_once_and_are_named(folder: Path) -> None:
    append(folder, "database", f"{line(3)}\n./{line(4)}\n")
    data = load(folder)
    assert len(data.database) + len(data.validation) == 24
    assert [entry.split(":")[:2] for entry in data.skipped] == [
        ["database.txt", "25"],
        ["database.txt", "26"],
    ]


def test_unusable_files_are_refused_with_count_and_names(folder: Path) -> None:
    images = folder / "images"
    (images / "1.png").unlink()
    (images / "2.png").write_bytes(b"")
    (images / "3.png").write_bytes(b"text")
    (images / "4.png").write_bytes((images / "4.png").read_bytes()[:100])
    with pytest.raises(
        DataError, match=r"4 of 30 .*images/1\.png: No such file.*2\.png: it is empty.*3\.png"
    ):
        load(folder)


def test_many_unusable_files_are_not_all_named(folder: Path) -> None:
    for number in range(20):
        (folder / "images" / f"{number}.png").unlink()
    with pytest.raises(DataError, match="20 of 30") as caught:
        load(folder)
    assert "4.png" in str(caught.value) and "9.png" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00binary"])
def test_lists_without_lines_or_text_are_refused(folder: Path, content: bytes) -> None:
    (folder / "test.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"test\.txt"):
        load(folder)


def test_missing_lists_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "test.txt").unlink()
    with pytest.raises(DataError, match=r"lacks test\.txt"):
        load(folder)
    with pytest.raises(DataError, match=r"train\.txt, test\.txt, database\.txt"):
        load(tmp_path / "nowhere")


def test_images_may_lie_below_another_root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    lists = tmp_path_factory.mktemp("lists")
    for name in ("train", "test", "database"):
        (folder / f"{name}.txt").rename(lists / f"{name}.txt")
    assert numbers(load(lists, root=folder).train) == list(range(10))
    with pytest.raises(DataError, match="root="):
        load(lists)


def test_class_names_come_from_their_file(folder: Path) -> None:
    (folder / "classes.txt").write_text("sky\nsea lion\n\nsand\n")
    assert load(folder).classes == ("sky", "sea lion", "sand")
    (folder / "classes.txt").write_text("sky\nsea\n")
    with pytest.raises(DataError, match="2 classes and the lists have 3"):
        load(folder)


def test_fingerprint_follows_the_lists_and_the_images(folder: Path, save_image: Any) -> None:
    before = load(folder).fingerprint
    assert load(folder).fingerprint == before
    write(folder, "train", range(9))
    changed_list = load(folder).fingerprint
    write(folder, "train", range(10))
    save_image(folder / "images" / "5.png", 1234)
    assert len({before, changed_list, load(folder).fingerprint}) == 3
