"""The scores of each query under each attack of a results frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hashrobust.experiments import store
from hashrobust.experiments.documents import understood
from hashrobust.experiments.measures import MEASURES
from hashrobust.experiments.store import Folder
from hashrobust.reports.summary import records

QUERIES = "queries.parquet"


def scores(attack: Folder, task: str) -> pd.DataFrame | None:
    """One row a query of an attack: `query_id`, `clean`, `score` as fractions; None if it has no table of queries.

    Raises:
        StoreError: the table is damaged.
    """
    if not attack.has(QUERIES):
        return None
    score = MEASURES[task].score
    columns = {"query_id": "query_id", f"clean_{score}": "clean", score: "score"}
    table = attack.read_table(QUERIES, made_by="attack")
    with understood(attack.path / QUERIES):
        missing = [name for name in columns if name not in table.columns]
        if missing:
            raise ValueError(f"it has no column {', '.join(missing)}")
        found = table[[*columns]].rename(columns=columns).astype({"clean": float, "score": float})
        if found.empty or not np.isfinite(found.to_numpy(dtype=float)).all():
            raise ValueError("it holds no finite score for each query")
    return found


class Queries:
    """Reads what the attacks of a results folder did to each query."""

    def __init__(self, results: Path) -> None:
        self._runs = {run.name: run.path for run in store.list_runs(results)}

    def of(self, row: Mapping[str, Any]) -> pd.DataFrame | None:
        """One row a query of an attack (a row of the results frame), by id: `query_id`, `clean`, `score` as fractions.

        None for what is no attack, or has no table of queries.

        Raises:
            StoreError: the table is damaged.
        """
        if row["attack"] == "none":
            return None
        folder = Folder(self._runs[row["run"]] / "attacks" / Path(row["folder"]).name)
        table = scores(folder, str(row["task"]))
        return None if table is None else table.sort_values("query_id", ignore_index=True)


def queries_frame(frame: pd.DataFrame, results: Path) -> pd.DataFrame:
    """One row a query and attack: the attack's `folder` as in the results frame, then `query_id`, `clean`, `score`."""
    queries = Queries(results)
    found = [(row["folder"], queries.of(row)) for row in records(frame)]
    tables = [table.assign(folder=folder) for folder, table in found if table is not None]
    if not tables:
        return pd.DataFrame(columns=["folder", "query_id", "clean", "score"])
    whole = pd.concat(tables, ignore_index=True)[["folder", "query_id", "clean", "score"]]
    return whole.astype({"folder": "category", "clean": "float32", "score": "float32"})
