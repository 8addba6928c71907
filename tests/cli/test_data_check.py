"""What `hashrobust data check` finds, and what `hashrobust list datasets` tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hashrobust.datasets import datasets


@pytest.fixture
def lists(tmp_path):
    """30 images: 10 train, 5 queries, 15 in the database, 2 to validate."""
    root = tmp_path / "lists"
    root.mkdir()
    generator = np.random.default_rng(0)
    for number in range(32):
        Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(root / f"{number}.png")
    numbers = {
        "train": range(10),
        "test": range(10, 15),
        "database": range(15, 30),
        "validation": range(30, 32),
    }
    for name, chosen in numbers.items():
        lines = "".join(f"{number}.png {number % 2} {int(number % 3 == 0)}\n" for number in chosen)
        (root / f"{name}.txt").write_text(lines)
    return root


def check(cli, root: Path, code: int) -> dict[str, dict]:
    outcome = cli("data", "check", f"list:{root}", "--json")
    assert outcome.code == code, outcome.err
    return {row["check"]: row for row in json.loads(outcome.out)}


def test_a_sound_dataset_passes(cli, lists):
    found = check(cli, lists, 0)
    assert {name: row["outcome"] for name, row in found.items()} == dict.fromkeys(
        ("counts", "readability", "copies", "leakage", "leakage by pixels"), "pass"
    )
    assert found["counts"]["words"].startswith("train 10, query 5, validation 2, database 15; 2 classes; ")
    assert found["readability"]["words"] == "32 files are sound"


def test_images_without_labels_are_counted(cli, lists):
    without = sum(n % 2 == 0 and n % 3 != 0 for n in range(10, 32))
    assert f"; {without} images without a label" in check(cli, lists, 0)["counts"]["words"]


def test_every_broken_file_is_named(cli, lists):
    for number in range(7):
        (lists / f"{number}.png").write_bytes(b"" if number % 2 else b"text")
    found = check(cli, lists, 1)
    assert found["readability"]["outcome"] == "fail"
    assert [case.partition(":")[0] for case in found["readability"]["cases"]] == [
        f"{n}.png" for n in range(7)
    ]


def test_a_picture_that_breaks_off_late_is_found(cli, lists, tmp_path):
    """A coarse look at a JPEG may end before the damage."""
    generator = np.random.default_rng(1)
    noise = Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(lists / "20.jpg", quality=95)
    text = (lists / "database.txt").read_text().replace("20.png", "20.jpg")
    (lists / "database.txt").write_text(text)
    assert check(cli, lists, 0)
    whole = (lists / "20.jpg").read_bytes()
    (lists / "20.jpg").write_bytes(whole[: len(whole) - 400])
    (case,) = check(cli, lists, 1)["readability"]["cases"]
    assert case.startswith("20.jpg: ")


def test_queries_in_the_database_are_leakage(cli, lists):
    (lists / "17.png").write_bytes((lists / "11.png").read_bytes())
    (lists / "3.png").write_bytes((lists / "31.png").read_bytes())
    found = check(cli, lists, 1)
    assert found["leakage"]["outcome"] == "fail"
    assert found["leakage"]["cases"] == [
        "query 11.png is database 17.png",
        "validation 31.png is train 3.png",
    ]
    assert found["copies"]["outcome"] == "note"
    assert found["copies"]["cases"] == ["3.png = 31.png", "11.png = 17.png"]


def test_the_same_picture_in_another_file_is_noted(cli, lists):
    Image.open(lists / "11.png").save(lists / "17.png", compress_level=0)
    found = check(cli, lists, 0)
    assert found["leakage"]["outcome"] == found["copies"]["outcome"] == "pass"
    assert found["leakage by pixels"]["outcome"] == "note"
    assert found["leakage by pixels"]["cases"] == ["query 11.png is database 17.png"]


def test_what_breaks_the_protocol_fails(cli, lists):
    (lists / "test.txt").write_text("10.png 1\n")
    assert "labels" in check(cli, lists, 1)["loading"]["words"]


@pytest.mark.parametrize("task", ["hashing", "classification"])
def test_data_without_files_are_checked_too(cli, task):
    outcome = cli("data", "check", "digits", "--task", task)
    assert outcome.code == 0, outcome.err
    assert "counts" in outcome.out and "PASS" in outcome.out and "FAIL" not in outcome.out
    assert "1797 images" in outcome.out


def test_a_table_and_the_first_cases_are_shown(cli, lists):
    for number in range(15, 29):
        (lists / f"{number}.png").unlink()
    outcome = cli("data", "check", f"list:{lists}")
    assert outcome.code == 1 and "FAIL" in outcome.out
    assert (
        "readability: 15.png: No such file" in outcome.err and "and 4 more: --json names all" in outcome.err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check"], "name one dataset"),
        (["digits", "mnist"], "name one dataset"),
        (["check", "digts"], "did you mean 'digits'"),
        (["check", "mscoco"], "hashrobust data mscoco --download"),
        (["nuswide", "--download"], "cannot be downloaded"),
    ],
)
def test_wrong_words_are_told(cli, tmp_path, words, message):
    outcome = cli("data", *words, "--data-dir", tmp_path)
    assert outcome.code == 2 and outcome.out == "" and message in outcome.err


def test_the_list_tells_all_of_each_dataset(cli, tmp_path):
    rows = json.loads(cli("list", "datasets", "--json", "--data-dir", tmp_path).out)
    assert [row["name"] for row in rows] == list(datasets)
    for row in rows:
        for field in ("description", "source", "size", "protocol", "licence", "what fetches it", "state"):
            assert row[field], (row["name"], field)
    places = {row["name"]: row["looked for in"] for row in rows}
    assert str(tmp_path / "mscoco") in places["mscoco"] and places["list"] == []
    text = cli("list", "datasets", "--data-dir", tmp_path).out
    for word in ("nuswide", "licence", "Creative Commons", "looked for in", "195,834"):
        assert word in text
