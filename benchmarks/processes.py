"""Cost of a training step shared by several processes, as a ratio to one process that does all of it.

    python benchmarks/processes.py --processes 2

It starts itself by torchrun. Every repetition runs each variant in turn: `one` (the first process has the whole
batch, the others wait), `shared` (as `hashrobust finetune` does it) and `ddp` (PyTorch's DistributedDataParallel, by
the same objective).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from _table import print_ratios
from torch import Tensor, nn

from hashrobust.models import HashModel
from hashrobust.objectives import build_objective
from hashrobust.rules import convert
from hashrobust.training import parallel

BATCH = {"lenet": 64, "resnet20": 128}
SIZE = 32
Step = Callable[[], None]


def new_model(backbone: str, rule: str) -> HashModel:
    """The same in all processes."""
    torch.manual_seed(0)
    model = HashModel(backbone, 32, image_size=SIZE)
    if rule != "bp":
        convert(model, rule)
    return model.train()


def variants(backbone: str, rule: str) -> dict[str, Step]:
    """A step of Adam for each way."""
    batch = BATCH[backbone]
    images, labels = torch.rand(batch, 1, SIZE, SIZE), torch.randint(10, (batch,))
    share = parallel.share(batch)
    objective = build_objective("dpsh", bits=32, num_classes=10, similar_share=0.1)

    def step(model: nn.Module, loss_of: Callable[[], Tensor], summed: bool) -> Step:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

        def run() -> None:
            optimizer.zero_grad()
            loss_of().backward()
            if summed:
                parallel.sum_gradients(model)
            optimizer.step()

        return run

    whole, own = new_model(backbone, rule), new_model(backbone, rule)
    wrapped = nn.parallel.DistributedDataParallel(new_model(backbone, rule))
    alone = step(whole, lambda: objective(whole(images), labels), False)
    return {
        "one": lambda: alone() if parallel.is_first() else None,
        "shared": step(own, lambda: objective(share.gather(own(images[share.rows])), labels), True),
        # DistributedDataParallel takes the mean of gradients whose sum is asked for.
        "ddp": step(
            wrapped,
            lambda: parallel.size() * objective(share.gather(wrapped(images[share.rows])), labels),
            False,
        ),
    }


def measure(steps: dict[str, Step], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each, by repetition, from when all begin to when all are done; the first three warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-3, repetitions):
        for name, step in steps.items():
            parallel.wait()
            start = time.perf_counter()
            step()
            parallel.wait()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def compare(backbones: list[str], rule: str, repetitions: int) -> None:
    with parallel.joined():
        for backbone in backbones:
            seconds = measure(variants(backbone, rule), repetitions)
            if parallel.is_first():
                title = (
                    f"{backbone}, {SIZE} pixels, batch {BATCH[backbone]}, {rule}, {parallel.size()} processes"
                )
                print_ratios(title, seconds, "one")
        for name, count in {"resnet20": 272_474, "alexnet": 57_000_000}.items():
            gradients = torch.rand(count)
            seconds = measure({"sum": lambda g=gradients: dist.all_reduce(g)}, max(3, repetitions // 10))
            if parallel.is_first():
                print(f"sum of {count} gradients ({name}): {statistics.median(seconds['sum']):.4f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--backbones", nargs="+", choices=BATCH, default=list(BATCH))
    parser.add_argument("--rule", default="bp")
    parser.add_argument("--repetitions", type=int, default=30)
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        torch.set_num_threads(1)
        compare(arguments.backbones, arguments.rule, arguments.repetitions)
        return
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(arguments.processes)]
    subprocess.run([*command, *sys.argv], check=True)


if __name__ == "__main__":
    main()
