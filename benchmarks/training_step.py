"""Cost of a training step by each rule, as a ratio to backpropagation measured side by side.

    python benchmarks/training_step.py --quick

Every repetition runs one step of each variant in turn, and ratios are taken within the repetition, so
that a slower moment of the machine slows all of them. BioTorch's models join in where it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from hashrobust.rules import convert, redraw_feedback

MODELS = {"alexnet": 224, "resnet18": 64}  # image size
RULES = ("fa", "usf", "brsf", "frsf")
Step = Callable[[int], None]


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """One SGD step; its argument is the number of the step, which keys brSF's redraw."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
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


def variants(name: str, rules: list[str], batch: int) -> dict[str, Step]:
    """A training step for backpropagation (first) and each of the others."""
    size = MODELS[name]
    images, labels = torch.randn(batch, 3, size, size), torch.randint(10, (batch,))
    torch.manual_seed(0)
    plain = torchvision.models.get_model(name, weights=None, num_classes=10)
    steps = {"bp": training_step(plain, images, labels)}
    for rule in rules:
        model = copy.deepcopy(plain)
        convert(model, rule)
        steps[rule] = training_step(model, images, labels)
        other = biotorch_model(plain, rule)
        if other is not None:
            steps[f"{rule} (BioTorch)"] = training_step(other, images, labels)
    return steps


def measure(steps: dict[str, Step], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each step, by repetition; a first round that warms up is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repetitions + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step(number)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]]) -> None:
    """Print medians and ratios to backpropagation (median, smallest, largest)."""
    print(f"\n{title}\n{'variant':<20}{'seconds':>9}{'ratio':>9}{'min':>9}{'max':>9}")
    for name, times in seconds.items():
        ratios = [own / base for own, base in zip(times, seconds["bp"], strict=True)]
        row = (statistics.median(times), statistics.median(ratios), min(ratios), max(ratios))
        print(f"{name:<20}" + "".join(f"{value:>9.3f}" for value in row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="batch 32, 3 repetitions")
    arguments = parser.parse_args()
    batch, repetitions = (32, 3) if arguments.quick else (arguments.batch, arguments.repetitions)
    torch.set_num_threads(arguments.threads)
    for name in arguments.models:
        title = f"{name}, {MODELS[name]} pixels, batch {batch}, {arguments.threads} threads"
        report(title, measure(variants(name, arguments.rules, batch), repetitions))


if __name__ == "__main__":
    main()
