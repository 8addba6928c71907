"""Average precision and its kin, on arrays: ties in expectation, from histograms of Hamming distances."""

from __future__ import annotations

from hashrobust.metrics.bootstrap import bootstrap_interval, paired_bootstrap_interval
from hashrobust.metrics.ranking import (
    PrecisionRecallCurve,
    Ranking,
    average_precision,
    chance,
    chance_average_precision,
    distance_histograms,
    leave_one_out_average_precision,
    precision_at_k,
    precision_recall_curve,
    precision_within_radius,
    recall_at_k,
)
from hashrobust.metrics.styles import STYLES, map_in_styles, mean_average_precision
from hashrobust.metrics.summary import code_statistics, retrieval_metrics

__all__ = [
    "STYLES",
    "PrecisionRecallCurve",
    "Ranking",
    "average_precision",
    "bootstrap_interval",
    "chance",
    "chance_average_precision",
    "code_statistics",
    "distance_histograms",
    "leave_one_out_average_precision",
    "map_in_styles",
    "mean_average_precision",
    "paired_bootstrap_interval",
    "precision_at_k",
    "precision_recall_curve",
    "precision_within_radius",
    "recall_at_k",
    "retrieval_metrics",
]
