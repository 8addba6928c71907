"""Cost of a training step by each rule, as a ratio to the plainest backpropagation measured side by side.

    python benchmarks/training_step.py [--models resnet20:32:128 alexnet:224:16 ...] [--full]

Every repetition runs one step of each variant in turn, and ratios are taken within the repetition, so
that a slower moment of the machine slows all of them; seconds are processor time of one thread unless --threads says
otherwise. The plainest loop ("bp, plainest") has torch's layout and torch.optim.Adam as it comes, and so do BioTorch's
models, which join in where it is installed. The others train as `finetune` does: a fused Adam, and channels last
where the backbone says so. A model is NAME:PIXELS:BATCH; mind the memory, each variant has a copy.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from _table import print_ratios
from torch import Tensor, nn

from hashrobust._memory import keep_freed_memory
from hashrobust.models import Classifier
from hashrobust.models.layout import stay_channels_last
from hashrobust.rules import convert, redraw_feedback

QUICK = ("lenet:32:64", "resnet20:32:128", "resnet18:64:32", "alexnet:224:8")
FULL = (
    "lenet:32:64",
    "resnet20:32:128",
    "resnet18:64:128",
    "resnet18:224:16",
    "alexnet:224:64",
    "vgg16:224:8",
)
PLAINEST = "bp, plainest"
RULES = ("fa", "usf", "brsf", "frsf")
Step = Callable[[int], None]


def training_step(model: nn.Module, images: Tensor, labels: Tensor, fused: bool = False) -> Step:
    """One step of Adam; its argument is the number of the step, which keys brSF's redraw."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)
    model.train()

    def step(number: int) -> None:
        redraw_feedback(model, number)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def biotorch_model(model: nn.Module, rule: str) -> nn.Module | None:
    """The same model converted by BioTorch; None where it is not installed."""
    try:
        from biotorch.module.biomodule import BioModule
    except ImportError:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        converted: nn.Module = BioModule(copy.deepcopy(model), mode=rule)
    return converted


def variants(name: str, size: int, batch: int, rules: list[str]) -> dict[str, Step]:
    """A training step for the plainest backpropagation (first) and each of the others."""
    images, labels = torch.rand(batch, 3, size, size), torch.randint(10, (batch,))
    torch.manual_seed(0)
    plain = Classifier(name, 10, channels=3, image_size=size)
    steps = {PLAINEST: training_step(copy.deepcopy(plain), images, labels)}
    for rule in ("bp", *rules):
        model = copy.deepcopy(plain)
        if model.backbone.channels_last:
            stay_channels_last(model)
        convert(model, rule)
        steps[rule] = training_step(model, images, labels, fused=True)
        if rule == "brsf":
            steps[f"{rule}, redraw alone"] = partial(redraw_feedback, model)
        other = None if rule == "bp" else biotorch_model(plain, rule)
        if other is not None:
            steps[f"{rule} (BioTorch)"] = training_step(other, images, labels)
    return steps


def measure(steps: dict[str, Step], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each step, by repetition; a first round that warms up is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repetitions + 1):
        for name, step in steps.items():
            start = time.process_time()
            step(number)
            if number:
                seconds[name].append(time.process_time() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="NAME:PIXELS:BATCH", default=list(QUICK))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--full", action="store_true", help=f"{' '.join(FULL)}, 7 repetitions")
    arguments = parser.parse_args()
    models, repetitions = (FULL, 7) if arguments.full else (arguments.models, arguments.repetitions)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    for model in models:
        name, size, batch = model.split(":")
        title = f"{name}, {size} pixels, batch {batch}, {arguments.threads} threads"
        found = measure(variants(name, int(size), int(batch), arguments.rules), repetitions)
        print_ratios(title, found, PLAINEST)
        # What a rule costs, and not what the optimizer saves: over bp trained in the same way.
        own = {name: found[name] for name in ("bp", *arguments.rules)}
        print_ratios(f"{title}, over bp trained in the same way", own, "bp")


if __name__ == "__main__":
    main()
