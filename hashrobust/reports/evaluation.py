"""What is measured of unattacked codes or of a classifier, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from hashrobust.reports import labels
from hashrobust.reports.formats import Table

_HASHING = {
    "map": "mAP, the whole database ranked",
    "map_best_ties": "  with ties at their best",
    "map_worst_ties": "  with ties at their worst",
    "map_at_k": "mAP@{k}",
    "precision_at_k": "precision@{k}",
    "recall_at_k": "recall@{k}",
    "precision_radius_2": "precision within Hamming radius 2",
    "empty_queries": "queries with nothing relevant",
    "bit_balance": "bit balance",
    "bit_correlation": "bit correlation",
    "map_style_default": "mAP@{k} in the style default",
    "map_style_deephash": "mAP@{k} in the style deephash",
    "map_style_dhta": "mAP@{k} in the style dhta",
    "map_style_textbook": "mAP@{k} in the style textbook",
    "map_style_h2q": "mAP@{k} in the style h2q",
}
_CLASSIFICATION = {
    "accuracy": "accuracy on the test images",
    "validation_accuracy": "accuracy on the validation images",
}


_SIZES = {
    "queries": "queries",
    "database": "database images",
    "bits": "bits",
    "distinct_codes": "distinct codes",
}
_NOTES: tuple[str, ...] = (
    "Ties in expectation, but for the styles deephash, dhta and h2q.",
    "Intervals: over queries, not over seeds.",
)


def metrics_table(title: str, metrics: Mapping[str, float | None]) -> Table:
    """The numbers of `retrieval_metrics`, or those of a classifier, in words and percent, a dash for none."""
    if "map" in metrics:
        words, sizes, notes = _HASHING, _SIZES, _NOTES
    else:
        words, sizes = _CLASSIFICATION, {"queries": "test images"}
        notes = ("Interval: over test images, not over seeds.",)
    settings = ", ".join(f"{_count(metrics[name])} {word}" for name, word in sizes.items())
    rows = (
        (
            word.format(k=_count(metrics.get("k", 0))),
            _percent(metrics, name),
            _interval(metrics, name),
            _percent(metrics, f"chance_{name}"),
        )
        for name, word in words.items()
        if name in metrics
    )
    columns = ("", "%", "95% interval", "chance")
    return Table(f"{title}: {settings}", columns, tuple(rows), words=1, notes=notes)


def _count(number: float | None) -> str:
    return labels.MISSING if number is None else f"{number:.0f}"


def _percent(metrics: Mapping[str, float | None], name: str) -> str:
    if name not in metrics:
        return ""
    number = metrics[name]
    return labels.MISSING if number is None else f"{100 * number:.2f}"


def _interval(metrics: Mapping[str, float | None], name: str) -> str:
    low, high = f"{name}_low", f"{name}_high"
    return f"[{_percent(metrics, low)}, {_percent(metrics, high)}]" if low in metrics else ""
