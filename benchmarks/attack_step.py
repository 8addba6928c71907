"""What an attack step costs: one step of the loop over one bare forward and backward pass to the input.

The bare pass runs on the frozen network itself in torch's default layout, the attack on the copy that runs are
attacked with (`attackable`), turn by turn: the bare pass is timed inside the hook that the attack calls
before each of its steps.

    python benchmarks/attack_step.py [batch size] [steps]
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch import Tensor

from hashrobust.attacks import AttackContext, build_attack
from hashrobust.models import HashModel, attackable, frozen
from hashrobust.rules import convert, exact_gradient

BITS, CLASSES, TRAIN = 32, 10, 5000
NETWORKS = (("resnet20", 3, 32, 1), ("resnet18", 3, 64, 1), ("alexnet", 3, 224, 4))
"""Backbone, channels, image size, and by how much the batch is smaller."""


def ratio(
    network: HashModel, attacked: HashModel, attack: str, images: Tensor, steps: int
) -> tuple[float, float]:
    """Median seconds of a step of the attack and of a bare pass."""
    labels = torch.randint(0, CLASSES, (len(images),))
    codes = torch.where(torch.randn(TRAIN, BITS) > 0, 1.0, -1.0)
    bare: list[float] = []
    attacking: list[float] = []
    resumed = 0.0

    def before_step(restart: int, step: int) -> None:
        nonlocal resumed
        start = time.perf_counter()
        if step > 1:
            attacking.append(start - resumed)
        x = images.clone().requires_grad_(True)
        with frozen(network), exact_gradient(network):
            start = time.perf_counter()
            torch.autograd.grad(torch.tanh(network(x)).sum(), x)
        resumed = time.perf_counter()
        if step > 0:
            bare.append(resumed - start)

    context = AttackContext(
        train_codes=codes, train_labels=torch.arange(TRAIN) % CLASSES, before_step=before_step
    )
    build_attack(attack, steps=steps)(attacked, images, labels=labels, context=context)
    return statistics.median(attacking), statistics.median(bare)


def main(batch: int = 64, steps: int = 12) -> None:
    torch.manual_seed(0)
    for backbone, channels, size, share in NETWORKS:
        network = HashModel(backbone, BITS, channels=channels, image_size=size).eval()
        convert(network, "frsf")
        attacked = attackable(network)
        images = torch.rand(max(1, batch // share), channels, size, size)
        for attack in ("center", "hag", "sdha"):
            for gradient in ("exact", "rule"):
                if gradient == "exact":
                    with exact_gradient(attacked):
                        step, bare = ratio(network, attacked, attack, images, steps)
                else:
                    step, bare = ratio(network, attacked, attack, images, steps)
                print(
                    f"{backbone:9} {size:4} {attack:7} {gradient:6} {1e3 * step:8.1f} ms  "
                    f"bare {1e3 * bare:8.1f} ms  ratio {step / bare:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
