"""What the attack loop costs: one attack step over one bare forward and backward pass to the input.

Both run on the same frozen network (a ResNet-20 for 32 by 32 images), turn by turn: the bare pass is
timed inside the hook that the attack calls before each of its steps. Target: median ratio <= 1.10.

    python benchmarks/attack_step.py [batch size] [steps]
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import pairwise

import torch
from torch import Tensor, nn

from hashrobust.attacks import AttackContext, build_attack

BITS, CLASSES, TRAIN = 32, 10, 5000


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet20() -> nn.Module:
    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    strides = [1, 1, 1, 2, 1, 1, 2, 1, 1]
    blocks = [Block(a, b, s) for (a, b), s in zip(pairwise(widths), strides, strict=True)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, BITS)]
    return nn.Sequential(*stem, *blocks, *head).eval().requires_grad_(False)


def main(batch: int = 64, steps: int = 12) -> None:
    torch.manual_seed(0)
    model, images = resnet20(), torch.rand(batch, 3, 32, 32)
    labels = torch.randint(0, CLASSES, (batch,))
    codes = torch.where(torch.randn(TRAIN, BITS) > 0, 1.0, -1.0)

    for name in ("hag", "center", "sdha"):
        bare: list[float] = []
        attack: list[float] = []
        resumed = 0.0

        def before_step(restart: int, step: int) -> None:
            nonlocal resumed
            start = time.perf_counter()
            if step > 1:
                attack.append(start - resumed)  # noqa: B023 - used within the same turn of the loop
            x = images.clone().requires_grad_(True)
            torch.autograd.grad(torch.tanh(model(x)).sum(), x)
            resumed = time.perf_counter()
            if step > 0:
                bare.append(resumed - start)  # noqa: B023

        context = AttackContext(
            train_codes=codes, train_labels=torch.arange(TRAIN) % CLASSES, before_step=before_step
        )
        build_attack(name, steps=steps)(model, images, labels=labels, context=context)
        step_time, pass_time = (1e3 * statistics.median(times) for times in (attack, bare))
        print(f"{name:8} {step_time:8.1f} ms  bare {pass_time:8.1f} ms  ratio {step_time / pass_time:.3f}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
