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

from hashrobust.datasets import RetrievalDataset
from hashrobust.experiments.files import read_arrays
from hashrobust.experiments.retrieval_runs import StoredCodes, to_pixels
from hashrobust.experiments.store import Folder
from hashrobust.metrics import average_precision, bootstrap_interval, chance_average_precision
from hashrobust.retrieval import HammingIndex

THUMBNAIL = 96
RETRIEVED = 8


@dataclass(frozen=True)
class Crafted:
    """What crafting left, one row a query: codes of the clean, adversarial, 8-bit and ideal images, and more."""

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
    crafted: Crafted, codes: dict[str, StoredCodes], chosen: NDArray[np.int64], data: RetrievalDataset
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics (fractions) and the per-query table of an attack.

    `map` and its kin count relevance to the query's own label, `t_map` to the target's.
    """
    labels = codes["query"].labels[chosen]
    scores = _scores(crafted, codes["database"], labels, data.top_k)
    targets = crafted.optional("targets")
    if targets is not None:
        toward = _scores(crafted, codes["database"], targets, data.top_k)
        scores |= {name.replace("ap", "t_ap", 1): values for name, values in toward.items()}
    table = _query_table(crafted, codes["query"].ids[chosen], chosen, scores)
    if targets is not None:
        table["target"] = [class_names(data, row) for row in targets]
    return _metrics(scores, table), table


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
            "flipped_bits": (crafted["codes"] != crafted["clean_codes"]).sum(axis=1),
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


def _metrics(scores: dict[str, NDArray[np.float64]], table: pd.DataFrame) -> dict[str, Any]:
    """Means of the per-query table, with 95% intervals over queries for the main scores."""
    metrics: dict[str, Any] = {
        name.replace("ap", "map"): float(values.mean()) for name, values in scores.items()
    }
    for name in ("clean_ap", "ap", "t_ap"):
        if name in scores:
            low, high = bootstrap_interval(scores[name])
            metrics |= {f"{name.replace('ap', 'map')}_low": low, f"{name.replace('ap', 'map')}_high": high}
    return metrics | {
        "queries": len(table),
        "linf_max": float(table["linf"].max()),
        **{
            f"{name}_mean": float(table[name].mean())
            for name in ("l2", "mse", "psnr", "ssim", "flipped_bits")
        },
        "gradient_evaluations": float(table["gradient_evaluations"].mean()),
        "model_queries": float(table["model_queries"].mean()),
        "zero_gradient_share": float(table["zero_gradient_share"].mean()),
        "nonfinite_gradient_share": float(table["nonfinite_gradient_share"].mean()),
    }


def _scores(
    crafted: Crafted, database: StoredCodes, labels: NDArray[Any], k: int | None
) -> dict[str, NDArray[np.float64]]:
    found = {
        "clean_ap": crafted["clean_codes"],
        "ap": crafted["codes"],
        "ap_8bit": crafted["codes_8bit"],
        "theory_ap": crafted.optional("theory_codes"),
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
    folder: Folder,
    crafted: Crafted,
    codes: dict[str, StoredCodes],
    chosen: NDArray[np.int64],
    data: RetrievalDataset,
    examples: list[int],
) -> None:
    """Store thumbnails of some queries, clean and adversarial, and of what each retrieves.

    `examples` are places in the chosen subset; `crafted["images"]` holds just their images.
    """
    kept = chosen[examples]
    index = HammingIndex.build(codes["database"].codes)
    arrays: dict[str, NDArray[Any]] = {
        "clean": _thumbnails(data.query.load(kept)),
        "adversarial": _thumbnails(torch.from_numpy(crafted["images"])),
        "labels": np.array([class_names(data, row) for row in codes["query"].labels[kept]]),
    }
    for name, queried in (("clean", crafted["clean_codes"]), ("adversarial", crafted["codes"])):
        _, positions = index.search(queried[examples], min(RETRIEVED, len(index)))
        found = _thumbnails(data.database.load(positions.ravel()))
        arrays[f"retrieved_{name}"] = found.reshape(*positions.shape, *found.shape[1:])
        shared: NDArray[np.uint8] = codes["query"].labels[kept, None, :] * codes["database"].labels[positions]
        arrays[f"relevant_{name}"] = shared.max(axis=2) > 0
    folder.write_arrays("examples/examples.npz", arrays)


def _thumbnails(images: torch.Tensor) -> NDArray[np.uint8]:
    """Images (N, C, H, W) in [0, 1] as (N, h, w, C) uint8, no side above `THUMBNAIL`."""
    longest = max(images.shape[-2:])
    if longest > THUMBNAIL:
        size = [max(1, round(side * THUMBNAIL / longest)) for side in images.shape[-2:]]
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return to_pixels(images)


def class_names(data: RetrievalDataset, label: NDArray[np.uint8]) -> str:
    """The classes of one multi-hot label (C,), by name."""
    return ", ".join(data.classes[c] for c in np.flatnonzero(label))
