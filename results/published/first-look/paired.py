"""Exact-gradient AP of each rule's run minus that of bp's, on the same queries: python paired.py RESULTS."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from hashrobust.experiments.store import list_runs
from hashrobust.metrics import paired_bootstrap_interval


def main() -> None:
    """Print the table as CSV."""
    scores = {}
    for run in list_runs(Path(sys.argv[1])):
        for attack in run.attacks():
            if (attack.config["attack"], attack.config["gradient"]) == ("center", "exact"):
                key = (run.config["backbone"], run.config["rule"], round(255 * attack.config["epsilon"]))
                scores[key] = attack.read_table("queries.parquet", made_by="attack")
    rows = []
    for (backbone, rule, epsilon), own in sorted(scores.items()):
        if rule == "bp":
            continue
        base = scores[backbone, "bp", epsilon]
        row = {"backbone": backbone, "rule": rule, "epsilon_255": epsilon}
        for column in ("clean_ap", "ap"):
            low, high = paired_bootstrap_interval(own[column], base[column])
            row |= {column: (own[column] - base[column]).mean(), f"{column}_low": low, f"{column}_high": high}
        rows.append(row)
    pd.DataFrame(rows).round(4).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
