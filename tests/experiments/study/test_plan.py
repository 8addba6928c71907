"""The cells of a study against a slow obvious count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from hashrobust.experiments.study.check import check_study
from hashrobust.experiments.study.file import StudyFile
from hashrobust.experiments.study.matrix import read_study
from hashrobust.experiments.study.plan import AttackCell, AuditCell, Cell, PretrainCell, TrainCell, make_plan

FULL = """
name = "full"
datasets = ["digits", "fashion-mnist"]
backbones = ["lenet", "resnet20"]
weights = ["pretrained", "none"]
objectives = ["dpsh", { objective = "dch", quantization_weight = 0.2 }]
bits = [16, 32]
rules = ["bp", "usf", "frsf"]
scales = ["xavier", "matched"]
steps = [0, 10, "all"]
attacks = [
  "center", { attack = "center", steps = 7 }, "square",
  { attack = "noise", kind = "sign", epsilons = ["16/255"] }, { attack = "hag", gradients = ["rule"] },
]
epsilons = ["4/255", "8/255", 0.1]
gradients = ["exact", "rule", "rule:frsf", "rule:bp"]
seeds = [3, 5]
"""


def cells(path: Path) -> list[Cell]:
    study = read_study(StudyFile.read(path))
    check_study(study)
    return make_plan(study.matrices)


def counted(path: Path) -> Counter[str]:
    return sum((Counter({cell.stage: cell.units}) for cell in cells(path)), Counter())


def obvious() -> dict[str, set[tuple[object, ...]]]:
    """What the full study comes to, spelled out."""
    found: dict[str, set[tuple[object, ...]]] = {"pretrain": set(), "train": set(), "attack": set()}
    for seed in (3, 5):
        for dataset, backbone in product(("digits", "fashion-mnist"), ("lenet", "resnet20")):
            found["pretrain"].add((seed, dataset, backbone))
            for weights, objective, bits in product(("run", "none"), ("dpsh", "dch"), (16, 32)):
                for rule, scale, steps in product(
                    ("bp", "usf", "frsf"), ("xavier", "matched"), (0, 10, None)
                ):
                    feedback = "" if rule == "bp" else scale
                    run = (seed, dataset, backbone, weights, objective, bits, rule, feedback, steps)
                    found["train"].add(run)
                    for epsilon in (4 / 255, 8 / 255, 0.1):
                        for gradient in ("exact", "rule", "rule:frsf"):
                            if gradient == f"rule:{rule}":
                                continue
                            if gradient == "rule" and rule == "bp":
                                continue
                            found["attack"].add((run, "center 100", epsilon, gradient))
                            found["attack"].add((run, "center 7", epsilon, gradient))
                        found["attack"].add((run, "square", epsilon))
                        found["attack"].add((run, "hag", epsilon))
                    found["attack"].add((run, "noise", 16 / 255))
    return found


def test_the_plan_holds_what_an_obvious_count_finds(study: Callable[..., Path]) -> None:
    path = study(text=FULL)
    wanted = {stage: len(found) for stage, found in obvious().items()}
    assert dict(counted(path)) == wanted
    planned = cells(path)
    assert len({cell.key for cell in planned}) == len(planned)
    runs = set()
    for cell in planned:
        if isinstance(cell, TrainCell):
            c = cell.config
            scale = "" if c.rule == "bp" else c.feedback_scale
            start = (c.seed, c.dataset, c.backbone, c.weights.partition(":")[0])
            runs.add((*start, c.objective, c.bits, c.rule, scale, c.max_steps))
    assert runs == obvious()["train"]


def test_cells_come_after_all_that_they_need(study: Callable[..., Path]) -> None:
    path = study(text=FULL + "audits = { budget = 'quick', queries = 9 }\n")
    seen: set[str] = set()
    audits = 0
    for cell in cells(path):
        assert set(cell.needs) | set(cell.after) <= seen, cell.label
        seen.add(cell.key)
        if isinstance(cell, AuditCell):
            audits += 1
            run, control = cell.needs
            assert control.startswith("train/") and "-bp-" in control and "-bp-" not in run
            assert cell.config.queries == 9
    assert audits == sum(run[6] != "bp" for run in obvious()["train"])


def test_the_seed_and_the_settings_reach_every_configuration(study: Callable[..., Path]) -> None:
    path = study(("bits = [12]", "bits = [12]\nseeds = [4]\nthreads = 2"))
    pretraining, *others = cells(path)
    assert isinstance(pretraining, PretrainCell)
    config = pretraining.config
    assert (config.seed, config.threads, config.epochs, config.image_size) == (4, 2, 2, 16)
    for cell in others:
        if isinstance(cell, TrainCell):
            assert cell.needs == (pretraining.key,)
            assert cell.config.weights == f"run:{config.run_name}"
            assert (cell.config.seed, cell.config.threads, cell.config.learning_rate) == (4, 2, 2e-3)
        elif isinstance(cell, AttackCell):
            for attack in cell.attacks:
                assert (attack.queries, attack.batch_size, attack.threads, attack.seed) == (12, 8, 2, 0)


def test_matrices_share_the_top_and_their_work(study: Callable[..., Path]) -> None:
    more = """
[[matrix]]

[[matrix]]
rules = ["frsf"]
scales = ["matched"]

[[matrix]]
rules = ["bp"]
gradients = ["rule:frsf"]
finetune.hashing.epochs = 3

[[matrix]]
rules = ["bp"]
finetune.hashing.epochs = 9
"""
    alone, together = study(), study(text=study().read_text() + more, name="more.toml")
    one, all_of_them = counted(alone), counted(together)
    assert one == {"pretrain": 1, "train": 2, "attack": 2 + 3}
    # Of the matched run 3, of bp through frsf 1 more on the run of before, of longer bp 2.
    assert all_of_them == {"pretrain": 1, "train": 4, "attack": 5 + 3 + 1 + 2}


def test_a_preset_is_taken_and_overridden(study: Callable[..., Path]) -> None:
    path = study(
        ('objectives = ["csq"]', 'objectives = ["dpsh", "hyp2"]'),
        ("[finetune.hashing]\nepochs = 3", '[finetune.hashing]\npreset = "berriche2025"\npatience = 0'),
    )
    found = {cell.config.objective: cell.config for cell in cells(path) if isinstance(cell, TrainCell)}
    assert found["dpsh"].objective_params == {"quantization_weight": 0.01}
    assert found["hyp2"].objective_params == {}
    assert (found["dpsh"].epochs, found["dpsh"].weight_decay, found["dpsh"].patience) == (20, 5e-4, None)
    assert found["dpsh"].learning_rate == 2e-3


@pytest.mark.parametrize("order", [["bp", "frsf"], ["frsf", "bp"]])
def test_what_a_cell_is_called_does_not_depend_on_the_order(
    study: Callable[..., Path], order: list[str]
) -> None:
    written = ", ".join(f'"{rule}"' for rule in order)
    assert {cell.key for cell in cells(study(('["bp", "frsf"]', f"[{written}]")))} == {
        cell.key for cell in cells(study())
    }
