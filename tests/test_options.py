from __future__ import annotations

from typing import Any

import pytest

from hashrobust.errors import InputError
from hashrobust.options import AUGMENTATIONS, OPTIMIZERS, SCHEDULES, TrainingOptions

BAD: list[tuple[dict[str, Any], str]] = [
    ({"epochs": 0}, "epochs is 0"),
    ({"epochs": 2.5}, "epochs is 2.5"),
    ({"batch_size": 1}, "batch_size is 1.*at least 2"),
    ({"learning_rate": 0.0}, "learning_rate is 0"),
    ({"learning_rate": float("inf")}, "learning_rate is inf"),
    ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ({"head_learning_rate_factor": -1.0}, "head_learning_rate_factor is -1"),
    ({"learning_rate": 1e20, "head_learning_rate_factor": 1e20}, "learning_rate of the head is 1e.40"),
    ({"weight_decay": -0.1}, "weight_decay is -0.1"),
    ({"weight_decay": float("nan")}, "weight_decay is nan"),
    ({"weight_decay": float("inf")}, "weight_decay is inf"),
    ({"patience": 0}, "patience is 0"),
    ({"optimizer": "adamw"}, "unknown optimizer 'adamw'.*adam, sgd"),
    ({"schedule": "steps"}, "unknown schedule 'steps'"),
    ({"augment": "flips"}, "unknown augmentation 'flips'"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingOptions(**values)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_every_named_choice_is_taken(optimizer: str, schedule: str, augment: str) -> None:
    options = TrainingOptions(optimizer=optimizer, schedule=schedule, augment=augment)
    assert (options.optimizer, options.schedule, options.augment) == (optimizer, schedule, augment)
