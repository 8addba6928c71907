"""Test errors (percent) of the runs that `run.sh` makes, at the last epoch and best on test, beside BioTorch's.

Of the learning rates the one with the better last validation accuracy counts.
"""

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
        history = run.read_table("history.csv", made_by="finetune")
        errors = []
        for checkpoint in sorted((run.path / "checkpoints").glob("epoch-*.safetensors")):
            model = load_model(checkpoint)
            assert isinstance(model, Classifier)
            errors.append(round(100 * (1 - model.accuracy(test)), 2))
        rule = run.config["rule"]
        rows.append(
            {
                "rule": rule,
                "learning rate": run.config["learning_rate"],
                "validation error": round(100 * (1 - history["validation_accuracy"].iloc[-1]), 2),
                "epochs": len(errors),
                "last epoch": errors[-1],
                "best on test, as they did": min(errors),
                "BioTorch, best on test of 100 epochs": BIOTORCH[rule],
            }
        )
    frame = pd.DataFrame(rows).sort_values("validation error", kind="stable").drop_duplicates("rule")
    print(
        frame.sort_values("rule", key=lambda rules: rules.map(list(BIOTORCH).index))
        .to_csv(index=False)
        .strip()
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
