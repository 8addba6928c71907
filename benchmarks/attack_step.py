"""What an attack step costs: one step of the loop over one bare forward and backward pass to the input.

The bare pass runs on the frozen network itself in torch's default layout, the attack on the copy that runs are
attacked with (`attackable`), turn by turn: the bare pass is timed inside the hook that the attack calls
before each of its steps. Times are processor time of one thread; each step is divided by the bare pass before it.
"Whole" is the attack on these images, from its call to its result, over steps x step.

    python benchmarks/attack_step.py [batch size] [steps] [--networks resnet20 ...]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from hashrobust._memory import keep_freed_memory
from hashrobust.attacks import AttackContext, build_attack
from hashrobust.models import HashModel, attackable, frozen
from hashrobust.rules import convert, exact_gradient

BITS, CLASSES, TRAIN = 32, 10, 5000
NETWORKS = (
    ("lenet", 1, 28, 1),
    ("resnet20", 1, 28, 1),
    ("resnet20", 3, 32, 1),
    ("resnet18", 3, 64, 1),
    ("alexnet", 3, 224, 4),
)
"""Backbone, channels, image size, and by how much the batch is smaller."""


def ratio(
    network: HashModel, attacked: HashModel, attack: str, images: Tensor, steps: int
) -> tuple[list[float], list[float], float]:
    """Seconds of each step of the attack but the last, of the bare pass before it, and of the whole attack."""
    labels = torch.randint(0, CLASSES, (len(images),))
    codes = torch.where(torch.randn(TRAIN, BITS) > 0, 1.0, -1.0)
    bare: list[float] = []
    attacking: list[float] = []
    resumed = hooked = 0.0

    def before_step(restart: int, step: int) -> None:
        nonlocal resumed, hooked
        entered = start = time.process_time()
        if step > 1:
            attacking.append(start - resumed)
        x = images.clone().requires_grad_(True)
        with frozen(network), exact_gradient(network):
            start = time.process_time()
            torch.autograd.grad(torch.tanh(network(x)).sum(), x)
        resumed = time.process_time()
        hooked += resumed - entered
        if step > 0:
            bare.append(resumed - start)

    context = AttackContext(
        train_codes=codes, train_labels=torch.arange(TRAIN) % CLASSES, before_step=before_step
    )
    built = build_attack(attack, steps=steps)
    start = time.process_time()
    built(attacked, images, labels=labels, context=context)
    return attacking, bare[: len(attacking)], time.process_time() - start - hooked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("batch", nargs="?", type=int, default=64, metavar="batch size")
    parser.add_argument(
        "steps", nargs="?", type=int, default=5, help="at least 3: the first and the last do not count"
    )
    names = [network[0] for network in NETWORKS]
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    batch, steps = arguments.batch, arguments.steps
    if steps < 3:
        parser.error(f"steps is {steps}: give at least 3, the first and the last do not count")
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    for backbone, channels, size, share in NETWORKS:
        if backbone not in arguments.networks:
            continue
        network = HashModel(backbone, BITS, channels=channels, image_size=size).eval()
        convert(network, "frsf")
        attacked = attackable(network)
        images = torch.rand(max(1, batch // share), channels, size, size)
        for attack in ("center", "hag", "sdha"):
            for gradient in ("exact", "rule"):
                if gradient == "exact":
                    with exact_gradient(attacked):
                        found = ratio(network, attacked, attack, images, steps)
                else:
                    found = ratio(network, attacked, attack, images, steps)
                seconds, bare, whole = found
                ratios = [step / plain for step, plain in zip(seconds, bare, strict=True)]
                step = statistics.median(seconds)
                print(
                    f"{backbone:9} {size:4} {attack:7} {gradient:6} {1e3 * step:8.1f} ms  ratio "
                    f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]  "
                    f"whole {whole / (steps * step):.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
