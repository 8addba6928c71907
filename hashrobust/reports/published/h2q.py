"""H2Q's tables: clean retrieval by backpropagation."""

from __future__ import annotations

from hashrobust.reports.published import Asked, Fact, Published, published
from hashrobust.reports.published._base import fraction, read_table

SOURCE = "H2Q: Schwengber et al., result notebook of Lucas-Schwengber/h2q"
OBJECTIVES = {
    "CEL": "cel",
    "DCH": "dch",
    "DHN": "dhn",
    "DPSH": "dpsh",
    "HyP²": "hyp2",
    "WGLHH": "wglhh",
}
# Of the training script of its repository, with early stopping on validation mAP.
BATCH = {"cel": 128, "dch": 256, "dhn": 64, "dpsh": 128, "hyp2": 100, "wglhh": 64}
WEIGHT_DECAY = {"wglhh": 1e-4}
SPLITS = {
    "cifar10": "5000 train, 1000 query, 1000 validation, 53000 database images",
    "nuswide": "10500 train, 2100 query, 2100 validation, the others database images",
    "mscoco": "10000 train, 5000 query, 5000 validation, the others database images",
    "imagenet100": "13000 train, 2500 query, 2500 validation images, HashNet lists",
}
QUANTISATIONS = {
    "(lambda=0)": "no penalty, outputs without tanh, no rotation",
    "+lambda": "the objective's penalty, its weight chosen among several",
    "+HSWD": "HSWD penalty of weight 0.1",
    "+ITQ": "rotated by ITQ after training",
}


@published.register("h2q-clean-map")
def clean_map() -> list[Published]:
    """Clean mAP of AlexNet and VGG-16 with six objectives, and with what rotates their outputs."""
    found = []
    for row in read_table("h2q_clean_map.csv"):
        objective = next(name for name in OBJECTIVES if row["objective"].startswith(name))
        found.append(
            Published(
                source=SOURCE,
                asked=Asked(task="hashing", dataset=row["dataset"], score="map"),
                value=fraction(row["map_percent"]),
                spread=fraction(row["map_std"]),
                protocol={
                    "network": row["backbone"],
                    "bits": int(row["bits"]),
                    "objective": OBJECTIVES[objective],
                    "quantisation": _quantisation(row["objective"].removeprefix(objective)),
                    "measure": _measure(row["dataset"]),
                    **_training(OBJECTIVES[objective], row["dataset"]),
                },
            )
        )
    return found


def _training(objective: str, dataset: str) -> dict[str, Fact]:
    return {
        "split": f"{SPLITS[dataset]} (drawn by H2Q)",
        "image size": 224,
        "weights at the start": "imagenet",
        "optimizer": "adam",
        "learning rate": 1e-5,
        "weight decay": WEIGHT_DECAY.get(objective, 5e-4),
        "batch size": BATCH[objective],
        "epochs": 100,
        "patience": 20,
        "epoch kept": "best on validation",
        "seeds": 4,
    }


def _measure(dataset: str) -> str:
    k = 1000 if dataset == "imagenet100" else 5000
    return f"mAP@{k} over relevant items retrieved, ties by distance of real features"


def _quantisation(words: str) -> str:
    return (
        QUANTISATIONS.get(words)
        or f"rotated by {words.removeprefix('+').replace('H²Q', 'H2Q')} after training"
    )
