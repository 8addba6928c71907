"""Training by one rule up to an epoch, and by another after it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hashrobust.datasets import RetrievalDataset, load_dataset
from hashrobust.errors import InputError
from hashrobust.models import HashModel, Network
from hashrobust.rules import convert, feedback_state, rule_of
from hashrobust.training import StagedRule, TrainingResult, TrainingState, finetune

HOW: dict[str, Any] = {"seed": 2, "batch_size": 64, "learning_rate": 1e-3, "objective": "csq"}


@pytest.fixture(scope="module")
def digits() -> RetrievalDataset:
    """Two steps an epoch."""
    data = load_dataset("digits", image_size=16)
    return replace(data, train=replace(data.train, labels=data.train.labels[:120], ids=data.train.ids[:120]))


def new_model() -> HashModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HashModel("lenet", 12, image_size=16)


class Kept:
    """Checkpoints in memory; `stop` interrupts after that epoch."""

    def __init__(self, stop: int | None = None) -> None:
        self.states: list[TrainingState] = []
        self.rules: list[str] = []
        self.stop = stop

    def load(self) -> TrainingState | None:
        return copy.deepcopy(self.states[-1]) if self.states else None

    def save(self, state: TrainingState, model: Network) -> None:
        self.states.append(copy.deepcopy(state))
        self.rules.append(rule_of(model))
        if state.epoch == self.stop:
            self.stop = None
            raise KeyboardInterrupt

    def weights(self, epoch: int) -> dict[str, Tensor]:
        tensors = self.states[epoch - 1].tensors
        return {name: value for name, value in tensors.items() if name.startswith("model.")}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def train(
    data: RetrievalDataset, text: str, kept: Kept | None = None, *, scale: str = "xavier", **options: Any
) -> tuple[HashModel, TrainingResult]:
    model = new_model()
    staged = StagedRule.parse(text, seed=1, scale=scale)
    return model, finetune(model, data, staged=staged, checkpoints=kept, **(HOW | options))


def test_each_epoch_has_its_rule(digits: RetrievalDataset) -> None:
    kept = Kept()
    model, result = train(digits, "bp@1,dfa@2,frsf", kept, epochs=4)
    assert kept.rules == ["bp", "dfa", "frsf", "frsf"] and rule_of(model) == "frsf"
    assert {row["epoch"] for row in result.alignment} == {3, 4}  # those with a V to compare
    plain = Kept()
    finetune(new_model(), digits, epochs=2, checkpoints=plain, **HOW)
    assert same(kept.weights(1), plain.weights(1))
    assert not same(kept.weights(2), plain.weights(2))


def test_one_stage_is_the_rule_itself(digits: RetrievalDataset) -> None:
    staged, usual = Kept(), Kept()
    train(digits, "frsf", staged, epochs=2)
    model = new_model()
    convert(model, "frsf", seed=1)
    finetune(model, digits, epochs=2, checkpoints=usual, **HOW)
    assert same(staged.weights(2), usual.weights(2))


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize(
    ("text", "scale"), [("bp@2,frsf", "matched"), ("brsf@2,bp", "matched"), ("dfa@1,brsf", "xavier")]
)
def test_it_resumes_bit_for_bit(digits: RetrievalDataset, text: str, scale: str, stop: int) -> None:
    """Also behind the switch, where matched feedback has the norm that the weights had at it."""
    whole, cut = Kept(), Kept(stop)
    expected, usual = train(digits, text, whole, scale=scale, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        train(digits, text, cut, scale=scale, epochs=4)
    found, result = train(digits, text, cut, scale=scale, epochs=4)
    assert cut.rules == whole.rules
    assert same(cut.weights(4), whole.weights(4))
    assert same(dict(found.state_dict()), dict(expected.state_dict()))
    assert same(feedback_state(found), feedback_state(expected))
    assert (result.history, result.alignment) == (usual.history, usual.alignment)


def test_the_best_epoch_is_one_of_the_last_stage(
    digits: RetrievalDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.8, 0.3, 0.5, 0.4, 0.2, 0.1, 0.1])
    monkeypatch.setattr("hashrobust.training.validation_map", lambda *_: next(scores))
    kept = Kept()
    model, result = train(digits, "bp@2,frsf", kept, epochs=8, patience=3)
    assert result.best_epoch == 4
    assert len(result.history) == 7  # three epochs after the best, none of the first stage counted
    assert same({f"model.{name}": value for name, value in model.state_dict().items()}, kept.weights(4))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_beginning_of_it_carries_the_last_rule(digits: RetrievalDataset, steps: int) -> None:
    """As runs of a rule of 0 steps do: weights that it has not trained yet."""
    model, result = train(digits, "bp@3,frsf", epochs=5, max_steps=steps)
    plain = new_model()
    finetune(plain, digits, epochs=5, max_steps=steps, **HOW)
    assert rule_of(model) == "frsf"
    assert same(dict(model.state_dict()), dict(plain.state_dict()))
    assert result.alignment == []


@pytest.mark.parametrize(
    ("text", "how", "message"),
    [
        ("bp@2,frfs", {}, "unknown rule 'frfs': did you mean 'frsf'"),
        ("bp@2,dfa", {"scale": "matched"}, "no V whose norm"),
        ("bp@2,frsf", {"layers": "haed"}, "layers 'haed' fit no module"),
    ],
)
def test_a_later_stage_that_cannot_be_is_refused_before_any_epoch(
    digits: RetrievalDataset, text: str, how: dict[str, Any], message: str
) -> None:
    kept, model = Kept(), new_model()
    staged = StagedRule.parse(text, **how)
    with pytest.raises(InputError, match=message):
        finetune(model, digits, staged=staged, epochs=4, checkpoints=kept, **HOW)
    assert kept.states == [] and same(dict(model.state_dict()), dict(new_model().state_dict()))


def test_a_last_stage_that_never_begins_is_refused(digits: RetrievalDataset) -> None:
    with pytest.raises(InputError, match="begins after epoch 3, and there are 3"):
        train(digits, "bp@3,frsf", epochs=3)
