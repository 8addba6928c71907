"""The figure of a run's training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hashrobust.errors import InputError
from hashrobust.reports import labels
from hashrobust.reports.style import CHANCE, grid, legend, save, styled


@styled
def training_curves(
    history: pd.DataFrame,
    alignment: pd.DataFrame | None,
    path: Path,
    *,
    title: str = "",
    also: Sequence[str] = (),
) -> list[Path]:
    """A run's loss and validation score by epoch and, where its rule has feedback weights, the angle of
    each layer's feedback to its weights and the ratio of their norms.

    Raises:
        InputError: the history has no epoch.
    """
    if history.empty:
        raise InputError("the training history has no epoch: let `hashrobust finetune` run for at least one")
    aligned = alignment is not None and not alignment.empty
    score = "validation_accuracy" if "validation_accuracy" in history.columns else "validation_map"
    figure, axes = grid(4 if aligned else 2, width=4.6, height=3.2, columns=2)
    whole: dict[str, Any] = {"marker": "o", "markersize": 3, "color": "#0072B2"}
    for axis, column, head, factor in (
        (axes[0], "loss", "training loss", 1),
        (axes[1], score, labels.heading(score), 100),
    ):
        if column in history.columns:
            axis.plot(history["epoch"], factor * history[column].astype(float), **whole)
        axis.set_ylabel(head)
    if alignment is not None and aligned:
        _draw_alignment(axes[2], alignment, "angle_degrees", "angle of feedback to weights (degrees)")
        _draw_alignment(axes[3], alignment, "norm_ratio", "norm of feedback / norm of weights")
        axes[2].axhline(90, **{**CHANCE, "label": "90 degrees: unrelated"})
        legend(figure, axes[2:])
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if title:
        figure.suptitle(title, fontsize=10)
    return save(figure, path, also)


def _draw_alignment(axis: Axes, alignment: pd.DataFrame, column: str, head: str) -> None:
    """One line a layer, from the first (dark) to the last (light)."""
    layers = list(dict.fromkeys(alignment["layer"]))
    for position, layer in enumerate(layers):
        rows = alignment[alignment["layer"] == layer]
        depth = position / max(1, len(layers) - 1)
        axis.plot(rows["epoch"], rows[column], color=_viridis(depth), label=str(layer), linewidth=1.3)
    axis.set_ylabel(head)


def _viridis(depth: float) -> Any:
    return colormaps["viridis"](0.9 * depth)
