"""The gallery: queries before and after an attack, and what they retrieve or are taken for."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashrobust.experiments.store import Folder
from hashrobust.reports import labels
from hashrobust.reports.examples import read_examples
from hashrobust.reports.page.groups import Group, epsilon_rank, percent, twins

EXAMPLES = "examples/examples.npz"
MOST_ENTRIES = 12
MOST_QUERIES = 6
MOST_RETRIEVED = 5
MOST_BYTES = 4_000_000
"""Of pictures, as PNG files in base64."""
_WORDS = {"exact": "exact gradient", "none": "no gradient", "transfer": "transfer"}

Images = NDArray[np.uint8]


@dataclass
class Pictures:
    """Pictures as data URIs, equal ones stored once."""

    uris: list[str] = field(default_factory=list)
    size: int = 0
    _places: dict[str, int] = field(default_factory=dict)

    def add(self, image: Images) -> int:
        """The place of a picture (H, W, C) or (H, W), uint8."""
        pixels = image.reshape(image.shape[:2]) if image.ndim == 2 or image.shape[-1] == 1 else image
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG", optimize=True)
        uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        if uri not in self._places:
            self._places[uri] = len(self.uris)
            self.uris.append(uri)
            self.size += len(uri)
        return self._places[uri]


@dataclass(frozen=True)
class Gallery:
    """The entries that are shown, their pictures, and how many attacks with examples were left out."""

    entries: list[dict[str, Any]]
    pictures: list[str]
    left_out: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `gallery.js`."""
        return {"entries": self.entries, "pictures": self.pictures}


def gallery(found: Sequence[Group], runs: dict[str, Folder]) -> Gallery:
    """One entry an attack, beside its twin by the rule's gradient where there is one.

    Every model has its turn before one has a second, epsilons near 8/255 first.

    Raises:
        StoreError: examples are damaged.
    """
    twin = {id(other): found[place] for place, other in twins(found).items() if found[place].kind == "rule"}
    several = len({group.setting for group in found}) > 1
    waiting = [
        group
        for group in found
        if group.kind not in ("rule", "control") and _folder(group, runs).has(EXAMPLES)
    ]
    pictures, entries = Pictures(), []
    ordered = _in_turn(waiting, twin)
    for group in ordered[:MOST_ENTRIES]:
        if pictures.size >= MOST_BYTES:
            break
        of_setting = f" ({group.setting})" if several else ""
        entry = _entry(group, twin.get(id(group)), runs, pictures)
        entries.append({"name": f"{_name(group)}{of_setting}", **entry})
    return Gallery(entries, pictures.uris, len(ordered) - len(entries))


def _in_turn(waiting: Sequence[Group], twin: Mapping[int, Group]) -> list[Group]:
    def telling(group: Group) -> tuple[Any, ...]:
        left = group.mean(group.metric)
        return (group.kind != "exact", id(group) not in twin, epsilon_rank(group.epsilon), left)

    turns: dict[tuple[str, str], int] = {}
    numbered = []
    for group in sorted(waiting, key=telling):
        key = (group.setting, group.model)
        turns[key] = turns.get(key, -1) + 1
        numbered.append((turns[key], group))
    return [group for _, group in sorted(numbered, key=lambda item: (item[0], telling(item[1])))]


def _folder(group: Group, runs: dict[str, Folder]) -> Folder:
    return Folder(runs[str(group.row["run"])].path / "attacks" / Path(str(group.row["folder"])).name)


def _entry(
    group: Group, by_rule: Group | None, runs: dict[str, Folder], pictures: Pictures
) -> dict[str, Any]:
    """The exact attack's examples; the rule gradient's below each, where they are of the same queries."""
    arrays = read_examples(_folder(group, runs).file(EXAMPLES, made_by="attack"))
    other: dict[str, NDArray[Any]] | None = None
    if by_rule is not None and _folder(by_rule, runs).has(EXAMPLES):
        other = read_examples(_folder(by_rule, runs).file(EXAMPLES, made_by="attack"))
        other = other if np.array_equal(other["clean"], arrays["clean"]) else None
    metric, word = group.metric, _WORDS.get(str(group.row["gradient"]), str(group.row["gradient"]))
    said = f"{labels.name(metric)} {percent(group.mean(f'clean_{metric}'))}% unattacked; attacked, {word}: "
    said += f"{percent(group.mean(metric))}%"
    if by_rule is not None:
        said += f" (rule gradient: {percent(by_rule.mean(metric))}%)"
    queries = []
    for place in range(min(MOST_QUERIES, len(arrays["clean"]))):
        rows = [
            _row("no attack", arrays, "clean", place, pictures),
            _row(word, arrays, "adversarial", place, pictures),
        ]
        if other is not None:
            rows.append(_row("rule gradient", other, "adversarial", place, pictures))
        queries.append({"label": str(arrays["labels"][place]) if "labels" in arrays else "", "rows": rows})
    return {"said": said, "queries": queries}


def _name(group: Group) -> str:
    return f"{group.line}: {group.attack}, epsilon {labels.epsilon(group.epsilon)}"


def _row(
    word: str, arrays: dict[str, NDArray[Any]], kind: str, place: int, pictures: Pictures
) -> dict[str, Any]:
    """A query's image and its difference from the clean one, with what it retrieves or is taken for."""
    image = arrays[kind][place]
    row: dict[str, Any] = {"word": word, "image": pictures.add(image), "retrieved": []}
    if kind == "adversarial":
        difference = image.astype(int) - arrays["clean"][place].astype(int)
        factor = int(max(1, 127 // max(1, np.abs(difference).max())))
        magnified: Images = np.clip(128 + factor * difference, 0, 255).astype(np.uint8)
        row |= {"difference": pictures.add(magnified), "factor": factor}
    if f"retrieved_{kind}" in arrays:
        found = arrays[f"retrieved_{kind}"][place][:MOST_RETRIEVED]
        relevant = arrays[f"relevant_{kind}"][place][:MOST_RETRIEVED]
        row["retrieved"] = [
            [pictures.add(one), bool(is_relevant)] for one, is_relevant in zip(found, relevant, strict=True)
        ]
    if f"predicted_{kind}" in arrays:
        named = str(arrays[f"predicted_{kind}"][place])
        row |= {"predicted": named, "right": named == str(arrays["labels"][place])}
    return row
