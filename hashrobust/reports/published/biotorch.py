"""BioTorch's benchmark: classifiers trained from scratch by each rule."""

from __future__ import annotations

from hashrobust.reports.published import Asked, Fact, Published, published
from hashrobust.reports.published._base import fraction, read_table

SOURCE = "BioTorch: Sanfiz and Akrout 2021, arXiv 2108.13446"
DATASETS = {"MNIST": "mnist", "Fashion-MNIST": "fashion-mnist", "CIFAR-10": "cifar10", "ImageNet": "imagenet"}
NETWORKS = {"LeNet": "lenet", "ResNet-20": "resnet20", "ResNet-56": "resnet56", "ResNet-18": "resnet18"}

# Its Benchmarks.md tells all of this for MNIST and Fashion-MNIST; of CIFAR-10 it points to configuration files, and of
# ImageNet it tells nothing.
SMALL: dict[str, Fact] = {
    "split": "60000 train, 10000 test images that also choose the epoch",
    "image size": 32,
    "epoch kept": "best on the test images",
    "epochs": 100,
    "batch size": 64,
    "weight decay": 1e-3,
    "schedule": "step",
}
CIFAR: dict[str, Fact] = {
    "split": "45000 train, 5000 validation, 10000 test images",
    "epoch kept": "best on validation",
    "image size": 32,
}


@published.register("biotorch-top1-error")
def top1_error() -> list[Published]:
    """Top-1 error without an attack, on MNIST, Fashion-MNIST, CIFAR-10 and ImageNet."""
    return [
        Published(
            source=SOURCE,
            asked=Asked(
                task="classification",
                dataset=DATASETS[row["dataset"]],
                score="accuracy",
                rule=row["rule"].lower(),
            ),
            value=round(1 - fraction(row["top1_error_percent"]), 8),
            protocol={
                "network": NETWORKS[row["network"]],
                "weights at the start": "none",
                "optimizer": row["optimizer"].lower(),
                "measure": "top-1 accuracy",
                **({"CIFAR-10": CIFAR, "ImageNet": {}}.get(row["dataset"], SMALL)),
            },
        )
        for row in read_table("biotorch_top1_error.csv")
    ]


@published.register("biotorch-square-attack")
def square_attack() -> list[Published]:
    """Accuracy of ResNet-20 on CIFAR-10 under the Square attack, from BioTorch's notebook."""
    found = []
    for row in read_table("biotorch_square_attack.csv"):
        epsilon = float(row["epsilon"])
        attacked: dict[str, Fact] = {"epsilon": epsilon, "model queries": 50, "gradient": "none"}
        found.append(
            Published(
                source=f"{SOURCE}, notebook on black boxes",
                asked=Asked(
                    task="classification",
                    dataset="cifar10",
                    score="accuracy",
                    rule=row["rule"].lower(),
                    attack="square" if epsilon else "none",
                    goal="non-targeted" if epsilon else "none",
                ),
                value=float(row["robust_accuracy"]),
                protocol={
                    "network": "resnet20",
                    "weights at the start": "none",
                    "measure": "top-1 accuracy",
                    "images asked": 500,
                    **(attacked if epsilon else {}),
                },
            )
        )
    return found
