from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashrobust.errors import InputError
from hashrobust.options import (
    AUGMENTATIONS,
    OPTIMIZERS,
    SCHEDULES,
    Stage,
    TrainingOptions,
    own_feedback,
    parse_stages,
)

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
    ({"patience": 0}, "patience is 0: give at least 1 epoch, or None"),
    ({"epochs": True}, "epochs is True"),
    ({"learning_rate": "1e-3"}, "learning_rate is '1e-3'"),
    ({"head_learning_rate_factor": None}, "head_learning_rate_factor is None"),
    ({"weight_decay": "none"}, "weight_decay is 'none'"),
    ({"patience": 2.5}, "patience is 2.5"),
    ({"max_steps": True}, "max_steps is True"),
    ({"seed": 0.5}, "seed is 0.5"),
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


def test_an_epoch_of_thousands_of_digits_is_malformed() -> None:
    with pytest.raises(InputError, match="malformed"):
        parse_stages(f"bp@{'9' * 5000},frsf")


@given(st.lists(st.tuples(st.sampled_from(["bp", "fa", "usf", "my-rule_2"]), st.integers(1, 40)), min_size=1))
def test_stages_are_read_as_they_were_written(wanted: list[tuple[str, int]]) -> None:
    stages: list[Stage] = []
    for rule, epochs in wanted:
        if not stages or stages[-1].rule != rule:
            stages.append(Stage(rule, epochs + ((stages[-1].until or 0) if stages else 0)))
    begins = stages[-2].until if len(stages) > 1 else 0
    stages[-1] = Stage(stages[-1].rule)
    text = ",".join(stage.rule if stage.until is None else f"{stage.rule}@{stage.until}" for stage in stages)
    assert list(parse_stages(text)) == stages == list(parse_stages(text, (begins or 0) + 1))
    if begins:
        with pytest.raises(InputError, match="never comes to"):
            parse_stages(text, begins)
    assert own_feedback(text) == stages[-1].rule
    own = own_feedback(text, "head,conv*")
    assert own == ("bp" if stages[-1].rule == "bp" else f"{stages[-1].rule}:head+conv*")
