"""Published numbers beside ours: never called a match unless every fact of the protocol is told and equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from hashrobust.reports import labels
from hashrobust.reports.formats import Table
from hashrobust.reports.protocol import Ours, our_results
from hashrobust.reports.published import Fact, Published, published

NEAR = 0.05
"""Epsilons that differ by a larger share are not put side by side."""

COLUMNS = (
    "ours",
    "score",
    "ours (%)",
    "published (%)",
    "published by",
    "match",
    "what differs (ours / theirs)",
)
NOTES = (
    "Of each source the number that differs least, for the same task, data set, rule, defence, attack and score, and "
    "an epsilon within 5%. A match needs every fact of the protocol told by both and equal; nothing else is "
    "comparable, whatever the numbers.",
    "Ours: mAP@k and accuracy, mean ± standard deviation over seeds; under attack by the exact gradient, or without "
    "one (no gradient). Numbers by a rule's gradient and of transfer are not compared.",
)
NOTHING = (
    "No published number that ships with the package is about the same task, data set, rule, defence, attack and score "
    "as a result here."
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A number of ours and a published one.

    `differs` holds the facts that both tell and that are not equal, as (ours, theirs); `not_told` those of ours that
    the source does not tell, `not_known` those that the source tells and our run does not.
    """

    ours: Ours
    theirs: Published
    differs: dict[str, tuple[Fact, Fact]]
    not_told: tuple[str, ...]
    not_known: tuple[str, ...]

    @property
    def match(self) -> bool:
        """Whether every fact of the protocol is told by both and equal."""
        return not (self.differs or self.not_told or self.not_known)

    @property
    def distance(self) -> tuple[int, float]:
        """How far apart the protocols are: facts that are not equal, then how far the numbers among them are."""
        apart = sum(_apart(*facts) for facts in self.differs.values())
        return len(self.differs) + len(self.not_told) + len(self.not_known), apart

    @property
    def words(self) -> str:
        """What differs, spelled out."""
        parts = [f"{name}: {_said(name, a)} / {_said(name, b)}" for name, (a, b) in self.differs.items()]
        parts += [f"not told there: {', '.join(self.not_told)}"] if self.not_told else []
        parts += [f"not known here: {', '.join(self.not_known)}"] if self.not_known else []
        return "; ".join(parts)


def compare(
    frame: pd.DataFrame, results: Path, numbers: Sequence[Published] | None = None
) -> list[Comparison]:
    """For each result of ours the nearest number of each source, in the order of the frame.

    `numbers` are all that ship with the package unless given.
    """
    if numbers is None:
        numbers = [number for name in published for number in published.build(name)]
    found: list[Comparison] = []
    for ours in our_results(frame, results):
        nearest: dict[str, Comparison] = {}
        for number in numbers:
            if number.asked != ours.asked or not _near(ours, number):
                continue
            comparison = _held_against(ours, number)
            best = nearest.get(number.source)
            if best is None or comparison.distance < best.distance:
                nearest[number.source] = comparison
        found += nearest.values()
    return found


def _near(ours: Ours, number: Published) -> bool:
    a, b = (float(protocol.get("epsilon", 0)) for protocol in (ours.protocol, number.protocol))
    return abs(a - b) <= NEAR * max(a, b)


def _held_against(ours: Ours, number: Published) -> Comparison:
    own, told = ours.protocol, number.protocol
    both = [name for name in own if name in told]
    return Comparison(
        ours=ours,
        theirs=number,
        differs={name: (own[name], told[name]) for name in both if not _equal(own[name], told[name])},
        not_told=tuple(name for name in own if name not in told),
        not_known=tuple(name for name in told if name not in own),
    )


def _equal(a: Fact, b: Fact) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return math.isclose(a, b, rel_tol=1e-9)


def _apart(a: Fact, b: Fact) -> float:
    """How far apart two numbers are; 0 for words."""
    if isinstance(a, str) or isinstance(b, str) or min(a, b) <= 0:
        return 0.0
    return abs(math.log(a / b))


def _said(name: str, fact: Fact) -> str:
    if name == "epsilon":
        return labels.epsilon(float(fact))
    return fact if isinstance(fact, str) else f"{fact:.6g}"


def comparison_frame(found: Sequence[Comparison]) -> pd.DataFrame:
    """One row a comparison: scores as fractions, the protocols' differences in words."""
    return pd.DataFrame(
        [
            {
                "run": pair.ours.row["run"],
                "ours": _called(pair.ours),
                **asdict(pair.ours.asked),
                "epsilon": pair.ours.row["epsilon"],
                "gradient": pair.ours.row["gradient"],
                "ours_value": pair.ours.value,
                "ours_std": pair.ours.spread,
                "seeds": pair.ours.protocol["seeds"],
                "published_value": pair.theirs.value,
                "published_std": pair.theirs.spread,
                "source": pair.theirs.source,
                "published_as": _protocol_words(pair.theirs),
                "match": pair.match,
                "differs": "; ".join(pair.differs),
                "not_told_there": "; ".join(pair.not_told),
                "not_known_here": "; ".join(pair.not_known),
                "what_differs": pair.words,
            }
            for pair in found
        ]
    )


def comparison_table(found: Sequence[Comparison]) -> Table:
    """The comparisons as a person reads them, in percent."""
    matches = sum(pair.match for pair in found)
    title = f"Published numbers beside ours: {len(found)} side by side, {matches} by the same protocol"
    notes = NOTES if found else (NOTHING,)
    return Table(title, COLUMNS, tuple(map(comparison_cells, found)), len(COLUMNS), notes)


def comparison_cells(pair: Comparison) -> tuple[str, ...]:
    """The cells of one comparison, in the order of `COLUMNS`."""
    score = pair.ours.asked.score
    cut = "" if score == "accuracy" else "@k"
    return (
        _called(pair.ours),
        f"{labels.name(score)}{cut}",
        _percent(pair.ours.value, pair.ours.spread),
        _percent(pair.theirs.value, pair.theirs.spread),
        pair.theirs.source,
        "yes" if pair.match else "no",
        pair.words or "nothing",
    )


def _called(ours: Ours) -> str:
    row = ours.row
    said = f"{labels.what_of(row)}, {labels.rule_of(row)}"
    if row["attack"] == "none":
        return said
    gradient = {"none": "no gradient"}.get(str(row["gradient"]), f"{row['gradient']} gradient")
    return f"{said}, {row['attack']} at {labels.epsilon(row['epsilon'])}, {gradient}"


def _protocol_words(number: Published) -> str:
    return "; ".join(f"{name} {_said(name, fact)}" for name, fact in number.protocol.items())


def _percent(value: float, spread: float | None) -> str:
    return f"{100 * value:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")
