"""A data set with several labels an image, from its published files to attacks toward a set of labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hashrobust.attacks import draw_targets
from hashrobust.datasets import flickr25k
from hashrobust.experiments.attack_runs import Where, attack_run
from hashrobust.experiments.config import AttackConfig, FinetuneConfig
from hashrobust.experiments.retrieval_runs import encode_run, evaluate_run, index_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.trained_runs import load_run_data
from hashrobust.experiments.training_runs import finetune_run
from hashrobust.progress import Silent

COUNT = 90
SIZES = {"train": 40, "query": 15, "validation": 10, "top_k": 20}


def expected_ap(distances: np.ndarray, relevant: np.ndarray) -> float:
    """Average precision over all orders within ties, item by item: its chance of relevance times its precision."""
    total, before, found = 0.0, 0, 0
    for distance in np.unique(distances):
        group = relevant[distances == distance]
        n, r = len(group), int(group.sum())
        for i in range(1, n + 1):
            others = (i - 1) * (r - 1) / (n - 1) if n > 1 else 0.0
            total += r / n * (found + 1 + others) / (before + i)
        before, found = before + n, found + r
    return total / relevant.sum() if relevant.any() else 0.0


def mean_ap(codes: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray) -> float:
    """Two images are alike if any label is set in both."""
    scores = []
    for code, label in zip(codes, labels, strict=True):
        alike = np.array([any(a and b for a, b in zip(label, row, strict=True)) for row in other_labels])
        scores.append(expected_ap((code != others).sum(axis=1), alike))
    return float(np.mean(scores))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on small pictures whose three labels are seen as red, green and blue; some have none, some two."""
    place = tmp_path_factory.mktemp("data")
    root = place / "flickr25k"
    (root / "mirflickr").mkdir(parents=True)
    (root / "annotations").mkdir()
    generator = np.random.default_rng(0)
    labels = generator.random((COUNT, 3)) < 0.4
    labels[labels.all(axis=1), 2] = False  # an image with all labels has no target
    for number, row in enumerate(labels, start=1):
        pixels = generator.integers(0, 90, (34, 34, 3)) + 150 * row
        Image.fromarray(pixels.astype(np.uint8)).save(root / "mirflickr" / f"im{number}.jpg", quality=95)
    for name in flickr25k.ANNOTATIONS:
        column = {"bird": 0, "car": 1, "sky": 2}.get(name)
        numbers = [] if column is None else np.flatnonzero(labels[:, column]) + 1
        (root / "annotations" / f"{name}.txt").write_text("".join(f"{number}\n" for number in numbers))
    patch = pytest.MonkeyPatch()
    patch.setattr(flickr25k, "IMAGES", COUNT)
    patch.setattr(flickr25k, "FLICKR25K", replace(flickr25k.FLICKR25K, **SIZES))
    settings: dict[str, Any] = {
        **{"dataset": "flickr25k", "image_size": 32, "backbone": "lenet", "rule": "frsf", "bits": 12},
        **{
            "epochs": 6,
            "batch_size": 20,
            "learning_rate": 2e-3,
            "head_learning_rate_factor": 1.0,
            "threads": 1,
        },
    }
    made = finetune_run(FinetuneConfig(**settings), place / "results", data_dir=place)
    index_run(made, data_dir=place)
    yield made, place
    patch.undo()


def attacked(run: tuple[Folder, Path], name: str, **params: Any) -> dict[str, Any]:
    config = AttackConfig(attack=name, epsilon=0.2, params={"steps": 8, **params}, queries=15, threads=1)
    folder = attack_run(run[0], config, where=Where(run[1], "cpu", Silent()))
    found: dict[str, Any] = folder.read_json("metrics.json", made_by="attack")
    return found | {"targets": folder.read_table("queries.parquet", made_by="attack").get("target")}


def test_alike_means_a_common_label(run: tuple[Folder, Path]) -> None:
    folder, place = run
    codes = encode_run(folder, data_dir=place)
    query, database = codes["query"], codes["database"]
    assert (database.labels.sum(axis=1) > 1).any() and (database.labels.sum(axis=1) == 0).any()
    expected = mean_ap(query.codes, query.labels, database.codes, database.labels)
    found = evaluate_run(folder, data_dir=place)
    assert found["map"] == pytest.approx(expected, abs=1e-9)
    assert found["map"] > found["chance_map"] + 0.05 and found["empty_queries"] == 0
    data = load_run_data(folder, place)
    rows = data.train.labels.numpy()
    alike = [[bool((a & b).any()) for b in rows] for a in rows]
    pairs = (np.sum(alike) - len(rows)) / (len(rows) * (len(rows) - 1))
    assert data.similar_share == pytest.approx(pairs)


def test_attacks_leave_all_labels_of_the_query(run: tuple[Folder, Path]) -> None:
    found = attacked(run, "center")
    assert found["map"] < found["clean_map"] and found["linf_max"] <= 0.2 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("name", "params"), [("center", {"targeted": True}), ("dhta", {}), ("sdha", {"targeted": True})]
)
def test_targets_are_sets_of_labels_that_exist(
    run: tuple[Folder, Path], name: str, params: dict[str, Any]
) -> None:
    folder, place = run
    data = load_run_data(folder, place)
    found = attacked(run, name, **params)
    classes = np.array(data.classes)
    database = {tuple(row) for row in data.database.labels.tolist()}
    for query, words in zip(data.query.labels.tolist(), found["targets"], strict=True):
        target = np.isin(classes, words.split(", ") if isinstance(words, str) else words).astype(int)
        assert tuple(target.tolist()) in database and target.any() and not (target & np.array(query)).any()
    assert found["t_map"] > found["clean_t_map"]


def test_t_map_counts_what_shares_a_label_with_the_target(run: tuple[Folder, Path]) -> None:
    """By hand: the targets drawn anew, and the clean codes ranked against them."""
    folder, place = run
    codes = encode_run(folder, data_dir=place)
    query, database = codes["query"], codes["database"]
    targets = draw_targets(
        torch.from_numpy(query.labels),
        torch.from_numpy(database.labels),
        seed=0,
        sample_ids=torch.from_numpy(query.ids),
    )
    expected = mean_ap(query.codes, targets.numpy(), database.codes, database.labels)
    assert attacked(run, "dhta")["clean_t_map"] == pytest.approx(expected, abs=1e-9)
    assert (targets.sum(dim=1) > 1).any()
