"""Published numbers: what ships, what is put side by side, and that nothing else than equality is called a match."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hashrobust.reports.comparison import compare, comparison_frame, comparison_table
from hashrobust.reports.frame import results_frame
from hashrobust.reports.page import write_page
from hashrobust.reports.protocol import Ours, our_results, plain_name
from hashrobust.reports.published import Published, published
from hashrobust.reports.published._base import read_header, read_table
from hashrobust.reports.write import write_report

TABLES = {
    "biotorch_square_attack.csv": ("biotorch-square-attack", 48),
    "biotorch_top1_error.csv": ("biotorch-top1-error", 54),
    "h2q_clean_map.csv": ("h2q-clean-map", 1536),
    "saat_attacks.csv": ("saat-attacks", 204),
}


def numbers(name: str, **asked: Any) -> list[Published]:
    return [
        number
        for number in published.build(name)
        if all(getattr(number.asked, key) == value for key, value in asked.items())
    ]


@pytest.mark.parametrize(("file", "name", "rows"), [(f, *rest) for f, rest in TABLES.items()])
def test_every_row_of_every_table_ships_with_its_source(file: str, name: str, rows: int) -> None:
    assert "Source: " in read_header(file)
    found = published.build(name)
    assert len(read_table(file)) == len(found) == rows
    assert all(0 < number.value < 1 and number.source and number.protocol for number in found)
    assert set(published) == {name for name, _ in TABLES.values()}


def test_numbers_are_those_of_the_papers() -> None:
    (lenet,) = numbers("biotorch-top1-error", dataset="fashion-mnist", rule="frsf")
    assert (
        lenet.value == pytest.approx(1 - 0.0961) and lenet.protocol["epoch kept"] == "best on the test images"
    )
    first = numbers("h2q-clean-map", dataset="cifar10")[0]
    assert (first.value, first.spread, first.protocol["bits"]) == (0.798, 0.006, 16)
    (attacked,) = [
        number
        for number in numbers(
            "saat-attacks", dataset="nuswide", attack="center", goal="non-targeted", defence="none"
        )
        if number.protocol["bits"] == 32
    ]
    assert attacked.value == 0.1189
    square = numbers("biotorch-square-attack", rule="bp", attack="none")
    assert [number.value for number in square] == [0.92]


@pytest.fixture
def retrieval(tmp_path: Path, make: dict[str, Any]) -> Path:
    """AlexNet on CIFAR-10 over two seeds, attacked by both gradients, as in the tables but for what is not."""
    root = tmp_path / "results"
    for seed in (0, 1):
        run = make["run"](root, "bp", seed, dataset="cifar10", backbone="alexnet", learning_rate=1e-5)
        for gradient in ("exact", "rule:frsf"):
            make["attack"](run, 0.2, attack="center", epsilon=8 / 255, gradient=gradient, preset="saat")
    return root


def test_the_nearest_number_of_each_source_stands_beside_ours_with_what_differs(retrieval: Path) -> None:
    (pair,) = compare(results_frame(retrieval), retrieval)
    assert pair.theirs.source.startswith("H2Q") and not pair.match
    assert pair.theirs.protocol["network"] == "alexnet" and pair.theirs.protocol["bits"] == 32
    assert pair.ours.value == pytest.approx(0.915) and pair.ours.spread == pytest.approx(0.00707, abs=1e-4)
    assert pair.ours.protocol["seeds"] == 2 and pair.differs["seeds"] == (2, 4)
    assert "network" not in pair.differs and "optimizer" not in pair.differs
    assert pair.differs["epochs"] == (20, 100)
    assert "epochs: 20 / 100" in pair.words and "not told there" in pair.words
    table = comparison_table([pair])
    assert "0 by the same protocol" in table.title and table.rows[0][5] == "no"


def ours_of(results: Path, attack: str) -> Ours:
    (found,) = [ours for ours in our_results(results_frame(results), results) if ours.asked.attack == attack]
    return found


@pytest.mark.parametrize("attack", ["none", "center"])
def test_only_equality_of_every_fact_is_a_match(retrieval: Path, attack: str) -> None:
    ours, frame = ours_of(retrieval, attack), results_frame(retrieval)
    twin = Published(source="a twin", asked=ours.asked, value=0.5, protocol=ours.protocol)

    def match(protocol: Any) -> bool:
        (pair,) = compare(frame, retrieval, [replace(twin, protocol=protocol)])
        assert pair.match == (not pair.words)
        return pair.match

    assert match(ours.protocol)
    for name, fact in ours.protocol.items():
        without = {key: value for key, value in ours.protocol.items() if key != name}
        assert name == "epsilon" or not match(without), f"{name} is not told"
        other = f"{fact}, otherwise" if isinstance(fact, str) else fact * 1.01
        assert not match(without | {name: other}), f"{name} differs"
    assert not match({**ours.protocol, "warm-up": "5 epochs"})


def test_a_rotation_is_part_of_the_protocol(tmp_path: Path, make: dict[str, Any]) -> None:
    root = tmp_path / "results"
    make["run"](root, "bp", 0, dataset="cifar10", backbone="alexnet", rotate="itq")
    assert "rotated by itq after training" in str(ours_of(root, "none").protocol["quantisation"])


def test_an_equal_number_is_no_match(retrieval: Path) -> None:
    ours = ours_of(retrieval, "none")
    twin = Published(source="a twin", asked=ours.asked, value=ours.value, protocol={"bits": 32})
    (pair,) = compare(results_frame(retrieval), retrieval, [twin])
    assert not pair.match and "network" in pair.not_told


def test_numbers_by_a_rules_gradient_are_not_compared(retrieval: Path) -> None:
    gradients = {ours.row["gradient"] for ours in our_results(results_frame(retrieval), retrieval)}
    assert gradients == {"none", "exact"}


@pytest.mark.parametrize(
    ("epsilon", "beside"), [(0.031, True), (8 / 255, True), (4 / 255, False), (16 / 255, False)]
)
def test_only_near_epsilons_stand_side_by_side(retrieval: Path, epsilon: float, beside: bool) -> None:
    ours = ours_of(retrieval, "center")
    told = Published(
        source="a twin", asked=ours.asked, value=0.2, protocol={**ours.protocol, "epsilon": epsilon}
    )
    found = compare(results_frame(retrieval), retrieval, [told])
    assert bool(found) == beside
    if beside:
        assert found[0].match == (epsilon == 8 / 255)
        assert found[0].match or "epsilon: 8/255 / 7.905/255" in found[0].words


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("cifar10", "cifar10"),
        ("list:data/nus-wide", "nuswide"),
        ("NUS-WIDE-21", "nuswide"),
        ("list:coco/", "mscoco"),
        ("fashion-mnist", "fashion-mnist"),
        ("folder:cifar10", "folder:cifar10"),
    ],
)
def test_data_sets_have_one_name(ours: str, theirs: str) -> None:
    assert plain_name(ours) == theirs


def test_the_report_holds_the_comparison_where_it_is_asked_for(retrieval: Path, tmp_path: Path) -> None:
    names = {path.name for path in write_report(retrieval, tmp_path / "plain", formats=["csv", "md"])}
    assert not names & {"published.csv", "published.md"}
    write_report(retrieval, tmp_path / "with", formats=["csv", "md"], published=True)
    stored = pd.read_csv(tmp_path / "with" / "published.csv")
    assert list(stored["match"]) == [False] and "H2Q" in stored["source"][0]
    assert "Published numbers beside ours" in (tmp_path / "with" / "summary.md").read_text()
    assert "not told there" in (tmp_path / "with" / "published.md").read_text()
    page = write_page(retrieval, tmp_path / "page.html", published=True).read_text()
    assert "Published numbers beside ours" in page
    assert "Published numbers beside ours" not in write_page(retrieval, tmp_path / "page.html").read_text()


def test_without_anything_to_compare_the_table_says_so(results: Path) -> None:
    assert compare(results_frame(results), results) == []
    table = comparison_table([])
    assert table.rows == () and "No published number" in table.notes[0]
    assert json.loads(comparison_frame([]).to_json(orient="records")) == []
