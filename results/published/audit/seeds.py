"""The worst case of each model against both seeds of backpropagation, with paired 95% intervals over queries.

    python seeds.py RESULTS

The worst case is that of the attacks which the models and both seeds went through alike.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from hashrobust.experiments.store import Folder, list_runs
from hashrobust.metrics import bootstrap_interval, paired_bootstrap_interval

CONTROL = "control: "


def audits(results: Path) -> dict[str, pd.DataFrame]:
    """The audit of each run that took the most work: average precision, one row a query."""
    found: dict[str, tuple[int, Folder]] = {}
    for run in list_runs(results):
        for audit in run.audits():
            work = int(audit.config.get("restarts") or 0)
            if audit.has("audit.json") and work >= found.get(run.name, (0, audit))[0]:
                found[run.name] = (work, audit)
    return {
        name: audit.read_table("queries.parquet", made_by="audit").set_index("query_id")
        for name, (_, audit) in found.items()
    }


def main(results: Path) -> None:
    """Print the table as CSV."""
    tables = audits(results)
    (first,) = [name for name in tables if "-bp-s0-" in name]
    parts = [c.removeprefix(CONTROL) for c in tables[first].columns if c.startswith(CONTROL)]
    seeds = {
        "bp, seed 0": tables[first][parts].min(axis=1),
        "bp, seed 1": tables[first][[CONTROL + part for part in parts]].min(axis=1),
    }
    rows = []
    for name, table in tables.items():
        worst = table[parts].min(axis=1)
        low, high = bootstrap_interval(worst)
        row = {"model": name, "worst_map": worst.mean(), "worst_map_low": low, "worst_map_high": high}
        for seed, of_seed in seeds.items():
            low, high = paired_bootstrap_interval(worst, of_seed.loc[worst.index])
            row |= {f"over {seed}": (worst - of_seed).mean(), f"low {seed}": low, f"high {seed}": high}
        rows.append(row)
    pd.DataFrame(rows).round(4).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
