"""Pictures of images: what an attack changed and what was retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hashrobust.errors import InputError
from hashrobust.reports.examples import read_examples
from hashrobust.reports.style import IRRELEVANT, RELEVANT, save, styled

Images = np.ndarray[Any, np.dtype[np.uint8]]
_CELL = 1.15
_MARGIN = 0.05
_ABOVE: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 8}
_SIDEWAYS: dict[str, Any] = {"ha": "right", "va": "center", "rotation": 90, "fontsize": 8}


@styled
def attack_examples(
    npz: Path, path: Path, *, limit: int = 8, title: str = "", also: Sequence[str] = ()
) -> list[Path]:
    """A row an example: clean image, adversarial image, their difference magnified, and what each of
    the two retrieves first, or which class it is given; green with a tick where relevant or right, else red.

    Raises:
        StoreError: the file is missing, damaged, or lacks an array.
    """
    arrays = {name: array[:limit] for name, array in read_examples(npz).items()}
    classes = "predicted_clean" in arrays
    shown = 0 if classes else min(5, arrays["retrieved_clean"].shape[1])
    count = len(arrays["clean"])
    starts = {"clean": 3.25, "adversarial": 3.5 + shown}
    width = 6.6 if classes else starts["adversarial"] + shown
    figure = Figure(figsize=(_CELL * width + 0.5, _CELL * count + 1.2), layout="constrained")
    # All in one: an axis for each of some hundred small images would take ten times as long.
    axis = figure.add_subplot()
    _draw_changes(axis, arrays)
    if classes:
        _draw_predictions(axis, arrays)
    else:
        _draw_results(axis, arrays, starts, shown)
        figure.supxlabel(
            "✓ green frame: shares a label with the query      ✗ red frame: shares none", fontsize=9
        )
    axis.set(xlim=(-0.1, width), ylim=(count, -0.1), aspect="equal")
    axis.axis("off")
    if title:
        figure.suptitle(title, fontsize=10)
    return save(figure, path, also)


def _draw_changes(axis: Axes, arrays: dict[str, Any]) -> None:
    """Clean image, adversarial image and their difference magnified, a row an example."""
    difference = arrays["adversarial"].astype(int) - arrays["clean"].astype(int)
    factor = int(max(1, 127 // max(1, np.abs(difference).max())))
    magnified = np.clip(128 + factor * difference, 0, 255).astype(np.uint8)
    columns = {
        "clean": arrays["clean"],
        "adversarial": arrays["adversarial"],
        f"difference\nx{factor}, grey: none": magnified,
    }
    for row, label in enumerate(arrays["labels"]):
        axis.text(-0.05, row + 0.5, _short(str(label)), **_SIDEWAYS)
        for column, stack in enumerate(columns.values()):
            _place(axis, stack[row], column, row)
    for column, head in enumerate(columns):
        axis.text(column + 0.5, -0.05, head, **_ABOVE)


def _draw_results(axis: Axes, arrays: dict[str, Any], starts: dict[str, float], shown: int) -> None:
    """What the clean and the adversarial image retrieve first, marked by relevance; gaps set the lists apart."""
    for kind, start in starts.items():
        for rank in range(shown):
            head = f"{kind}\nretrieves #{rank + 1}" if rank == 0 else f"#{rank + 1}"
            axis.text(start + rank + 0.5, -0.05, head, **_ABOVE)
            for row in range(len(arrays["clean"])):
                _place(axis, arrays[f"retrieved_{kind}"][row, rank], start + rank, row)
                _mark(axis, bool(arrays[f"relevant_{kind}"][row, rank]), start + rank, row)


def _draw_predictions(axis: Axes, arrays: dict[str, Any]) -> None:
    """The classes that the clean and the adversarial image are given, green where right."""
    for row, label in enumerate(arrays["labels"]):
        for line, kind in enumerate(("clean", "adversarial")):
            given = str(arrays[f"predicted_{kind}"][row])
            right = given == str(label)
            axis.text(
                3.2,
                row + 0.35 + 0.35 * line,
                f"{kind}: {_short(given)} {'✓' if right else '✗'}",
                color=RELEVANT if right else IRRELEVANT,
                va="center",
                fontsize=9,
            )


@styled
def search_picture(
    query: Images,
    results: Images,
    distances: Sequence[int],
    captions: Sequence[str],
    path: Path,
    *,
    relevant: Sequence[bool] | None = None,
    also: Sequence[str] = (),
) -> list[Path]:
    """A query image (H, W, C) beside its results (n, H, W, C), uint8, each with its Hamming distance
    and caption; framed by relevance where that is known.

    Raises:
        InputError: no result, or lists of unequal length.
    """
    count = len(results)
    if count == 0 or not count == len(distances) == len(captions):
        raise InputError(
            f"search picture got {count} result images, {len(distances)} distances and "
            f"{len(captions)} captions: "
            "give at least one result, and one of each for every result"
        )
    if relevant is not None and len(relevant) != count:
        raise InputError(
            f"search picture got {len(relevant)} relevance marks for {count} results: give one each"
        )
    columns = min(5, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.5 * (columns + 1.4), 2.0 * rows + 0.4), layout="constrained")
    grid = figure.add_gridspec(rows, columns + 2, width_ratios=[1.2, 0.15, *([1] * columns)])
    _show(figure.add_subplot(grid[:, 0]), query, "query")
    for position in range(count):
        axis = figure.add_subplot(grid[position // columns, 2 + position % columns])
        _show(axis, results[position], f"#{position + 1}, distance {distances[position]}")
        axis.set_xlabel(_short(captions[position]), fontsize=8)
        if relevant is not None:
            _frame(axis, bool(relevant[position]))
    return save(figure, path, also)


def _place(axis: Axes, image: Images, x: float, y: float) -> None:
    """Draw an image into the cell of side 1 whose upper left corner is (x, y), rows counted downward."""
    extent = (x + _MARGIN, x + 1 - _MARGIN, y + 1 - _MARGIN, y + _MARGIN)
    axis.imshow(_pixels(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent)


def _mark(axis: Axes, relevant: bool, x: float, y: float) -> None:
    """A coloured frame around a cell, and a mark in its corner."""
    colour = RELEVANT if relevant else IRRELEVANT
    side = 1 - 2 * _MARGIN
    corner = (x + _MARGIN, y + _MARGIN)
    axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=2.5))
    axis.text(x + 1 - 2 * _MARGIN, y + 2 * _MARGIN, "✓" if relevant else "✗", **_corner(colour))


def _pixels(image: Images) -> Images:
    """(H, W) of a grey image, (H, W, 3) of others."""
    return image.reshape(image.shape[:2]) if image.ndim == 2 or image.shape[-1] == 1 else image


def _corner(colour: str) -> dict[str, Any]:
    box = {"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "none"}
    return {"ha": "right", "va": "top", "fontsize": 8, "color": "white", "bbox": box}


def _show(axis: Axes, image: Images, head: str) -> None:
    axis.imshow(_pixels(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    axis.set_title(head, fontsize=8)


def _frame(axis: Axes, relevant: bool) -> None:
    """A coloured frame, and a mark in the corner for eyes that do not tell the colours apart."""
    colour = RELEVANT if relevant else IRRELEVANT
    for spine in axis.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.5)
    axis.text(0.97, 0.97, "✓" if relevant else "✗", transform=axis.transAxes, **_corner(colour))


def _short(text: str, length: int = 22) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
