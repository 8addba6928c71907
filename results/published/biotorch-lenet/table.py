"""Test errors (percent) of the runs that `run.sh` makes, at each rule's last epoch and best on test, beside BioTorch's."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from hashrobust.datasets import load_classification
from hashrobust.experiments.store import list_runs
from hashrobust.models import Classifier, load_model

# Sanfiz and Akrout 2021 (arXiv 2108.13446), Benchmarks.md of jsalbert/biotorch: Fashion-MNIST, LeNet, SGD, the best of
# 100 epochs, picked on the test images.
BIOTORCH = {"bp": 9.2, "usf": 9.69, "brsf": 10.02, "frsf": 9.61, "fa": 13.06}


def main(results: Path) -> None:
    """Print the table as CSV."""
    test = load_classification("fashion-mnist", image_size=32).test
    rows = []
    for run in list_runs(results):
        errors = []
        for checkpoint in sorted((run.path / "checkpoints").glob("epoch-*.safetensors")):
            model = load_model(checkpoint)
            assert isinstance(model, Classifier)
            errors.append(round(100 * (1 - model.accuracy(test)), 2))
        rule = run.config["rule"]
        rows.append(
            {
                "rule": rule,
                "epochs": len(errors),
                "last epoch": errors[-1],
                "best on test, as they did": min(errors),
                "BioTorch, best on test of 100 epochs": BIOTORCH[rule],
            }
        )
    frame = pd.DataFrame(rows).set_index("rule").loc[[r for r in BIOTORCH if r in {row["rule"] for row in rows}]]
    print(frame.to_csv().strip())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
