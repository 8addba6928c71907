"""Which attacks belong to audits. An audit varies its main attack in every way, so that tables and figures of
results could not be read with all of them; they stand in the audits' own tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from hashrobust.experiments.store import Folder
from hashrobust.reports.summary import records

RESULT = "audit.json"
AUDIT, PART = "audit", "audit_part"
"""Columns of a results frame: the audits that an attack belongs to and its parts there, `; ` between several."""

_MAIN_PARTS = {"main", "by rule", "control: main", "control: by rule"}
_SEPARATOR = "; "
_SERIES = (
    "attack",
    "preset",
    "goal",
    "queries",
    "attack_seed",
    "attack_query_seed",
    "surrogate",
    "warm_start",
)


def membership(runs: Sequence[Folder]) -> dict[str, dict[str, str]]:
    """The columns `audit` and `audit_part` of each attack folder (`<run>/attacks/<attack>`) that the finished
    audits of these runs list.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        for audit in run.audits():
            if not audit.has(RESULT):
                continue
            for attack in audit.read_json(RESULT, made_by="audit")["attacks"]:
                if "folder" in attack:
                    name = f"{run.name}/audits/{audit.name}"
                    found.setdefault(attack["folder"], []).append((name, attack["part"]))
    return {
        folder: {
            AUDIT: _SEPARATOR.join(dict.fromkeys(audit for audit, _ in places)),
            PART: _SEPARATOR.join(dict.fromkeys(part for _, part in places)),
        }
        for folder, places in found.items()
    }


def without_audits(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows that tables and figures show, and a sentence on those left out, if any are.

    Left out are attacks of audits, unless they differ from an attack outside of audits in epsilon, gradient or run
    alone and so belong to its series. Where all attacks are of audits, the main ones stay, by the exact gradient
    and by the rule's.
    """
    rows = records(frame)
    series = {_series(row) for row in rows if row["attack"] != "none" and not _in_audit(row)}
    kept = [not _in_audit(row) or _series(row) in series for row in rows]
    what = "Attacks that belong to audits alone are left out of tables and figures"
    if not series:
        main = [_in_audit(row) and _is_main(row) for row in rows]
        if not any(main):
            return frame, []
        kept = [keep or of_main for keep, of_main in zip(kept, main, strict=True)]
        what = "Every attack belongs to an audit: tables and figures show the audits' main attack; left out"
    if all(kept):
        return frame, []
    rest = frame[kept].reset_index(drop=True)
    rest.attrs = dict(frame.attrs)
    return rest, [f"{what}: {kept.count(False)} (in the results files all are kept, see column {AUDIT})."]


def _in_audit(row: dict[str, Any]) -> bool:
    return isinstance(row.get(AUDIT), str)


def _is_main(row: dict[str, Any]) -> bool:
    return bool(_MAIN_PARTS & set(str(row[PART]).split(_SEPARATOR)))


def _series(row: dict[str, Any]) -> tuple[str, ...]:
    """What the attacks of a sweep over epsilons, gradients and runs share."""
    names = [name for name in row if name in _SERIES or name.startswith("params.")]
    return tuple(f"{name}={row[name]}" for name in names)
