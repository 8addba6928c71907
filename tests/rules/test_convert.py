"""What conversion changes, what it leaves alone, and what it says about both."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hashrobust.errors import InputError, UnknownNameError
from hashrobust.rules import (
    convert,
    feedback_scale,
    feedback_seed,
    feedback_state,
    layers_of,
    rule_of,
    rules,
    takes_scale,
)


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


class Odd(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class Noisy(nn.Module):
    """Random in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Replaced(nn.Module):
    """A module that uses one layer, shares another, and never calls a third."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 4)
        self.again = self.used
        self.weight_only = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.again(self.used(x)), self.weight_only.weight)


def test_all_rules_are_registered_with_a_description() -> None:
    assert {"bp", "fa", "dfa", "usf", "brsf", "frsf"} <= set(rules)
    assert all(rules.describe(name) for name in rules)


def test_report_and_queries() -> None:
    model = small()
    assert rule_of(model) == "bp"
    assert feedback_seed(model) is None
    assert feedback_scale(model) is None
    report = convert(model, "frsf", seed=4, scale="matched")
    assert (report.rule, report.converted, report.left) == ("frsf", ("0", "4"), {})
    assert (rule_of(model), feedback_seed(model), feedback_scale(model)) == ("frsf", 4, "matched")
    convert(model[0], "fa", seed=4)
    with pytest.raises(InputError, match="rule_name"):
        rule_of(model)


def test_what_a_model_is_stays() -> None:
    model = small()
    parameters = dict(model.named_parameters())
    seen: list[Tensor] = []
    model[4].register_forward_hook(lambda module, args, output: seen.append(output))
    tied = nn.Linear(16, 3)
    tied.weight = model[4].weight
    names = list(model.state_dict())
    convert(model, "brsf")
    model(torch.zeros(2, 1, 4, 4))
    assert len(seen) == 1
    assert list(model.state_dict()) == names
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert tied.weight is model[4].weight
    assert isinstance(model[0], nn.Conv2d)


@pytest.mark.parametrize("rule", ["fa", "usf", "brsf", "frsf"])
def test_feedback_is_no_parameter_at_any_time(rule: str) -> None:
    """BioTorch registers a new Parameter at every forward pass."""
    model = small()
    before = [id(parameter) for parameter in model.parameters()]
    convert(model, rule)
    for _ in range(2):
        model(torch.zeros(2, 1, 4, 4, requires_grad=True)).sum().backward()
    assert [id(parameter) for parameter in model.parameters()] == before
    assert "feedback" in dict(model[0].named_buffers())


def test_backpropagation_gives_the_plain_model_back() -> None:
    model = small()
    buffers = set(dict(model.named_buffers()))
    convert(model, "frsf")
    report = convert(model, "bp")
    assert report.converted == ("0", "4")
    assert type(model[0]) is nn.Conv2d
    assert type(model[4]) is nn.Linear
    assert set(dict(model.named_buffers())) == buffers
    assert vars(model[4]).keys() == vars(nn.Linear(16, 3)).keys()
    assert rule_of(model) == "bp"
    assert convert(model, "bp").converted == ()


def test_converting_again_replaces_the_rule() -> None:
    model, fresh = small(), small()
    convert(model, "fa", seed=1, scale="matched")
    convert(model, "frsf", seed=2)
    convert(fresh, "frsf", seed=2)
    assert rule_of(model) == "frsf"
    for name, stored in feedback_state(model).items():
        assert torch.equal(stored, feedback_state(fresh)[name])


def test_wrong_requests() -> None:
    with pytest.raises(UnknownNameError, match="frsf"):
        convert(small(), "frfs")
    with pytest.raises(InputError, match="matched"):
        convert(small(), "frsf", scale="kaiming")
    with pytest.raises(InputError, match="converts no layer"):
        convert(nn.Sequential(nn.ReLU()), "frsf")
    with pytest.raises(InputError, match="Odd"):
        convert(Odd(2, 2), "frsf")


def test_a_failed_conversion_changes_nothing() -> None:
    model = small()
    nn.init.zeros_(model[4].weight)
    with pytest.raises(InputError, match="'4'"):
        convert(model, "frsf", scale="matched")
    assert type(model[0]) is nn.Conv2d


def test_what_stays_on_backpropagation_is_reported() -> None:
    replaced = nn.Linear(3, 3)
    replaced.forward = lambda input: input  # type: ignore[method-assign]
    model = nn.ModuleDict(
        {
            "plain": nn.Linear(3, 3),
            "odd": Odd(3, 3),
            "transposed": nn.ConvTranspose2d(3, 3, 3),
            "attention": nn.MultiheadAttention(4, 2),
            "embedding": nn.Embedding(3, 3),
            "norm": nn.LayerNorm(3),
            "parametrised": nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
            "lazy": nn.LazyLinear(3),
            "replaced": replaced,
        }
    )
    report = convert(model, "usf")
    assert report.converted == ("plain",)
    expected = {"odd", "transposed", "attention", "attention.out_proj", "embedding", "parametrised", "lazy"}
    assert expected | {"replaced"} <= set(report.left)
    assert "norm" not in report.left
    assert all(report.left.values())
    assert type(model["odd"]) is Odd


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_hook_computed_weights_are_left() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.utils.weight_norm(nn.Linear(3, 3)))
    report = convert(model, "usf")
    assert report.converted == ("0",)
    assert "computed" in report.left["1"]


def test_a_shared_layer_is_converted_once_under_its_first_name() -> None:
    """BioTorch replaces each occurrence by a layer of its own."""
    model = Replaced()
    report = convert(model, "fa")
    assert report.converted == ("used", "weight_only")
    assert model.again is model.used


def test_layers_that_a_probe_never_calls_are_left() -> None:
    model = Replaced()
    convert(model, "fa")
    report = convert(model, "frsf", probe=torch.zeros(1, 4))
    assert report.converted == ("used",)
    assert "never calls" in report.left["weight_only"]
    assert type(model.weight_only) is nn.Linear


def test_a_probe_leaves_no_trace() -> None:
    model = nn.Sequential(small(), Noisy(), nn.Linear(3, 2))
    model[0][1].eval()
    state = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    random_state = torch.get_rng_state()
    report = convert(model, "frsf", probe=torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1)))
    assert report.converted == ("0.0", "0.4", "2")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [model.training, model[0].training, model[0][1].training] == [True, True, False]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model[2]._forward_pre_hooks


def test_a_probe_sees_the_layers_behind_torch_s_transformer_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    report = convert(layer, "frsf", probe=torch.randn(2, 3, 8))
    assert report.converted == ("linear1", "linear2")


@pytest.mark.parametrize("rule", ["fa", "usf", "brsf", "frsf"])
def test_outputs_stay_in_training_and_evaluation(rule: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(small(), nn.Dropout(0.5))
    plain = copy.deepcopy(model)
    convert(model, rule)
    x = torch.randn(5, 1, 4, 4)
    for training in (True, False):
        for gradient in (True, False):
            outputs = []
            for net in (model, plain):
                torch.manual_seed(3)
                outputs.append(net.train(training)(x.clone().requires_grad_(gradient)))
            assert torch.equal(*outputs)
    state = plain.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies_follow_the_same_rule_on_their_own(how: str) -> None:
    model = small()
    convert(model, "frsf", seed=2)
    if how == "deepcopy":
        twin = copy.deepcopy(model)
    elif how == "pickle":
        twin = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    gradients = []
    for net in (model, twin):
        x = torch.ones(1, 1, 4, 4, requires_grad=True)
        net.eval()(x).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    convert(twin, "bp")
    assert rule_of(model) == "frsf"


@pytest.mark.parametrize(("name", "count"), [("alexnet", 8), ("vgg16", 16), ("resnet18", 21)])
def test_torchvision_models_load_and_give_back_plain_state_dicts(name: str, count: int) -> None:
    with torch.device("meta"):
        model, plain = (torchvision.models.get_model(name, weights=None) for _ in range(2))
    assert len(convert(model, "usf").converted) == count
    weights = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in plain.state_dict().items()}
    model.load_state_dict(weights, strict=True, assign=True)
    given_back = model.state_dict()
    assert list(given_back) == list(weights)
    assert all(given_back[key].data_ptr() == value.data_ptr() for key, value in weights.items())
    plain.load_state_dict(given_back, strict=True, assign=True)


def test_a_converted_torchvision_model_computes_the_same() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    plain = copy.deepcopy(model)
    convert(model, "frsf")
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    assert torch.equal(model(x), plain(x))
    assert torch.equal(model.eval()(x), plain.eval()(x))


def test_which_rules_have_a_scale() -> None:
    assert {name for name in rules if takes_scale(name)} == {"fa", "usf", "brsf", "frsf"}


def test_parts_converted_apart_are_told() -> None:
    model = small()
    convert(model[0], "frsf", seed=4)
    convert(model[4], "frsf", seed=12, scale="matched")
    with pytest.raises(InputError, match=r"differ in their seed \(12, 4\): convert it as a whole"):
        feedback_seed(model)
    with pytest.raises(InputError, match=r"differ in their scale \(matched, xavier\)"):
        feedback_scale(model)


def test_a_subclass_is_told_apart_from_other_layers() -> None:
    model = nn.ModuleDict({"odd": Odd(3, 3), "embedding": nn.Embedding(3, 3), "plain": nn.Linear(3, 3)})
    left = convert(model, "usf").left
    assert left["odd"] == "Odd is a subclass of Linear, which may compute something else"
    assert left["embedding"] == "Embedding is not a layer that rules know"


def test_what_is_said_where_nothing_can_be_converted() -> None:
    with pytest.raises(
        InputError,
        match=r"of this Sequential: it needs a plain Conv1d, Conv2d, Conv3d, Linear layer; the model holds no weights$",
    ):
        convert(nn.Sequential(nn.ReLU()), "frsf")
    with pytest.raises(
        InputError, match=r"layer; '0': Odd is a subclass of Linear.*; '1': Embedding is not .* know$"
    ):
        convert(nn.Sequential(Odd(2, 2), nn.Embedding(3, 2)), "frsf")
    with pytest.raises(InputError) as raised:
        convert(nn.Sequential(*(Odd(2, 2) for _ in range(7))), "frsf")
    assert "'4':" in str(raised.value) and "'5':" not in str(raised.value)


def test_the_patterns_of_a_model() -> None:
    model = small()
    assert layers_of(model) == "*"
    convert(model, "frsf", layers="4")
    assert layers_of(model) == "4"
    convert(model[0], "frsf")
    with pytest.raises(InputError, match=r"differ in their layers \(\*, 4\)"):
        layers_of(model)


def test_a_layer_that_is_neither_fit_nor_called_is_left_for_what_it_is() -> None:
    model = Replaced()
    model.odd = Odd(4, 4)
    assert "subclass" in convert(model, "frsf", probe=torch.zeros(1, 4)).left["odd"]


@pytest.mark.parametrize("enabled", [True, False])
def test_a_probe_leaves_torch_s_fast_path_as_it_was(enabled: bool) -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(enabled)
        convert(small(), "frsf", probe=torch.zeros(1, 1, 4, 4))
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
