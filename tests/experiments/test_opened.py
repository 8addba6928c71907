"""What the command line made, opened in Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hashrobust as hr
from hashrobust.errors import StoreError
from hashrobust.experiments.retrieval_runs import encode_run
from hashrobust.experiments.store import Folder
from hashrobust.models import load_tensors
from hashrobust.rules import feedback_state, rule_of


def test_a_run_is_opened_by_path_name_or_beginning(made: Folder) -> None:
    results, name = made.path.parent, made.name
    data = hr.load_dataset("digits", image_size=16)
    stored, _ = load_tensors(made.path / "feedback.safetensors")
    for asked in (hr.load_run(made.path), hr.load_run(name, results), hr.load_run(name[:20], str(results))):
        assert not asked.training and rule_of(asked) == made.config["rule"] != "bp"
        assert np.array_equal(asked.encode(data.query).numpy(), encode_run(made)["query"].codes)
        drawn = feedback_state(asked)
        assert drawn.keys() == stored.keys()
        assert all(torch.equal(drawn[layer], stored[layer]) for layer in stored)


def test_what_is_no_finished_run_is_named(run: Folder) -> None:
    with pytest.raises(StoreError, match="no run 'elsewhere' in"):
        hr.load_run("elsewhere", run.path.parent)
    (run.path / "model.safetensors").unlink()
    with pytest.raises(StoreError, match="finetune"):
        hr.load_run(run.path)


def test_all_numbers_as_a_table(made: Folder) -> None:
    frame = hr.results_frame(str(made.path.parent))
    row = frame[frame["attack"] == "none"].iloc[0]
    assert row["run"] == made.name
    assert row["map"] == made.read_json("metrics.json", made_by="evaluate")["map"]
    assert hr.results_frame(made.path).equals(frame)
