"""The table of a run's or of anybody's unattacked scores."""

from __future__ import annotations

import numpy as np

from hashrobust.metrics import retrieval_metrics
from hashrobust.reports.evaluation import metrics_table


def rows_of(table):
    return {row[0].strip(): row[1:] for row in table.rows}


def test_every_number_of_retrieval_is_shown_once():
    generator = np.random.default_rng(0)
    codes = np.where(generator.random((40, 12)) < 0.5, -1, 1)
    labels = generator.integers(0, 3, 40)
    metrics = retrieval_metrics(codes[:10], codes, labels[:10], labels, k=7) | {"map_style_h2q": 0.125}
    table = metrics_table("mine", metrics)
    rows = rows_of(table)
    assert table.title.startswith("mine: 10 queries, 40 database images, 12 bits, ")
    assert rows["mAP@7"] == (
        f"{100 * metrics['map_at_k']:.2f}",
        f"[{100 * metrics['map_at_k_low']:.2f}, {100 * metrics['map_at_k_high']:.2f}]",
        f"{100 * metrics['chance_map_at_k']:.2f}",
    )
    assert rows["mAP@7 in the style h2q"] == ("12.50", "", "")
    aside = ("_low", "_high", "chance_", "queries", "database", "bits", "distinct_codes")
    shown = [name for name in metrics if name == "empty_queries" or not any(word in name for word in aside)]
    assert len(table.rows) == len(shown) - 1  # k stands in the names


def test_accuracy_stands_beside_chance():
    metrics = {
        "accuracy": 0.5,
        "accuracy_low": 0.4,
        "accuracy_high": 0.6,
        "chance_accuracy": 0.1,
        "validation_accuracy": 0.55,
        "queries": 180,
    }
    table = metrics_table("mine", metrics)
    assert table.title == "mine: 180 test images"
    assert rows_of(table)["accuracy on the test images"] == ("50.00", "[40.00, 60.00]", "10.00")
    assert rows_of(table)["accuracy on the validation images"] == ("55.00", "", "")


def test_numbers_that_are_none_are_dashes():
    """As they are stored: a correlation of bits that are all alike, for one."""
    metrics = {
        "map": 0.5,
        "map_at_k": None,
        "map_at_k_low": None,
        "map_at_k_high": None,
        "bit_correlation": None,
    }
    table = metrics_table(
        "mine", metrics | dict.fromkeys(("k", "queries", "database", "bits", "distinct_codes"))
    )
    rows = rows_of(table)
    assert rows["mAP, the whole database ranked"] == ("50.00", "", "")
    assert rows["mAP@—"] == ("—", "[—, —]", "") and rows["bit correlation"] == ("—", "", "")
