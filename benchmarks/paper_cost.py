"""What a study of photographs costs on a GPU, by counting: passes of its plan, times floating-point operations a pass.

    python benchmarks/paper_cost.py studies/paper.toml --tera 10

A training step of an image is three passes forward, a gradient to the image two, an encoding one. Nothing is measured:
`--tera` is what the GPU is taken to sustain, in 1e12 operations a second. No attack ends early, and no training.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from hashrobust.attacks import GradientAttack, SearchAttack
from hashrobust.backbones import build_backbone
from hashrobust.experiments.attack_runs import build
from hashrobust.experiments.config import AttackConfig, TrainingConfig
from hashrobust.experiments.study import plan_study
from hashrobust.experiments.study.plan import AttackCell, TrainCell

# Train images, validation images, and all that are encoded at the end, by the protocols of `hashrobust list datasets`.
HASHING = {
    "cifar10": (5_000, 1_000, 60_000),
    "nuswide": (10_500, 2_100, 195_834),
    "mscoco": (10_000, 5_000, 122_218),
    "imagenet100": (13_000, 2_500, 133_503),
}
CLASSIFICATION = {"cifar10": (45_000, 5_000, 10_000), "imagenet100": (11_700, 1_300, 5_000)}


@cache
def operations(backbone: str, size: int) -> float:
    """Floating-point operations of one image's pass forward: two a multiplication and addition."""
    network = build_backbone(backbone, channels=3, image_size=size).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, size, size))
    return float(counter.get_total_flops())


def passes_of_training(task: str, config: TrainingConfig) -> float:
    train, validation, encoded = (HASHING if task == "hashing" else CLASSIFICATION)[config.dataset]
    return config.epochs * (3 * train + validation) + encoded


def passes_of_attack(config: AttackConfig) -> float:
    attack = build(config)
    gradients = attack.gradient_steps if isinstance(attack, GradientAttack) else 0
    forward = attack.budget if isinstance(attack, SearchAttack) else 0
    return (config.queries or 0) * (2 * gradients + forward + 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", nargs="?", type=Path, default=Path("studies/paper.toml"))
    parser.add_argument("--tera", type=float, default=10.0)
    arguments = parser.parse_args()
    planned = plan_study(arguments.study, None)
    work: dict[tuple[str, str, str], float] = defaultdict(float)
    count: dict[tuple[str, str, str], int] = defaultdict(int)
    trained = {cell.key: cell for cell in planned.cells if isinstance(cell, TrainCell)}
    for cell in planned.cells:
        owner = trained.get(cell.needs[0]) if isinstance(cell, AttackCell) else trained.get(cell.key)
        if owner is None:  # an attack on a network of the pre-training kind
            continue
        config = owner.config
        assert config.image_size is not None
        each = operations(config.backbone, config.image_size)
        if isinstance(cell, AttackCell):
            passes, number, stage = sum(map(passes_of_attack, cell.attacks)), len(cell.attacks), "attacks"
        else:
            passes, number, stage = passes_of_training(owner.task, config), 1, "training"
        work[stage, owner.task, config.backbone] += passes * each
        count[stage, owner.task, config.backbone] += number
    print(f"{'stage':<10}{'task':<16}{'network':<10}{'number':>8}{'1e15 operations':>17}{'GPU hours':>11}")
    for key, total in sorted(work.items()):
        hours = total / (arguments.tera * 1e12) / 3600
        print(f"{key[0]:<10}{key[1]:<16}{key[2]:<10}{count[key]:>8}{total / 1e15:>17.0f}{hours:>11.1f}")
    total = sum(work.values())
    print(f"in all {total / 1e15:.0f}e15 operations, {total / (arguments.tera * 1e12) / 3600:.0f} GPU hours")


if __name__ == "__main__":
    main()
