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

from hashrobust.attacks import Attack
from hashrobust.datasets import RetrievalDataset, Split
from hashrobust.experiments.config import AttackConfig
from hashrobust.experiments.retrieval_runs import StoredCodes, to_pixels
from hashrobust.experiments.store import Folder, read_arrays
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
    attack: Attack,
    config: AttackConfig,
    crafted: Crafted,
    codes: dict[str, StoredCodes],
    chosen: NDArray[np.int64],
    *,
    k: int | None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics (fractions) and the per-query table of an attack.

    `map` and its kin count relevance to the query's own label, `t_map` to the target's.
    """
    labels = codes["query"].labels[chosen]
    scores = _scores(crafted, codes["database"], labels, k)
    targets = crafted.optional("targets")
    if targets is not None:
        toward = _scores(crafted, codes["database"], targets, k)
        scores |= {name.replace("ap", "t_ap", 1): values for name, values in toward.items()}
    flipped = (crafted["codes"] != crafted["clean_codes"]).sum(axis=1)
    steps = np.maximum(crafted["gradient_evaluations"], 1)
    table = pd.DataFrame(
        {
            "query": chosen,
            "query_id": codes["query"].ids[chosen],
            **scores,
            "flipped_bits": flipped,
            "objective": crafted["objective"],
            "gradient_evaluations": crafted["gradient_evaluations"],
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
    metrics: dict[str, Any] = {
        name.replace("ap", "map"): float(values.mean()) for name, values in scores.items()
    }
    for name in ("clean_ap", "ap", "t_ap"):
        if name in scores:
            low, high = bootstrap_interval(scores[name])
            metrics |= {f"{name.replace('ap', 'map')}_low": low, f"{name.replace('ap', 'map')}_high": high}
    metrics |= {
        "queries": len(chosen),
        "linf_max": float(table["linf"].max()),
        **{
            f"{name}_mean": float(table[name].mean())
            for name in ("l2", "mse", "psnr", "ssim", "flipped_bits")
        },
        "gradient_evaluations": float(table["gradient_evaluations"].mean()),
        "zero_gradient_share": float(table["zero_gradient_share"].mean()),
        "nonfinite_gradient_share": float(table["nonfinite_gradient_share"].mean()),
    }
    return metrics, table


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
        "labels": np.array([_class_names(data, data.query, position) for position in kept]),
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


def _class_names(data: RetrievalDataset, split: Split, position: int) -> str:
    return ", ".join(data.classes[c] for c in torch.nonzero(split.labels[position]).flatten().tolist())
