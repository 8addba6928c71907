from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hashrobust.attacks import AttackContext, build_attack, inside_ball
from hashrobust.datasets import RetrievalDataset, load_dataset
from hashrobust.errors import InputError
from hashrobust.metrics import average_precision
from hashrobust.models import Classifier, HashModel, Network, frozen
from hashrobust.rules import convert, redraw_feedback
from hashrobust.training import TrainingState, build_defence, finetune, pretrain
from hashrobust.training.defences import Defence
from hashrobust.training.defences.center_at import CenterAdversarialTraining, agreement

FAST: dict[str, Any] = {"batch_size": 50, "learning_rate": 2e-3, "head_learning_rate_factor": 1.0}
SHORT: dict[str, Any] = {"epsilon": 0.1, "steps": 3, "step_size": 0.05}
ONE_STEP: dict[str, Any] = {"epsilon": 0.1, "step_size": 0.125}


@pytest.fixture(scope="module")
def digits() -> RetrievalDataset:
    return load_dataset("digits", image_size=16)


@pytest.fixture(scope="module")
def few(digits: RetrievalDataset) -> RetrievalDataset:
    """Digits with a train split of 100."""
    rows = torch.arange(0, 500, 5)
    return replace(
        digits, train=replace(digits.train, labels=digits.train.labels[rows], ids=digits.train.ids[rows])
    )


@pytest.fixture(scope="module")
def backbone(digits: RetrievalDataset) -> dict[str, Tensor]:
    """Weights of a lenet that knows digits: without them all center codes begin as the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier("lenet", 10, image_size=16)
    pretrain(model, digits, epochs=6, **FAST)
    return model.backbone.state_dict()


@pytest.fixture
def new_model(backbone: dict[str, Tensor]) -> Callable[..., HashModel]:
    def make(rule: str = "bp") -> HashModel:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = HashModel("lenet", 16, image_size=16)
        model.backbone.load_state_dict(backbone)
        if rule != "bp":
            convert(model, rule, seed=0)
        return model

    return make


def batch_of(data: RetrievalDataset, model: HashModel, defence: CenterAdversarialTraining, size: int) -> Any:
    """Images, ids, and the center codes of their labels at the start of an epoch."""
    defence.start_epoch(model, data.train)
    chosen = torch.arange(size)
    return data.train.load(chosen), data.train.ids[chosen], defence.centers(data.train.labels[chosen])


# ---- the attacker's images


@given(
    st.floats(1e-3, 1.0),
    st.integers(1, 3),
    st.floats(1e-3, 1.0),
    st.integers(0, 9),
    st.sampled_from(["frsf", "bp"]),
)
@settings(deadline=None, max_examples=20)
def test_adversarial_images_lie_in_the_ball(
    epsilon: float, steps: int, step_size: float, seed: int, rule: str
) -> None:
    model = HashModel("lenet", 8, image_size=16)
    convert(model, rule)
    defence = CenterAdversarialTraining(epsilon=epsilon, steps=steps, step_size=step_size, seed=seed)
    images = torch.rand(3, 1, 16, 16).round(decimals=1)
    found = defence.adversarial(model, images, torch.ones(3, 8), torch.arange(3), seed)
    assert inside_ball(found, images, epsilon)
    assert not found.requires_grad and not torch.equal(found, images)


def test_the_attacker_takes_agreement_away(
    digits: RetrievalDataset, new_model: Callable[..., HashModel]
) -> None:
    model, defence = new_model(), CenterAdversarialTraining(epsilon=0.1, step_size=0.025)
    images, ids, centers = batch_of(digits, model, defence, 60)
    model.eval()
    found = defence.adversarial(model, images, centers, ids, 0)
    noise = images + 0.1 * (2 * torch.rand_like(images) - 1)
    clean, noisy, attacked = (
        agreement(torch.tanh(model(x.clamp(0, 1))), centers).mean().item() for x in (images, noise, found)
    )
    assert attacked < noisy - 0.02 and attacked < clean - 0.02


def plain_attack(model: HashModel, start: Tensor, images: Tensor, centers: Tensor) -> Tensor:
    """Sign steps by plain backpropagation from a given start, as anyone would write them."""
    moved = start.clone()
    for _ in range(3):
        moved = moved.detach().requires_grad_()
        (torch.tanh(model(moved)) * centers).mean().backward()
        assert moved.grad is not None
        moved = moved.detach() - 0.05 * moved.grad.sign()
        moved = torch.maximum(torch.minimum(moved, images + 0.1), images - 0.1).clamp(0, 1)
    return moved


@pytest.mark.parametrize("rule", ["bp", "frsf", "brsf"])
def test_the_attacker_follows_the_exact_gradient_in_eval_mode(
    digits: RetrievalDataset, new_model: Callable[..., HashModel], rule: str
) -> None:
    """From the same random start, whose place is what a step of no length leaves."""
    plain, model = new_model().eval(), new_model(rule).train()
    images, ids, centers = batch_of(digits, model, CenterAdversarialTraining(**SHORT), 40)
    ours = CenterAdversarialTraining(**SHORT)
    start = CenterAdversarialTraining(epsilon=0.1, steps=1, step_size=1e-12)
    began = start.adversarial(model, images, centers, ids, 4)
    found = ours.adversarial(model, images, centers, ids, 4)
    torch.testing.assert_close(found, plain_attack(plain, began, images, centers), rtol=0, atol=1e-6)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("rule", ["bp", "frsf"])
def test_the_attacker_may_follow_the_rules_own_gradient(
    digits: RetrievalDataset, new_model: Callable[..., HashModel], rule: str
) -> None:
    model = new_model(rule)
    images, ids, centers = batch_of(digits, model, CenterAdversarialTraining(**SHORT), 40)
    by_rule, exact = (
        CenterAdversarialTraining(**SHORT, gradient=gradient).adversarial(model, images, centers, ids, 4)
        for gradient in ("rule", "exact")
    )
    assert torch.equal(by_rule, exact) == (rule == "bp")
    start = CenterAdversarialTraining(epsilon=0.1, steps=1, step_size=1e-12)
    began = start.adversarial(model, images, centers, ids, 4)
    # The model's own backward pass, as anyone would call it, is that of its rule.
    expected = plain_attack(model.eval(), began, images, centers)
    torch.testing.assert_close(by_rule, expected, rtol=0, atol=1e-6)


def test_the_fast_defence_takes_one_large_step(
    digits: RetrievalDataset, new_model: Callable[..., HashModel]
) -> None:
    fast = build_defence("center-fast", {}, seed=3)
    assert isinstance(fast, CenterAdversarialTraining)
    model = new_model()
    images, ids, centers = batch_of(digits, model, fast, 30)
    same = CenterAdversarialTraining(steps=1, step_size=1.25 * 8 / 255, seed=3)
    calls: list[int] = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    found = fast.adversarial(model, images, centers, ids, 0)
    handle.remove()
    assert torch.equal(found, same.adversarial(model, images, centers, ids, 0)) and len(calls) == 1


def test_normalisation_is_that_of_eval_mode_and_stays_as_it_was() -> None:
    plain, model = HashModel("resnet20", 8, image_size=16), HashModel("resnet20", 8, image_size=16)
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr, operator]
    model.load_state_dict(plain.state_dict())
    images, centers, ids = torch.rand(6, 1, 16, 16), torch.ones(6, 8), torch.arange(6)
    began = CenterAdversarialTraining(epsilon=0.1, steps=1, step_size=1e-12)
    start = began.adversarial(model.train(), images, centers, ids, 0)
    found = CenterAdversarialTraining(**SHORT).adversarial(model, images, centers, ids, 0)
    wanted = plain_attack(plain.eval(), start, images, centers)
    # A pixel whose gradient is almost nothing may step either way, by rounding.
    assert ((found - wanted).abs() < 1e-6).float().mean() > 0.99
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_starts_depend_on_seed_step_and_sample_alone() -> None:
    model, images, centers = HashModel("lenet", 8, image_size=16), torch.rand(4, 1, 16, 16), torch.ones(4, 8)

    def made(seed: int, step: int, rows: list[int]) -> Tensor:
        defence = CenterAdversarialTraining(seed=seed)
        return defence.adversarial(model, images[rows], centers[rows], torch.tensor(rows), step)

    whole = made(0, 3, [0, 1, 2, 3])
    torch.testing.assert_close(made(0, 3, [2, 0]), whole[[2, 0]], rtol=0, atol=1e-6)
    assert not torch.equal(made(0, 4, [0, 1, 2, 3]), whole) and not torch.equal(
        made(1, 3, [0, 1, 2, 3]), whole
    )


# ---- the loss


@pytest.mark.parametrize("rule", ["bp", "frsf"])
def test_a_step_on_the_loss_brings_attacked_images_nearer_to_their_centers(
    digits: RetrievalDataset, new_model: Callable[..., HashModel], rule: str
) -> None:
    model, defence = new_model(rule).train(), CenterAdversarialTraining(**SHORT)
    images, ids, centers = batch_of(digits, model, defence, 100)
    labels = digits.train.labels[:100]
    attacked = defence.adversarial(model, images, centers, ids, 0)
    before = agreement(torch.tanh(model(attacked)), centers).mean().item()
    loss = defence.loss(model, images, labels, ids, 0)
    assert loss.item() == pytest.approx(-before, abs=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(model.parameters(), lr=0.05).step()
    assert agreement(torch.tanh(model(attacked)), centers).mean().item() > before + 1e-3


def test_weights_scale_the_two_terms(digits: RetrievalDataset, new_model: Callable[..., HashModel]) -> None:
    model, labels, ids = new_model().eval(), digits.train.labels[:20], digits.train.ids[:20]
    images = digits.train.load(torch.arange(20))

    def loss(**weights: float) -> float:
        defence = CenterAdversarialTraining(**SHORT, **weights)
        defence.start_epoch(model, digits.train)
        return defence.loss(model, images, labels, ids, 0).item()

    defence = CenterAdversarialTraining(**SHORT)
    _, _, centers = batch_of(digits, model, defence, 20)
    u = torch.tanh(model(defence.adversarial(model, images, centers, ids, 0)))
    quantization = sum((u[i] - u[i].sign()).norm().item() ** 2 for i in range(20)) / 20
    assert loss(weight=2.0) == pytest.approx(2 * loss(), rel=1e-5)
    assert loss(weight=0.0, quantization_weight=0.5) == pytest.approx(0.5 * quantization, rel=1e-4)
    assert loss(quantization_weight=0.5) == pytest.approx(loss() + 0.5 * quantization, rel=1e-4)


def test_centers_are_those_of_the_weights_at_the_start_of_the_epoch(
    digits: RetrievalDataset, new_model: Callable[..., HashModel]
) -> None:
    """Against the definition, class by class; a change of the weights counts from the next epoch on."""
    model, defence, classes = new_model(), CenterAdversarialTraining(), torch.eye(10, dtype=torch.uint8)
    defence.start_epoch(model, digits.train)
    codes, of_class = model.encode(digits.train).double(), digits.train.labels.argmax(dim=1)
    for c in range(10):
        mean = codes[of_class == c].mean(dim=0) - codes[of_class != c].mean(dim=0)
        assert torch.equal(defence.centers(classes)[c], torch.where(mean >= 0, 1.0, -1.0))
    first = defence.centers(classes)
    with torch.no_grad():
        model.head.weight.neg_()
    assert torch.equal(defence.centers(classes), first)
    defence.start_epoch(model, digits.train)
    assert not torch.equal(defence.centers(classes), first)


# ---- in the loop


class Kept:
    """Checkpoints in memory; `stop` interrupts after that epoch."""

    def __init__(self, stop: int) -> None:
        self.state: TrainingState | None = None
        self.stop: int | None = stop

    def load(self) -> TrainingState | None:
        return copy.deepcopy(self.state)

    def save(self, state: TrainingState, model: Network) -> None:
        self.state = copy.deepcopy(state)
        if state.epoch == self.stop:
            self.stop = None
            raise KeyboardInterrupt


@pytest.mark.parametrize("rule", ["bp", "brsf"])
def test_resumed_training_ends_where_uninterrupted_does(
    few: RetrievalDataset, new_model: Callable[..., HashModel], rule: str
) -> None:
    how: dict[str, Any] = {"defence": "center-at", "defence_params": {"steps": 2}, "epochs": 2, "seed": 3}
    how |= FAST | {"augment": "crop"}
    whole, resumed, kept = new_model(rule), new_model(rule), Kept(1)
    wanted = finetune(whole, few, **how)
    with pytest.raises(KeyboardInterrupt):
        finetune(new_model(rule), few, checkpoints=kept, **how)
    torch.rand(17)
    assert finetune(resumed, few, checkpoints=kept, **how) == wanted
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])


def test_the_loop_adds_what_a_defence_gives_and_none_changes_nothing(
    digits: RetrievalDataset, new_model: Callable[..., HashModel]
) -> None:
    calls: list[Any] = []

    class Constant(Defence):
        def start_epoch(self, model: Network, train: Any) -> None:
            calls.append(len(train))

        def loss(self, model: Network, images: Tensor, labels: Tensor, ids: Tensor, step: int) -> Tensor:
            assert model.training and torch.equal(digits.train.labels[_rows(digits, ids)], labels)
            calls.append(step)
            return torch.tensor(5.0)

    models = [new_model() for _ in range(3)]
    plain, none, defended = (
        finetune(model, digits, epochs=2, defence=defence, **(FAST | {"batch_size": 250})).history
        for model, defence in zip(models, ("none", None, Constant()), strict=True)
    )
    assert plain == none
    assert calls == [500, 0, 1, 500, 2, 3]
    for one, other in zip(plain, defended, strict=True):
        assert other["loss"] == pytest.approx(one["loss"] + 5, rel=1e-6)
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[2].state_dict()[name])


def _rows(data: RetrievalDataset, ids: Tensor) -> Tensor:
    """The rows of the train split that have these ids."""
    return (data.train.ids[None, :] == ids[:, None]).int().argmax(dim=1)


def test_the_training_step_follows_the_models_rule(
    digits: RetrievalDataset, new_model: Callable[..., HashModel]
) -> None:
    """The head's weights have the gradient of backpropagation under any rule, those below have not."""
    gradients = {}
    for rule in ("bp", "brsf"):
        model, defence = new_model(rule).eval(), CenterAdversarialTraining(**SHORT)
        redraw_feedback(model, 0)
        images, ids, _ = batch_of(digits, model, defence, 30)
        defence.loss(model, images, digits.train.labels[:30], ids, 0).backward()  # type: ignore[no-untyped-call]
        gradients[rule] = model.head.weight.grad, model.backbone.get_parameter("conv1.weight").grad
    torch.testing.assert_close(gradients["brsf"][0], gradients["bp"][0], rtol=1e-4, atol=1e-7)
    cosine = torch.cosine_similarity(*(gradients[rule][1].flatten() for rule in gradients), dim=0)
    assert cosine < 0.99


def test_mixed_precision_runs(few: RetrievalDataset, new_model: Callable[..., HashModel]) -> None:
    result = finetune(
        new_model("frsf"),
        few,
        epochs=1,
        defence="center-at",
        defence_params=SHORT,
        mixed_precision=True,
        **FAST,
    )
    assert math.isfinite(result.history[0]["loss"])


def scores(model: HashModel, data: RetrievalDataset, epsilon: float) -> tuple[float, float]:
    """mAP of the queries, clean and under the center attack."""
    context = AttackContext(
        train_codes=model.encode(data.train), train_labels=data.train.labels, sample_ids=data.query.ids
    )
    labels = data.query.labels
    with frozen(model):
        attack = build_attack("center", epsilon=epsilon, steps=20)
        attacked = attack(model, data.query.images, labels=labels, context=context)
    database = model.encode(data.database)
    clean, left = (
        average_precision(model.encode(images), database, labels, data.database.labels).mean()
        for images in (data.query.images, attacked)
    )
    return float(clean), float(left)


def test_adversarially_trained_models_are_more_robust(
    digits: RetrievalDataset, new_model: Callable[..., HashModel]
) -> None:
    """The purpose of it: at the training epsilon more mAP is left, and the clean mAP is no lower for it."""
    measured = {}
    for defence, params in (("none", {}), ("center-at", SHORT), ("center-fast", ONE_STEP)):
        model = new_model()
        finetune(model, digits, epochs=4, defence=defence, defence_params=params, **FAST)
        measured[defence] = scores(model, digits, 0.1)
    clean, left = measured.pop("none")
    assert clean - left > 0.2
    for clean_defended, left_defended in measured.values():
        assert clean_defended > clean - 0.05
        assert left_defended > left + 0.08


# ---- bad input


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("center-ta", {}, "unknown defence 'center-ta': did you mean 'center-at'"),
        ("center-at", {"wieght": 2}, "no parameter 'wieght': did you mean 'weight'"),
        ("center-at", {"seed": 2}, "'seed' is that of the training"),
        ("center-at", {"weight": -1.0}, "weight of defence center-at is -1"),
        ("center-at", {"weight": math.nan}, "weight of defence center-at is nan"),
        ("center-at", {"quantization_weight": math.inf}, "quantization_weight of defence center-at is inf"),
        ("center-at", {"epsilon": 8}, "epsilon of defence center-at is 8: .* such as 8/255"),
        ("center-at", {"epsilon": "8/256x"}, "epsilon of defence center-at is '8/256x'"),
        ("center-at", {"step_size": 0.0}, "step_size of defence center-at is 0"),
        ("center-at", {"steps": 0}, "steps of defence center-at is 0"),
        ("center-at", {"steps": 1.5}, "steps of defence center-at is 1.5"),
        ("center-at", {"gradient": "exakt"}, "gradient of defence center-at is 'exakt': give exact or rule"),
        ("center-fast", {"steps": 0}, "steps of defence center-fast is 0"),
        ("none", {"weight": 2}, "weight without a defence"),
    ],
)
def test_wrong_requests_are_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_defence(name, params, seed=0)


def test_parameters_of_a_finished_defence_are_refused(digits: RetrievalDataset) -> None:
    model = HashModel("lenet", 8, image_size=16)
    with pytest.raises(InputError, match="defence_params belong to a defence's name"):
        finetune(model, digits, defence=CenterAdversarialTraining(), defence_params={"weight": 2.0})
