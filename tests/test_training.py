from __future__ import annotations

import contextlib
import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hashrobust.datasets import RetrievalDataset, load_classification, load_dataset
from hashrobust.errors import InputError, TrainingError
from hashrobust.metrics import average_precision
from hashrobust.models import Classifier, HashModel, Network
from hashrobust.objectives import build_objective
from hashrobust.rules import convert, feedback_state
from hashrobust.seeding import key_seed
from hashrobust.training import (
    TrainingState,
    augment,
    finetune,
    finetune_classifier,
    objective_for,
    pretrain,
    validation_map,
)
from hashrobust.training import loop as loop_module

FAST: dict[str, Any] = {"batch_size": 64, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def digits() -> RetrievalDataset:
    """Digits with a train split of 150, so that an epoch is 3 steps of 64, 64 and 22 images."""
    data = load_dataset("digits", image_size=16)
    train = replace(data.train, labels=data.train.labels[::3][:150], ids=data.train.ids[::3][:150])
    return replace(data, train=train)


def new_model(rule: str = "bp", *, seed: int = 0, backbone: str = "lenet") -> HashModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = HashModel(backbone, 12, image_size=16)
    if rule != "bp":
        convert(model, rule, seed=seed)
    return model


def weights(model: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


class Forbidden:
    """Images that no training may look at."""

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        self.image_shape = image_shape

    def load(self, ids: Any) -> Tensor:
        raise AssertionError("training looked at images that it must not see")


class Kept:
    """Checkpoints in memory; `stop` interrupts after that epoch."""

    def __init__(self, stop: int | None = None) -> None:
        self.states: list[TrainingState] = []
        self.stop = stop

    def load(self) -> TrainingState | None:
        return copy.deepcopy(self.states[-1]) if self.states else None

    def save(self, state: TrainingState, model: Network) -> None:
        self.states.append(copy.deepcopy(state))
        if state.epoch == self.stop:
            self.stop = None
            raise KeyboardInterrupt


# ---- the loop against a plain one


def plain_epochs(model: HashModel, data: RetrievalDataset, epochs: int, rates: list[float]) -> list[float]:
    """Fine-tuning by backpropagation as anyone would write it; the losses of the steps."""
    objective = build_objective("dpsh", bits=12, num_classes=10, similar_share=data.similar_share)
    head = list(model.head.parameters())
    optimizer = torch.optim.Adam(
        [{"params": list(model.backbone.parameters())}, {"params": head}],
        lr=1.0,
        weight_decay=5e-4,
        fused=True,
    )
    losses: list[float] = []
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng(key_seed("order", 5, epoch)).permutation(150)
        model.train()
        for batch in (order[:64], order[64:128], order[128:]):
            rate = rates[len(losses)]
            optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, 10 * rate
            optimizer.zero_grad()
            loss = objective(model(data.train.load(batch)), data.train.labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_backpropagation_is_the_plain_loop_bit_for_bit(digits: RetrievalDataset, schedule: str) -> None:
    rates = [1e-3] * 6
    if schedule == "cosine":
        rates = [1e-3 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    if schedule == "step":
        rates = [1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5]
    plain, ours, kept = new_model(), new_model(), Kept()
    losses = plain_epochs(plain, digits, 2, rates)
    result = finetune(ours, digits, epochs=2, seed=5, schedule=schedule, checkpoints=kept, **FAST)
    last = {
        name.removeprefix("model."): v
        for name, v in kept.states[-1].tensors.items()
        if name.startswith("model.")
    }
    assert equal(last, weights(plain))
    means = [np.average(losses[start : start + 3], weights=[64, 64, 22]) for start in (0, 3)]
    assert [row["loss"] for row in result.history] == pytest.approx(means, rel=1e-12)
    assert [row["learning_rate"] for row in result.history] == pytest.approx([rates[2], rates[5]])


def test_a_batch_of_one_image_is_left_out(digits: RetrievalDataset) -> None:
    few = replace(digits.train, labels=digits.train.labels[:129], ids=digits.train.ids[:129])
    odd, model = replace(digits, train=few), new_model()
    seen: list[int] = []
    model.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0])) if module.training else None
    )
    finetune(model, odd, epochs=1, **FAST)
    assert seen[:2] == [64, 64] and 1 not in seen


# ---- what training may see, and what it leaves


def test_finetuning_never_sees_queries_or_database(digits: RetrievalDataset) -> None:
    blind: Any = Forbidden(digits.image_shape)
    hidden = replace(
        digits, query=replace(digits.query, source=blind), database=replace(digits.database, source=blind)
    )
    finetune(new_model("brsf"), hidden, epochs=1, **FAST)


def test_pretraining_sees_the_train_split_alone(digits: RetrievalDataset) -> None:
    blind: Any = Forbidden(digits.image_shape)
    splits = {
        name: replace(getattr(digits, name), source=blind) for name in ("query", "validation", "database")
    }
    model = Classifier("lenet", 10, image_size=16)
    result = pretrain(model, replace(digits, **splits), epochs=8, **FAST)
    assert [row["validation_map"] for row in result.history] == [None] * 8
    assert result.best_epoch == 8
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_pretraining_with_several_labels_an_image(digits: RetrievalDataset) -> None:
    labels = digits.train.labels | digits.train.labels.roll(1, dims=1)
    multi = replace(digits, multi_label=True, train=replace(digits.train, labels=labels))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier("lenet", 10, image_size=16)
    z = model.eval()(digits.train.images)
    wanted = F.binary_cross_entropy_with_logits(z, labels.float()).item()
    result = pretrain(model, multi, epochs=1, batch_size=150, learning_rate=1e-3)
    assert result.history[0]["loss"] == pytest.approx(wanted, rel=1e-5)


def test_validation_ranks_each_image_against_the_others(digits: RetrievalDataset) -> None:
    model = new_model()
    codes, labels = model.encode(digits.validation), digits.validation.labels
    scores = []
    for i in range(len(codes)):
        others = torch.arange(len(codes)) != i
        scores.append(
            average_precision(codes[i : i + 1], codes[others], labels[i : i + 1], labels[others])[0]
        )
    assert validation_map(model, digits.validation) == pytest.approx(float(np.mean(scores)))


def test_the_best_epoch_is_kept(digits: RetrievalDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.5, 0.5, 0.4])
    monkeypatch.setattr("hashrobust.training.validation_map", lambda model, split: next(scores))
    model, kept = new_model(), Kept()
    result = finetune(model, digits, epochs=4, checkpoints=kept, **FAST)
    assert result.best_epoch == 2 and not model.training
    assert [row["validation_map"] for row in result.history] == [0.2, 0.5, 0.5, 0.4]
    second = kept.states[1].tensors
    assert equal(weights(model), {name: second[f"model.{name}"] for name in model.state_dict()})


def test_patience_counts_epochs_without_a_better_score(
    digits: RetrievalDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(scores: list[float], patience: int | None) -> int:
        given = iter(scores)
        monkeypatch.setattr("hashrobust.training.validation_map", lambda model, split: next(given))
        return len(finetune(new_model(), digits, epochs=6, patience=patience, **FAST).history)

    assert run([0.3, 0.2, 0.1, 0.9], patience=2) == 3
    assert run([0.3, 0.2, 0.4, 0.4, 0.4, 0.9], patience=2) == 5
    assert run([0.3, 0.2, 0.1, 0.0, 0.0, 0.0], patience=None) == 6


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_of_few_steps_is_the_beginning_of_a_longer_one(digits: RetrievalDataset, schedule: str) -> None:
    def after(steps: int | None, epochs: int = 3) -> dict[str, Tensor]:
        model = new_model("frsf")
        finetune(model, digits, objective="csq", epochs=epochs, max_steps=steps, schedule=schedule, **FAST)
        return weights(model)

    counted: list[dict[str, Tensor]] = []
    plain = loop_module.Loop._step

    def counting(self: Any, *arguments: Any) -> float:
        loss = plain(self, *arguments)
        counted.append(weights(self.model))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module.Loop, "_step", counting)
        after(9)
    assert len(counted) == 9
    for steps in (1, 3, 4, 9):
        assert equal(after(steps), counted[steps - 1]), steps
    assert equal(after(0), weights(new_model("frsf")))
    assert equal(after(1000), counted[-1])  # no more than the epochs have


def test_the_global_random_state_is_left_alone(digits: RetrievalDataset) -> None:
    state = torch.get_rng_state()
    finetune(new_model(), digits, objective="hyp2", epochs=1, augment="crop-flip", **FAST)
    assert torch.equal(torch.get_rng_state(), state)


# ---- resuming


@pytest.mark.parametrize(
    ("rule", "backbone", "own"),
    [
        ("brsf", "lenet", {"augment": "crop-flip", "schedule": "cosine"}),
        ("frsf", "resnet20", {"optimizer": "sgd"}),
        ("brsf", "resnet20", {}),
        ("bp", "lenet", {"objective": "hyp2"}),
    ],
)
@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_training_ends_where_uninterrupted_does(
    digits: RetrievalDataset, rule: str, backbone: str, own: dict[str, Any], stop: int
) -> None:
    whole = new_model(rule, backbone=backbone)
    wanted = finetune(whole, digits, epochs=3, seed=2, **FAST, **own)
    kept = Kept(stop)
    with pytest.raises(KeyboardInterrupt):
        finetune(
            new_model(rule, backbone=backbone), digits, epochs=3, seed=2, checkpoints=kept, **FAST, **own
        )
    torch.rand(17)
    resumed = new_model(rule, backbone=backbone)
    found = finetune(resumed, digits, epochs=3, seed=2, checkpoints=kept, **FAST, **own)
    assert found == wanted
    assert equal(weights(resumed), weights(whole))
    assert equal(feedback_state(resumed), feedback_state(whole))


# ---- layout


@pytest.mark.parametrize("backbone, name", [("resnet20", "stages.0.0.conv1"), ("lenet", "conv2")])
def test_a_backbone_may_train_channels_last_and_is_left_as_it_was(
    backbone: str, name: str, digits: RetrievalDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    plain = loop_module.Loop._step

    def looking(self: Any, *arguments: Any) -> float:
        loss = plain(self, *arguments)
        layer = self.model.backbone.get_submodule(name)
        moments = self.optimizer.state[layer.weight]["exp_avg"]
        assert layer.weight.is_contiguous() == moments.is_contiguous()
        seen.append(layer.weight.is_contiguous(memory_format=torch.channels_last))
        return loss

    def trained(channels_last: bool) -> dict[str, Tensor]:
        model = new_model("frsf", backbone=backbone)
        strides = [tensor.stride() for tensor in model.state_dict().values()]
        monkeypatch.setattr(type(model.backbone), "channels_last", channels_last)
        finetune(model, digits, epochs=1, max_steps=3, optimizer="adam", **FAST)
        assert [tensor.stride() for tensor in model.state_dict().values()] == strides
        return weights(model)

    monkeypatch.setattr(loop_module.Loop, "_step", looking)
    expected, found = trained(False), trained(True)
    assert seen == [False] * 3 + [True] * 3
    # Adam's first steps move each weight by about the rate, whichever way rounding points.
    for key, tensor in expected.items():
        assert torch.allclose(found[key], tensor, atol=3e-4), key
    kept = Kept(stop=1)
    for interrupted in (pytest.raises(KeyboardInterrupt), contextlib.nullcontext()):
        with interrupted:
            finetune(new_model(backbone=backbone), digits, epochs=2, checkpoints=kept, **FAST)
        kept.states[-1].tensors = {
            key: t.contiguous() for key, t in kept.states[-1].tensors.items()
        }  # as files are
    assert seen[6:] == [True] * 6


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weights_that_lie_unusually_in_memory_train_as_others_do(
    digits: RetrievalDataset, optimizer: str
) -> None:
    """Fused optimizers take memory as it lies, and would mix up what lies otherwise."""

    def trained(every_second: bool) -> dict[str, Tensor]:
        model = new_model()
        weight = model.backbone.fc1.weight
        if every_second:
            model.backbone.fc1.weight = nn.Parameter(torch.stack((weight, weight), dim=-1).detach()[..., 0])
            assert not model.backbone.fc1.weight.is_contiguous()
        finetune(model, digits, epochs=1, max_steps=3, optimizer=optimizer, **FAST)
        return weights(model)

    expected, found = trained(False), trained(True)
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=3e-5), name


# ---- seeds and rules


def test_the_seed_changes_order_augmentation_and_proxies(digits: RetrievalDataset) -> None:
    def trained(**options: Any) -> dict[str, Tensor]:
        model = new_model()
        finetune(model, digits, epochs=1, **FAST, **options)
        return weights(model)

    assert equal(trained(seed=1), trained(seed=1))
    assert not equal(trained(seed=1), trained(seed=2))
    assert not equal(trained(seed=1), trained(seed=1, augment="flip"))
    one, same, other = (objective_for(digits, "hyp2", 12, {}, seed=seed).proxies for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_redraws_depend_on_the_step_alone(digits: RetrievalDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[tuple[int, ...]] = []
    original = loop_module.redraw_feedback

    def spy(model: Any, *key: int) -> None:
        keys.append(key)
        original(model, *key)

    monkeypatch.setattr(loop_module, "redraw_feedback", spy)
    finetune(new_model("brsf"), digits, epochs=2, **FAST)
    assert keys == [(step,) for step in range(6)]


def test_alignment_is_logged_each_epoch_for_all_rules_but_bp(digits: RetrievalDataset) -> None:
    assert finetune(new_model(), digits, epochs=2, **FAST).alignment == []
    rows = finetune(new_model("frsf"), digits, epochs=2, **FAST).alignment
    layers = ["backbone.conv1", "backbone.conv2", "backbone.conv3", "backbone.fc1", "head"]
    assert [(row["epoch"], row["layer"]) for row in rows] == [(e, layer) for e in (1, 2) for layer in layers]
    assert all(0 < row["angle_degrees"] < 90 and row["norm_ratio"] > 0 for row in rows)


def test_learning_rates_of_body_head_and_proxies(
    digits: RetrievalDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.optim.Optimizer] = []

    class Recorded(torch.optim.Adam):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    model = new_model()
    objective = build_objective("hyp2", bits=12, num_classes=10, similar_share=0.1, proxy_learning_rate=0.02)
    before = objective.get_parameter("proxies").detach().clone()
    finetune(
        model, digits, objective=objective, epochs=1, batch_size=64, learning_rate=1e-4,
        head_learning_rate_factor=3.0, weight_decay=0.0,
    )  # fmt: skip
    body, head, own = made[0].param_groups
    assert [group["lr"] for group in (body, head, own)] == pytest.approx([1e-4, 3e-4, 0.02])
    assert {id(p) for p in head["params"]} == {id(p) for p in model.head.parameters()}
    assert {id(p) for p in body["params"]} == {id(p) for p in model.backbone.parameters()}
    assert not torch.equal(objective.get_parameter("proxies"), before)


# ---- failure


def test_a_loss_that_is_not_a_number_leaves_the_start(digits: RetrievalDataset) -> None:
    model = new_model()
    start = weights(model)
    with pytest.raises(
        TrainingError, match=r"at epoch 1, step \d; no epoch was finished: lower --learning-rate$"
    ):
        finetune(model, digits, epochs=3, batch_size=64, learning_rate=1e30)
    assert equal(weights(model), start)


@pytest.mark.parametrize(
    ("scale", "mend"), [("xavier", " or choose --feedback-scale matched$"), ("matched", "$")]
)
def test_a_scale_of_feedback_is_advised_where_there_is_another(
    digits: RetrievalDataset, scale: str, mend: str
) -> None:
    model = new_model()
    convert(model, "frsf", scale=scale)
    with pytest.raises(TrainingError, match=f"lower --learning-rate{mend}"):
        finetune(model, digits, epochs=1, batch_size=64, learning_rate=1e30)


def test_a_loss_that_is_not_a_number_leaves_the_best_epoch(
    digits: RetrievalDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.4])
    monkeypatch.setattr("hashrobust.training.validation_map", lambda model, split: next(scores))
    model, kept = new_model(), Kept()
    objective = build_objective("dpsh", bits=12, num_classes=10, similar_share=0.1)
    monkeypatch.setattr(
        type(objective),
        "loss",
        lambda self, z, labels, step: z.square().mean() * (math.nan if step > 6 else 1),
    )
    with pytest.raises(TrainingError, match="loss is nan at epoch 3, step 7; the last good epoch is 2"):
        finetune(model, digits, objective=objective, epochs=4, checkpoints=kept, **FAST)
    assert equal(
        weights(model), {name: kept.states[0].tensors[f"model.{name}"] for name in model.state_dict()}
    )


def test_weights_that_break_in_the_last_step_are_noticed(
    digits: RetrievalDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model()
    start = weights(model)
    objective = build_objective("dpsh", bits=12, num_classes=10, similar_share=0.1)
    # The loss is 0, its gradient not a number.
    monkeypatch.setattr(type(objective), "loss", lambda self, z, labels, step: (z * 0).sqrt().sum())
    with pytest.raises(TrainingError, match=r"holds values that are not finite at epoch 1, step 0"):
        finetune(model, digits, objective=objective, epochs=1, batch_size=150)
    assert equal(weights(model), start)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": "dspsh"}, "did you mean 'dpsh'"),
        ({"objective_params": {"lamda": 1}}, "has no parameter 'lamda'"),
        ({"objective_params": {"bits": 16}}, "'bits' follows from the model"),
        ({"epoch": 3}, "'epoch'.*known: epochs, batch_size"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_wrong_requests_are_refused_before_any_work(
    digits: RetrievalDataset, given: dict[str, Any], message: str
) -> None:
    model = new_model()
    start = weights(model)
    with pytest.raises(InputError, match=message):
        finetune(model, digits, **given)
    assert equal(weights(model), start)


def test_models_of_another_kind_are_refused_before_any_work(digits: RetrievalDataset) -> None:
    classes: Any = load_classification("digits", image_size=16)
    hashing: Any = new_model()
    plain: Any = torch.nn.Linear(3, 3)
    for model in (plain, Classifier("lenet", 10, image_size=16)):
        with pytest.raises(InputError, match=rf"this is a {type(model).__name__}: give a HashModel"):
            finetune(model, digits, epochs=1)
    for train, data in ((pretrain, digits), (finetune_classifier, classes)):
        for model in (plain, hashing):
            with pytest.raises(InputError, match=rf"this is a {type(model).__name__}: give a Classifier"):
                train(model, data, epochs=1)
        with pytest.raises(InputError, match="has 3 outputs, and there are 10 classes"):
            train(Classifier("lenet", 3, image_size=16), data, epochs=1)


# ---- augmentation


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def batches(draw: st.DrawFn) -> Tensor:
    shape = [draw(st.integers(1, top)) for top in (5, 3, 20, 20)]
    return torch.rand(shape, generator=generator(draw(st.integers(0, 99))))


@given(batches(), st.sampled_from(["none", "flip", "crop", "crop-flip"]), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_augmentation_keeps_shape_and_range_and_repeats(images: Tensor, mode: str, seed: int) -> None:
    before = images.clone()
    found = augment(images, mode, generator(seed))
    assert found.shape == images.shape and torch.equal(images, before)
    assert found.min() >= 0 and found.max() <= images.max()
    assert torch.equal(found, augment(images, mode, generator(seed)))
    if mode == "none":
        assert torch.equal(found, images)
    if mode == "flip":
        for image, flipped in zip(images, found, strict=True):
            assert torch.equal(flipped, image) or torch.equal(flipped, image.flip(-1))


@given(st.integers(0, 999), st.sampled_from([8, 16, 28]))
@settings(deadline=None, max_examples=30)
def test_each_image_has_a_shift_of_its_own_within_an_eighth(seed: int, size: int) -> None:
    images = torch.zeros(16, 1, size, size)
    images[:, :, size // 2, size // 2] = 1
    moved = augment(images, "crop", generator(seed))
    places = [tuple((image[0] == 1).nonzero()[0].tolist()) for image in moved]
    assert all(
        max(abs(row - size // 2), abs(column - size // 2)) <= max(size // 8, 1) for row, column in places
    )
    assert len(set(places)) > 1
    assert torch.equal(moved.sum(dim=(1, 2, 3)), torch.ones(16))


def test_shifts_reach_every_place_and_flips_half_of_the_images() -> None:
    images = torch.zeros(2000, 1, 8, 8)
    images[:, :, 4, 4] = 1
    moved = augment(images, "crop", generator(0))
    assert {tuple((image[0] == 1).nonzero()[0].tolist()) for image in moved} == {
        (row, column) for row in (3, 4, 5) for column in (3, 4, 5)
    }
    images = torch.arange(4.0).expand(2000, 1, 1, 4)
    share = (augment(images, "flip", generator(0))[:, 0, 0, 0] == 3).float().mean().item()
    assert 0.45 < share < 0.55
