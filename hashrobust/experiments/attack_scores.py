"""From crafted images' codes to the numbers, the per-query table and the examples of an attack folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hashrobust.datasets import LabelledDataset, RetrievalDataset
from hashrobust.experiments.files import read_arrays
from hashrobust.experiments.measures import Measure
from hashrobust.experiments.retrieval_runs import StoredCodes, to_pixels
from hashrobust.experiments.store import Folder
from hashrobust.experiments.subject import Subject
from hashrobust.metrics import average_precision, bootstrap_interval, chance_average_precision
from hashrobust.retrieval import HammingIndex

THUMBNAIL = 96
RETRIEVED = 8


@dataclass(frozen=True)
class Crafted:
    """What crafting left, one row a query.

    `clean`, `attacked` and `attacked_8bit`: the answers to these images, codes (Q, K) int8 in {-1, +1} or classes (Q,)
    int64. `theory`: the codes of full success, and `targets` (Q, C); both are empty where there are none. `images`:
    those of the examples alone. All others are counts and sizes (Q,).
    """

    arrays: dict[str, NDArray[Any]]

    @classmethod
    def read(cls, parts: list[Path]) -> Crafted:
        """Put the stored batches together."""
        loaded = [read_arrays(part) for part in parts]
        return cls({name: np.concatenate([batch[name] for batch in loaded]) for name in loaded[0]})

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def optional(self, name: str) -> NDArray[Any] | None:
        """An array that some attacks have not."""
        return self.arrays[name] if len(self.arrays[name]) else None


def score_attack(
    crafted: Crafted, subject: Subject, chosen: NDArray[np.int64]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics (fractions) and the per-query table of an attack on the queries at places `chosen` (Q,), named by the
    subject's measure.

    Of retrieval, `map` and its kin count relevance to the query's own label, `t_map` to the target's; of
    classification, `accuracy` counts images whose class is given as it is.
    """
    data = subject.data
    labels = data.asked.labels[chosen].numpy()
    ids = data.asked.ids[chosen].numpy()
    targets = crafted.optional("targets")
    if isinstance(data, RetrievalDataset):
        database = subject.codes["database"]
        scores = _retrieval_scores(crafted, database, labels, data.top_k)
        if targets is not None:
            toward = _retrieval_scores(crafted, database, targets, data.top_k)
            scores |= {name.replace("ap", "t_ap", 1): values for name, values in toward.items()}
    else:
        scores = _classification_scores(crafted, labels)
    table = _query_table(crafted, ids, chosen, scores)
    if targets is not None:
        table["target"] = [class_names(data, row) for row in targets]
    return _metrics(scores, table, subject.measure), table


def _query_table(
    crafted: Crafted,
    ids: NDArray[np.int64],
    chosen: NDArray[np.int64],
    scores: dict[str, NDArray[np.float64]],
) -> pd.DataFrame:
    """One row a query: its scores, what the attack knows of it, and the size of the perturbation."""
    steps = np.maximum(crafted["gradient_evaluations"], 1)
    return pd.DataFrame(
        {
            "query": chosen,
            "query_id": ids,
            **scores,
            **_flips(crafted),
            "objective": crafted["objective"],
            "gradient_evaluations": crafted["gradient_evaluations"],
            "model_queries": crafted["model_queries"],
            "finished": crafted["finished"],
            "zero_gradient_share": crafted["zero_gradients"] / steps,
            "nonfinite_gradient_share": crafted["nonfinite_gradients"] / steps,
            **{
                name.removeprefix("perturbation_"): values
                for name, values in crafted.arrays.items()
                if name.startswith("perturbation_")
            },
        }
    )


def _flips(crafted: Crafted) -> dict[str, NDArray[Any]]:
    """Bits that the attack flipped; or, of classes, whether another one is given."""
    changed = crafted["attacked"] != crafted["clean"]
    return {"flipped_bits": changed.sum(axis=1)} if changed.ndim == 2 else {"class_changed": changed}


def _metrics(scores: dict[str, NDArray[np.float64]], table: pd.DataFrame, measure: Measure) -> dict[str, Any]:
    """Means of the per-query table, with 95% intervals over queries for the main scores."""
    metrics: dict[str, Any] = {measure.mean_of(name): float(values.mean()) for name, values in scores.items()}
    for name in (f"clean_{measure.score}", measure.score, f"t_{measure.score}"):
        if name in scores:
            low, high = bootstrap_interval(scores[name])
            metrics |= {f"{measure.mean_of(name)}_low": low, f"{measure.mean_of(name)}_high": high}
    return metrics | {
        "queries": len(table),
        "linf_max": float(table["linf"].max()),
        **{
            f"{name}_mean": float(table[name].mean())
            for name in ("l2", "mse", "psnr", "ssim", "flipped_bits", "class_changed")
            if name in table
        },
        "gradient_evaluations": float(table["gradient_evaluations"].mean()),
        "model_queries": float(table["model_queries"].mean()),
        "zero_gradient_share": float(table["zero_gradient_share"].mean()),
        "nonfinite_gradient_share": float(table["nonfinite_gradient_share"].mean()),
    }


def _classification_scores(crafted: Crafted, labels: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Whether each image (N,) gets a class of its own, in [0, 1]; an attack that succeeds leaves none, chance 1 / C."""
    rows, ones = np.arange(len(labels)), np.ones(len(labels))
    found = {"clean_correct": "clean", "correct": "attacked", "correct_8bit": "attacked_8bit"}
    scores = {name: labels[rows, crafted[kind]].astype(np.float64) for name, kind in found.items()}
    return scores | {"theory_correct": 0 * ones, "chance_correct": ones / labels.shape[1]}


def _retrieval_scores(
    crafted: Crafted, database: StoredCodes, labels: NDArray[Any], k: int | None
) -> dict[str, NDArray[np.float64]]:
    found = {
        "clean_ap": crafted["clean"],
        "ap": crafted["attacked"],
        "ap_8bit": crafted["attacked_8bit"],
        "theory_ap": crafted.optional("theory"),
    }
    scores: dict[str, NDArray[np.float64]] = {}
    for name, codes in found.items():
        if codes is None:
            continue
        scores[name] = average_precision(codes, database.codes, labels, database.labels)
        scores[f"{name}_at_k"] = average_precision(
            codes, database.codes, labels, database.labels, k=k, normalizer="retrieved"
        )
    scores["chance_ap"] = chance_average_precision(labels, database.labels, k=None, normalizer="all")
    scores["chance_ap_at_k"] = chance_average_precision(labels, database.labels, k=k, normalizer="retrieved")
    return scores


def write_examples(
    folder: Folder, crafted: Crafted, subject: Subject, chosen: NDArray[np.int64], examples: list[int]
) -> None:
    """Store thumbnails of some queries, clean and adversarial, and of what each retrieves, or the class it is given.

    `examples` are places in the chosen subset; `crafted["images"]` holds just their images.
    """
    data, kept = subject.data, chosen[examples]
    labels = data.asked.labels[kept].numpy()
    arrays: dict[str, NDArray[Any]] = {
        "clean": _thumbnails(data.asked.load(kept)),
        "adversarial": _thumbnails(torch.from_numpy(crafted["images"])),
        "labels": np.array([class_names(data, row) for row in labels]),
    }
    for name, answers in (("clean", crafted["clean"]), ("adversarial", crafted["attacked"])):
        if isinstance(data, RetrievalDataset):
            arrays |= _retrieved(name, answers[examples], labels, subject.codes["database"], data)
        else:
            arrays[f"predicted_{name}"] = np.array([data.classes[answer] for answer in answers[examples]])
    folder.write_arrays("examples/examples.npz", arrays)


def _retrieved(
    name: str,
    codes: NDArray[np.int8],
    labels: NDArray[np.uint8],
    database: StoredCodes,
    data: RetrievalDataset,
) -> dict[str, NDArray[Any]]:
    """Thumbnails of the images nearest to each code, and which of them are relevant."""
    index = HammingIndex.build(database.codes)
    _, positions = index.search(codes, min(RETRIEVED, len(index)))
    found = _thumbnails(data.database.load(positions.ravel()))
    shared: NDArray[np.uint8] = labels[:, None, :] * database.labels[positions]
    return {
        f"retrieved_{name}": found.reshape(*positions.shape, *found.shape[1:]),
        f"relevant_{name}": shared.max(axis=2) > 0,
    }


def _thumbnails(images: torch.Tensor) -> NDArray[np.uint8]:
    """Images (N, C, H, W) in [0, 1] as (N, h, w, C) uint8, no side above `THUMBNAIL`."""
    longest = max(images.shape[-2:])
    if longest > THUMBNAIL:
        size = [max(1, round(side * THUMBNAIL / longest)) for side in images.shape[-2:]]
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return to_pixels(images)


def class_names(data: LabelledDataset, label: NDArray[np.uint8]) -> str:
    """The classes of one multi-hot label (C,), by name."""
    return ", ".join(data.classes[c] for c in np.flatnonzero(label))
