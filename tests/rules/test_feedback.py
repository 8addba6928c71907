"""What is drawn: its distribution, keys, storage, and how it stands to the weights."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from hashrobust.errors import InputError
from hashrobust.rules import (
    alignment,
    convert,
    feedback_seed,
    feedback_state,
    load_feedback_state,
    redraw_feedback,
)
from hashrobust.rules._draws import keyed_uniform


def network(order: int = 1) -> nn.ModuleDict:
    layers = {
        "conv": nn.Conv2d(4, 8, 3, groups=2),
        "linear": nn.Linear(30, 20),
        "deep": nn.Conv1d(6, 6, 5, groups=6),
    }
    return nn.ModuleDict(dict(list(layers.items())[::order]))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def state(rule: str, seed: int = 0, scale: str = "xavier", order: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(7)
    model = network(order)
    convert(model, rule, seed=seed, scale=scale)
    return feedback_state(model)


@pytest.mark.parametrize("rule", ["fa", "usf", "brsf", "frsf"])
def test_draws_depend_on_seed_and_name_alone(rule: str) -> None:
    first = state(rule)
    torch.manual_seed(123)
    assert same(first, state(rule))
    assert same(first, state(rule, order=-1))
    if rule != "usf":
        assert not torch.equal(first["linear"], state(rule, seed=1)["linear"])


@pytest.mark.parametrize("rule", ["fa", "frsf", "dfa"])
def test_a_seed_draws_the_same_whatever_its_type(rule: str) -> None:
    drawn = []
    for seed in (3, np.int64(3)):
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        convert(model, rule, seed=seed, probe=torch.zeros(2, 4))
        assert type(feedback_seed(model)) is int
        drawn.append(feedback_state(model))
    assert same(*drawn)


def test_draws_are_these_on_every_machine() -> None:
    layer = nn.Linear(2, 2)
    convert(layer, "fa", seed=0)
    expected = [[-1.1162811517715454, -0.6725515723228455], [-0.5926904678344727, 1.1542528867721558]]
    assert torch.equal(feedback_state(layer)[""], torch.tensor(expected))


def test_a_long_draw_is_the_generator_s_stream_without_gaps() -> None:
    """It is made in blocks; whoever draws all at once must get the same."""
    size, key = 2**18 + 3, ("fa", 4)
    seed = int.from_bytes(hashlib.sha256(repr(key).encode()).digest(), "little")
    integers = np.random.SFC64(seed).random_raw(size // 2 + 1).view(np.int32)[:size]
    expected = (integers / 2**31 * 0.25).astype(np.float32)
    assert np.array_equal(keyed_uniform(torch.Size((size,)), 0.25, *key).numpy(), expected)


def test_layers_of_equal_shape_differ() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    convert(model, "fa")
    stored = feedback_state(model)
    assert not torch.equal(stored["0"], stored["1"])


@pytest.mark.parametrize(
    "layer", [nn.Linear(300, 200), nn.Conv2d(64, 64, 5, groups=4), nn.Conv1d(512, 512, 41, groups=512)]
)
def test_draws_are_xavier_uniform(layer: nn.Module) -> None:
    reference = torch.empty_like(layer.weight)
    nn.init.xavier_uniform_(reference)
    convert(layer, "fa")
    drawn = feedback_state(layer)[""].flatten().double().numpy()
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert np.abs(drawn).max() <= bound * (1 + 1e-6)
    assert np.isclose(drawn.std(), reference.std(), rtol=0.02)
    # Kolmogorov's distance from the uniform distribution, and no tie between neighbours
    ranks = (np.arange(drawn.size) + 0.5) / drawn.size
    assert np.abs(np.sort((drawn / bound + 1) / 2) - ranks).max() < 2 / math.sqrt(drawn.size)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 4 / math.sqrt(drawn.size)
    convert(layer, "frsf")
    assert np.array_equal(feedback_state(layer)[""].flatten().double().numpy(), np.abs(drawn))
    convert(layer, "usf")
    assert feedback_state(layer)[""].item() == pytest.approx(math.sqrt(2 / (fan_in + fan_out)))


@pytest.mark.parametrize("scale", ["xavier", "matched"])
def test_redraws_are_keyed(scale: str) -> None:
    model = network()
    convert(model, "brsf", seed=3, scale=scale)
    first = feedback_state(model)
    redraw_feedback(model, 1, 2)
    second = feedback_state(model)
    assert not any(torch.equal(first[name], second[name]) for name in ("conv", "linear", "deep"))
    redraw_feedback(model, 12)
    assert not same(second, feedback_state(model))
    redraw_feedback(model, 1, 2)
    assert same(second, feedback_state(model))
    redraw_feedback(model, 0)
    assert same(first, feedback_state(model))


@pytest.mark.parametrize("rule", ["bp", "fa", "usf", "frsf"])
def test_other_rules_do_not_redraw(rule: str) -> None:
    model = network()
    convert(model, rule)
    before = feedback_state(model)
    redraw_feedback(model, 5)
    assert same(before, feedback_state(model))


def test_forward_passes_do_not_redraw() -> None:
    """BioTorch redraws at each forward call, in evaluation too."""
    model = nn.Sequential(nn.Linear(4, 4)).eval()
    convert(model, "brsf")
    before = feedback_state(model)
    gradients = []
    for _ in range(2):
        x = torch.ones(1, 4, requires_grad=True)
        model(x).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    assert same(before, feedback_state(model))


def test_a_graph_keeps_the_draw_it_was_built_with() -> None:
    model = nn.Linear(6, 4)
    convert(model, "brsf")
    gradients = []
    for redraw in (False, True):
        x = torch.ones(1, 6, requires_grad=True)
        y = model(x).sum()
        if redraw:
            redraw_feedback(model, 1)
        y.backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("rule", ["fa", "usf", "brsf", "frsf"])
def test_matched_feedback_has_the_norm_of_the_weights_at_conversion(rule: str) -> None:
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(7)
            parameter.view(-1)[0] = 0
    convert(model, rule, scale="matched")
    for layer in alignment(model):
        assert layer.norm_ratio == pytest.approx(1, rel=1e-5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    redraw_feedback(model, 9)
    for layer in alignment(model):
        assert layer.norm_ratio == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("rule", ["fa", "usf", "brsf", "frsf"])
@pytest.mark.parametrize("scale", ["xavier", "matched"])
def test_stored_feedback_wins_on_load(rule: str, scale: str) -> None:
    torch.manual_seed(0)
    model = network()
    convert(model, rule, seed=1, scale=scale)
    stored = load(save(feedback_state(model)))
    redraw_feedback(model, 4)
    later = feedback_state(model)

    resumed = network()  # other weights, so another matched norm
    convert(resumed, rule, seed=1, scale=scale)
    load_feedback_state(resumed, stored)
    assert same(feedback_state(resumed), stored)
    redraw_feedback(resumed, 4)
    assert same(feedback_state(resumed), later)


def test_a_resumed_matched_run_redraws_the_same() -> None:
    model = network()
    convert(model, "brsf", scale="matched")
    stored = feedback_state(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)  # training went on
    resumed = network()
    resumed.load_state_dict(model.state_dict())
    convert(resumed, "brsf", scale="matched")
    load_feedback_state(resumed, stored)
    redraw_feedback(model, 8)
    redraw_feedback(resumed, 8)
    assert same(feedback_state(model), feedback_state(resumed))


def test_the_state_is_a_copy() -> None:
    model = network()
    convert(model, "fa")
    feedback_state(model)["linear"].zero_()
    assert feedback_state(model)["linear"].abs().sum() > 0


def test_a_state_that_does_not_fit_is_refused_whole() -> None:
    model = network()
    convert(model, "frsf")
    before = feedback_state(model)
    wrong = {"conv": before["conv"] * 2, "linear": before["linear"].t(), "other": before["deep"]}
    with pytest.raises(
        InputError, match=r"missing: 'deep'; unexpected: 'other'; .*'linear' \(30, 20\) for \(20, 30\)\)"
    ):
        load_feedback_state(model, wrong)
    assert same(before, feedback_state(model))
    with pytest.raises(InputError, match="unexpected"):
        load_feedback_state(network(), before)
    assert feedback_state(network()) == {}


def test_buffers_follow_the_model_and_stay_out_of_its_state_dict() -> None:
    model = network()
    convert(model, "frsf")
    assert not any("feedback" in name for name in model.state_dict())
    model.double()
    assert all(stored.dtype == torch.float64 for stored in feedback_state(model).values())
    moved = network().to("meta")
    convert(model, "frsf")
    assert feedback_state(model)["conv"].dtype == torch.float64
    assert model.to("meta")["conv"].feedback.device == moved["conv"].weight.device


def test_a_redraw_for_weights_that_have_become_zero_carries_no_error() -> None:
    """As of a layer that was pruned: no factor gives nothing a norm."""
    layer = nn.Linear(3, 2)
    convert(layer, "brsf", scale="matched")
    nn.init.zeros_(layer.weight)
    redraw_feedback(layer, 1)
    x = torch.ones(1, 3, requires_grad=True)
    layer(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros(1, 3)) and feedback_state(layer)[""].isfinite().all()


def test_alignment_against_numpy() -> None:
    torch.manual_seed(0)
    model = network()
    assert alignment(model) == []
    for rule in ("fa", "usf", "brsf", "frsf"):
        convert(model, rule)
        stored = feedback_state(model)
        for found in alignment(model):
            w = model[found.layer].weight.detach().double().numpy().ravel()
            m = np.broadcast_to(stored[found.layer].double().numpy(), model[found.layer].weight.shape).ravel()
            v = m if rule == "fa" else m * np.sign(w)
            cosine = v @ w / np.linalg.norm(v) / np.linalg.norm(w)
            assert found.angle_degrees == pytest.approx(np.degrees(np.arccos(cosine)), rel=1e-5)
            assert type(found.norm_ratio) is float  # JSON and CSV hold it
            assert found.norm_ratio == pytest.approx(np.linalg.norm(v) / np.linalg.norm(w), rel=1e-5)


def test_alignment_of_zero_weights_is_undefined() -> None:
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    convert(layer, "fa")
    (found,) = alignment(layer)
    assert math.isnan(found.angle_degrees)
    assert math.isnan(found.norm_ratio)


def test_draws_are_single_precision_products_of_the_stream() -> None:
    """Bit for bit, also where the step of the grid is no power of two and a block's last word is half used."""
    size, bound, key = 2**17 + 5, 0.3, ("fa", 4)
    seed = int.from_bytes(hashlib.sha256(repr(key).encode()).digest(), "little")
    integers = np.random.SFC64(seed).random_raw(size // 2 + 1).view(np.int32)[:size]
    expected = integers.astype(np.float32) * np.float32(bound / 2**31)
    drawn = keyed_uniform(torch.Size((5, size // 5)), bound, *key)
    assert drawn.dtype == torch.float32
    assert np.array_equal(drawn.flatten().numpy(), expected[: drawn.numel()])


def test_a_redraw_is_the_same_whatever_the_type_of_its_key() -> None:
    model = network()
    convert(model, "brsf")
    redraw_feedback(model, 1, 2)
    first = feedback_state(model)
    redraw_feedback(model, np.int64(1), np.int32(2))
    assert same(first, feedback_state(model))


@pytest.mark.parametrize(("factor", "angle"), [(0.7, 0.0), (-3.0, 180.0)])
def test_the_angle_of_parallel_feedback(factor: float, angle: float) -> None:
    """Rounding takes some of these cosines beyond 1."""
    torch.manual_seed(0)
    for size in range(1, 80):
        layer = nn.Linear(size, 1)
        convert(layer, "fa")
        load_feedback_state(layer, {"": factor * layer.weight.detach()})
        (found,) = alignment(layer)
        assert found.angle_degrees == pytest.approx(angle, abs=0.1)


def test_small_weights_have_a_norm_too() -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.fill_(1e-3)
    convert(layer, "frsf", scale="matched")
    (found,) = alignment(layer)
    assert found.norm_ratio == pytest.approx(1, rel=1e-5)


def test_a_graph_keeps_what_it_was_built_with_when_a_state_is_loaded() -> None:
    layer = nn.Linear(6, 4)
    convert(layer, "fa")
    drawn = feedback_state(layer)[""]
    x = torch.ones(1, 6, requires_grad=True)
    y = layer(x).sum()
    load_feedback_state(layer, {"": drawn + 1})
    y.backward()
    torch.testing.assert_close(x.grad[0], drawn.sum(0))


def test_states_are_laid_out_as_files_are() -> None:
    layer = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    convert(layer, "fa")
    stored = feedback_state(layer)
    assert stored[""].is_contiguous()
    assert same(load(save(stored)), stored)


def test_norms_are_summed_in_double_precision() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(300, 200)
    convert(layer, "frsf", scale="matched")
    expected = np.linalg.norm(layer.weight.detach().double().numpy())
    assert feedback_state(layer)[".norm"].item() == pytest.approx(expected, rel=1e-13)


def test_weights_that_are_no_numbers_have_no_angle() -> None:
    layer = nn.Linear(3, 2)
    convert(layer, "fa")
    with torch.no_grad():
        layer.weight.fill_(math.nan)
    (found,) = alignment(layer)
    assert math.isnan(found.angle_degrees) and math.isnan(found.norm_ratio)
