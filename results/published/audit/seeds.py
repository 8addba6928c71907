"""The worst case of each model against both seeds of backpropagation, with paired 95% intervals over queries.

    python seeds.py RESULTS

The worst case is that of the attacks which the models and both seeds went through alike.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from hashrobust.experiments.store import list_runs
from hashrobust.metrics import bootstrap_interval, paired_bootstrap_interval

CONTROL = "control: "
Key = tuple[str, int]
"""A run and the number of starts that its audited attack had."""


def audits(results: Path) -> dict[Key, pd.DataFrame]:
    """Every finished audit: average precision, one row a query."""
    return {
        (run.name, int(audit.config.get("restarts", 2))): audit.read_table(
            "queries.parquet", made_by="audit"
        ).set_index("query_id")
        for run in list_runs(results)
        for audit in run.audits()
        if audit.has("audit.json")
    }


def main(results: Path) -> None:
    """Print the table as CSV; models are compared with seeds that were attacked as hard."""
    tables = audits(results)
    twins = {starts: table for (name, starts), table in tables.items() if "-bp-s0-" in name}
    rows = []
    for (name, starts), table in tables.items():
        twin = twins[starts]
        parts = [c.removeprefix(CONTROL) for c in twin if c.startswith(CONTROL)]
        seeds = {"seed 0": twin[parts].min(axis=1), "seed 1": twin[[CONTROL + p for p in parts]].min(axis=1)}
        worst = table[parts].min(axis=1)
        low, high = bootstrap_interval(worst)
        row = {"model": name, "starts": starts, "worst_map": worst.mean(), "low": low, "high": high}
        for seed, of_seed in seeds.items():
            low, high = paired_bootstrap_interval(worst, of_seed.loc[worst.index])
            row |= {f"over bp, {seed}": (worst - of_seed).mean(), f"{seed} low": low, f"{seed} high": high}
        rows.append(row)
    pd.DataFrame(rows).round(4).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
