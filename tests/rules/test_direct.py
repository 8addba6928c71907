"""Direct feedback alignment against explicit references, and what becomes of its hooks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust import HashModel
from hashrobust.errors import InputError
from hashrobust.models import attackable
from hashrobust.rules import (
    alignment,
    convert,
    exact_gradient,
    feedback_state,
    load_feedback_state,
    rule_of,
    signal_agreement,
)


class ConvNet(nn.Module):
    """Normalisation, pooling and in-place activations between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, groups=2)
        self.hidden = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """One a layer, with all that follows it until the next."""
        return [
            lambda x: F.max_pool2d(F.relu_(self.norm(self.conv1(x))), 2),
            lambda h: F.relu_(self.conv2(h)).flatten(1),
            lambda h: torch.tanh(self.hidden(h)),
            self.head,
        ]

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages():
            x = stage(x)
        return x


class Residual(nn.Module):
    """A stem, two blocks of two layers beside a shortcut, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 6)
        self.a1, self.a2, self.b1, self.b2 = (nn.Linear(6, 6) for _ in range(4))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        for one, two in ((self.a1, self.a2), (self.b1, self.b2)):
            x = torch.tanh(x + two(torch.tanh(one(x))))
        return self.head(x)


def loss_of(z: Tensor) -> Tensor:
    return z.pow(3).sum() + z.sin().sum()


def error_of(z: Tensor) -> Tensor:
    return (3 * z.square() + z.cos()).detach()


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    loss_of(model(x)).backward()
    return {"input": x.grad, **{name: p.grad for name, p in model.named_parameters()}}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def conv_net() -> tuple[ConvNet, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    return ConvNet().double(), x


def test_a_perceptron_follows_the_paper() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    report = convert(model, "dfa", seed=1, probe=x)
    assert (report.converted, report.left) == (("0", "2", "4"), {})
    found = gradients(model, x)

    stored = feedback_state(model)
    assert {name: tuple(m.shape) for name, m in stored.items()} == {"2": (3, 7), "4": (3, 6)}
    weight = [model[i].weight.detach().numpy() for i in (0, 2, 4)]
    bias = [model[i].bias.detach().numpy() for i in (0, 2, 4)]
    h0 = x.numpy()
    h1 = np.tanh(h0 @ weight[0].T + bias[0])
    h2 = np.tanh(h1 @ weight[1].T + bias[1])
    z = h2 @ weight[2].T + bias[2]
    e = 3 * z**2 + np.cos(z)
    delta = [
        (e @ stored["2"].numpy()) * (1 - h1**2),
        (e @ stored["4"].numpy()) * (1 - h2**2),
        e,
    ]
    for i, h in enumerate((h0, h1, h2)):
        np.testing.assert_allclose(found[f"{2 * i}.weight"].numpy(), delta[i].T @ h, rtol=1e-10)
        np.testing.assert_allclose(found[f"{2 * i}.bias"].numpy(), delta[i].sum(0), rtol=1e-10)
    np.testing.assert_allclose(found["input"].numpy(), delta[0] @ weight[0], rtol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_a_convolutional_network_stage_by_stage(training: bool) -> None:
    plain, x = conv_net()
    model = copy.deepcopy(plain)
    report = convert(model, "dfa", seed=3, probe=x)
    assert report.converted == ("conv1", "conv2", "hidden", "head")
    stored = feedback_state(model)
    # Maps of conv1 as conv2 reads them (4, 3, 3) after pooling, those of conv2 flat.
    assert {name: tuple(m.shape) for name, m in stored.items()} == {
        "conv2": (3, 36),
        "hidden": (3, 6),
        "head": (3, 5),
    }
    found = gradients(model.train(training), x)

    plain.train(training)
    inputs = [x.clone().requires_grad_()]
    outputs = []
    for stage in plain.stages():
        outputs.append(stage(inputs[-1]))
        inputs.append(outputs[-1].detach().clone().requires_grad_())
    error = error_of(outputs[-1])
    own = [["conv1", "norm"], ["conv2"], ["hidden"], ["head"]]
    readers = ["conv2", "hidden", "head"]
    expected = {}
    for i, modules in enumerate(own):
        back = error if i == 3 else (error @ stored[readers[i]]).reshape(outputs[i].shape)
        names = [n for n, _ in plain.named_parameters() if n.split(".")[0] in modules]
        wanted = [plain.get_parameter(n) for n in names]
        *of_weights, to_input = torch.autograd.grad(outputs[i], [*wanted, inputs[i]], back)
        expected |= dict(zip(names, of_weights, strict=True))
        if i == 0:
            expected["input"] = to_input
    assert_same(found, expected)


def test_errors_add_up_along_shortcuts() -> None:
    torch.manual_seed(5)
    model = Residual().double()
    x = torch.randn(4, 3, dtype=torch.float64)
    convert(model, "dfa", probe=x)
    found = gradients(model, x)
    sent = feedback_state(model)
    with torch.no_grad():
        x0 = torch.tanh(model.stem(x))
        ha = torch.tanh(model.a1(x0))
        x1 = torch.tanh(x0 + model.a2(ha))
        hb = torch.tanh(model.b1(x1))
        x2 = torch.tanh(x1 + model.b2(hb))
        e = error_of(model.head(x2))

        behind_b = (e @ sent["head"]) * (1 - x2**2)  # at the sum of block b
        behind_a = (e @ sent["b1"] + behind_b) * (1 - x1**2)
        at_stem = (e @ sent["a1"] + behind_a) * (1 - x0**2)
        deltas = {
            "head": (e, x2),
            "b2": (behind_b, hb),
            "b1": ((e @ sent["b2"]) * (1 - hb**2), x1),
            "a2": (behind_a, ha),
            "a1": ((e @ sent["a2"]) * (1 - ha**2), x0),
            "stem": (at_stem, x),
        }
        expected = {"input": at_stem @ model.stem.weight}
        for name, (delta, h) in deltas.items():
            expected |= {f"{name}.weight": delta.T @ h, f"{name}.bias": delta.sum(0)}
    assert_same(found, expected)


def test_the_exact_gradient_is_that_of_the_plain_network() -> None:
    plain, x = conv_net()
    model = copy.deepcopy(plain)
    convert(model, "dfa", probe=x)
    by_rule, exact = gradients(model, x), gradients(plain, x)
    assert not torch.allclose(by_rule["conv1.weight"], exact["conv1.weight"], rtol=1e-2)
    assert torch.equal(by_rule["head.weight"], exact["head.weight"])
    with exact_gradient(model):
        inside = gradients(model, x)
        z = model(x.requires_grad_())
    assert all(torch.equal(inside[name], exact[name]) for name in exact)
    (outside,) = torch.autograd.grad(loss_of(z), x)  # the mode is bound in the forward pass
    assert torch.equal(outside, exact["input"])


def test_codes_and_the_feedback_survive_frozen_weights_and_double_passes() -> None:
    """As an attack sees it: no weight needs a gradient, and several graphs are alive."""
    model, x = conv_net()
    convert(model, "dfa", probe=x)
    model.eval()
    expected = [gradients(model, part)["input"] for part in (x, 2 * x)]
    model.requires_grad_(False)
    inputs = [x.clone().requires_grad_(), (2 * x).requires_grad_()]
    losses = [loss_of(model(part)) for part in inputs]
    for place in (0, 1, 0):  # in any order, and again
        (found,) = torch.autograd.grad(losses[place], inputs[place], retain_graph=True)
        torch.testing.assert_close(found, expected[place], rtol=1e-10, atol=1e-12)
    joint = torch.autograd.grad(sum(losses), inputs)
    torch.testing.assert_close(list(joint), expected, rtol=1e-10, atol=1e-12)


def test_draws_depend_on_seed_and_name_alone() -> None:
    states = []
    for seed, noise in ((1, 0), (1, 99), (2, 0)):
        model, x = conv_net()
        torch.manual_seed(noise)
        convert(model, "dfa", seed=seed, probe=x)
        states.append(feedback_state(model))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not any(torch.equal(states[0][name], states[2][name]) for name in states[0])
    bound = (6 / (3 + 36)) ** 0.5
    assert 0.9 * bound < states[0]["conv2"].abs().max() <= bound


def test_stored_matrices_win() -> None:
    model, x = conv_net()
    convert(model, "dfa", seed=1, probe=x)
    other = conv_net()[0]
    convert(other, "dfa", seed=2, probe=x)
    load_feedback_state(other, feedback_state(model))
    assert_same(gradients(other, x), gradients(model, x))
    with pytest.raises(InputError, match="'conv2'"):
        load_feedback_state(other, {"conv2": torch.zeros(3, 35)})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_stand_on_their_own(copied: Callable[[nn.Module], nn.Module]) -> None:
    model, x = conv_net()
    convert(model, "dfa", probe=x)
    twin = copied(model)
    expected = gradients(model, x)
    convert(model, "bp")
    assert_same(gradients(twin, x), expected)
    assert rule_of(twin) == "dfa" and rule_of(model) == "bp"


@pytest.mark.parametrize("after", ["bp", "frsf", "dfa"])
def test_another_conversion_takes_the_hooks_off(after: str) -> None:
    model, x = conv_net()
    fresh = conv_net()[0]
    convert(model, "dfa", seed=4, probe=x)
    convert(model, after, seed=1, probe=x)
    convert(fresh, after, seed=1, probe=x)
    assert_same(gradients(model, x), gradients(fresh, x))
    for module in model.modules():
        kept = int(after == "dfa" and module is model)
        assert len(module._forward_hooks) == len(module._forward_pre_hooks) == kept


def test_the_rest_stays_direct_when_a_part_is_converted_anew() -> None:
    model, x = conv_net()
    convert(model, "dfa", probe=x)
    before = gradients(model, x)
    convert(model.conv2, "bp")
    after = gradients(model, x)
    assert torch.equal(
        before["conv2.weight"], after["conv2.weight"]
    )  # its own error is the next layer's to send
    assert not torch.allclose(before["conv1.weight"], after["conv1.weight"])


def test_layers_by_name() -> None:
    model, x = conv_net()
    report = convert(model, "dfa", probe=x, layers="head")
    assert report.converted == ("head",) and set(report.left) == {"conv1", "conv2", "hidden"}
    found = gradients(model, x)
    plain = conv_net()[0]
    hidden = plain.train().stages()
    x = x.clone().requires_grad_()
    features = hidden[2](hidden[1](hidden[0](x)))
    e = error_of(plain.head(features))
    (to_image,) = torch.autograd.grad(features, x, e @ feedback_state(model)["head"])
    torch.testing.assert_close(found["input"], to_image, rtol=1e-9, atol=1e-12)


def test_a_residual_hashing_model_needs_no_probe() -> None:
    torch.manual_seed(0)
    model = HashModel("resnet20", 8, image_size=16)
    convert(model, "dfa")
    assert alignment(model) == []
    assert "normalize" not in feedback_state(model) and "backbone.conv1" not in feedback_state(model)
    images = torch.rand(16, 1, 16, 16)
    torch.tanh(model(images)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    agreed = signal_agreement(model.eval(), images)
    assert len(agreed) == 20 and all(-1 <= layer.cosine <= 1 for layer in agreed)


@pytest.mark.parametrize(("rule", "learns"), [("bp", False), ("dfa", True)])
def test_it_learns_from_weights_of_zero(rule: str, learns: bool) -> None:
    """As the paper says; backpropagation sends nothing back through them."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(10, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3))
    x = torch.randn(200, 10)
    labels = (x @ torch.randn(10, 3)).argmax(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    convert(model, rule, probe=x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    for _ in range(50):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
    assert bool(loss < 0.3) == learns


def test_copies_to_be_attacked_send_the_same_back() -> None:
    torch.manual_seed(0)
    model = HashModel("resnet20", 8, image_size=16)
    model.train()(torch.rand(8, 1, 16, 16))
    convert(model.eval(), "dfa")
    copied = attackable(model)
    assert any(isinstance(module, nn.Identity) for module in copied.modules())  # folded
    images = torch.rand(4, 1, 16, 16)
    found = []
    for network in (model, copied):
        x = images.clone().requires_grad_()
        found.append(torch.autograd.grad(torch.tanh(network(x)).sum(), x)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-7)


def test_a_second_derivative_is_refused() -> None:
    model, x = conv_net()
    convert(model, "dfa", probe=x)
    (dx,) = torch.autograd.grad(loss_of(model(x.requires_grad_())), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_mixed_precision() -> None:
    model, x = conv_net()
    convert(model.float(), "dfa", probe=x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = model(x.float())
    loss_of(z.float()).backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.b(self.a(x)), x


class Tokens(nn.Module):
    """Layers that read several shapes, and what is not one row a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.rows = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h = self.twice(h) + self.twice(h.mean(1, keepdim=True))
        rows = self.rows(h.flatten(0, 1)).view(h.shape)
        return self.head(rows.mean(1))


def test_what_cannot_be_sent_the_error_is_left() -> None:
    torch.manual_seed(0)
    report = convert(Tokens(), "dfa", probe=torch.randn(2, 5, 4))
    assert report.converted == ("stem", "head")
    assert "several shapes" in report.left["twice"] and "row" in report.left["rows"]


def test_refusals() -> None:
    model, x = conv_net()
    with pytest.raises(InputError, match="give probe"):
        convert(model, "dfa")
    with pytest.raises(InputError, match="norm could be matched"):
        convert(model, "dfa", scale="matched", probe=x)
    with pytest.raises(InputError, match=r"outputs \(B, K\)"):
        convert(Pair(), "dfa", probe=torch.randn(2, 4))
    one_number = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1), nn.Flatten(0))
    with pytest.raises(InputError, match=r"outputs \(B, K\)"):
        convert(one_number, "dfa", probe=torch.randn(2, 4))
    with pytest.raises(InputError, match="'conv1': it reads the image itself"):
        convert(model, "dfa", layers="conv1", probe=x)
    with pytest.raises(InputError, match="'rows': what it reads is not one row a sample"):
        convert(Tokens(), "dfa", layers="rows", probe=torch.randn(2, 5, 4))
    assert rule_of(model) == "bp" and not model._forward_hooks

    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    convert(pooled, "dfa", probe=torch.zeros(2, 1, 8, 8))
    with torch.no_grad():
        pooled(torch.zeros(2, 1, 9, 9))  # answers do not depend on matrices
    with pytest.raises(InputError, match="layer '1' reads 98 numbers"):
        pooled(torch.zeros(2, 1, 9, 9))
    part = conv_net()[0]
    convert(part, "dfa", probe=x)
    with pytest.raises(InputError, match="loss was taken of a part"):
        part.head(part.hidden(torch.randn(4, 6, dtype=torch.float64, requires_grad=True))).sum().backward()


class Pooled(nn.Sequential):
    """One answer for all of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(0, keepdim=True)


def test_a_network_that_does_not_answer_for_each_sample_is_refused() -> None:
    with pytest.raises(InputError, match=r"outputs \(B, K\)"):
        convert(Pooled(nn.Linear(4, 4), nn.Linear(4, 2)), "dfa", probe=torch.randn(2, 4))


def test_outputs_of_more_dimensions_are_rows_of_numbers() -> None:
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6))
    shaped = nn.Sequential(*copy.deepcopy(flat), nn.Unflatten(1, (2, 3)))
    x = torch.randn(7, 4)
    for model in (flat, shaped):
        convert(model, "dfa", probe=x)
        loss_of(model(x).flatten(1)).backward()
    assert torch.equal(flat[0].weight.grad, shaped[0].weight.grad)


class Scaled(nn.Sequential):
    """Tells the shape of its images, and scales them first."""

    input_shape = (4,)

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
        self.scale = nn.Parameter(torch.full((4,), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.scale)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_which_layers_read_the_image_depends_on_no_training(frozen: bool, dtype: torch.dtype) -> None:
    """Numbers that scale pixels are no weights before a layer; frozen weights are."""
    model = Scaled().to(dtype)
    model.requires_grad_(not frozen)
    convert(model, "dfa")
    assert set(feedback_state(model)) == {"2"}
    assert all(parameter.requires_grad is not frozen for parameter in model.parameters())


class Prototypes(nn.Module):
    """Its middle layer reads one row whatever the batch."""

    input_shape = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.head(h + self.middle(h.mean(0, keepdim=True)))


def test_a_network_in_double_precision_with_whole_numbers_needs_no_probe() -> None:
    model = Prototypes().double()
    model.table = nn.Parameter(torch.zeros(2, 2, dtype=torch.int64), requires_grad=False)
    assert convert(model, "dfa").converted == ("stem", "head")


def test_a_row_for_all_samples_is_told_from_a_row_for_one() -> None:
    report = convert(Prototypes(), "dfa")
    assert report.converted == ("stem", "head")
    assert "row" in report.left["middle"]


def test_images_of_another_size_are_refused_with_both_sizes() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    convert(model, "dfa", probe=torch.zeros(2, 1, 8, 8))
    with pytest.raises(InputError, match=r"'1' reads 98 numbers of a sample, and dfa drew a matrix for 72: "):
        model(torch.zeros(2, 1, 9, 9))


def test_outputs_may_be_written_to() -> None:
    model, x = conv_net()
    convert(model, "dfa", probe=x)
    torch.manual_seed(0)
    (2 * model(x)).sum().backward()
    expected = model.hidden.weight.grad.clone()
    model.zero_grad()
    model(x).mul_(2).sum().backward()
    torch.testing.assert_close(model.hidden.weight.grad, expected)


class Join(nn.Module):
    def forward(self, parts: tuple[Tensor, Tensor] | None = None, *, more: Tensor | None = None) -> Tensor:
        return torch.cat(parts, dim=1) if parts is not None else more


class Joined(nn.Module):
    """Parts that are handed pairs, or words, or single numbers of a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.single, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 2)
        self.join = Join()

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.head(self.join((h, self.join(more=h)))) + self.single(h[:, 0]).sum()


def test_parts_may_read_anything() -> None:
    """With four samples, too, a row of four numbers is none a sample."""
    report = convert(Joined(), "dfa", probe=torch.randn(4, 4))
    assert report.converted == ("stem", "head")
    assert "row" in report.left["single"]


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def hook(self, *_: object) -> None:
        self.calls += 1


def test_a_plain_network_is_given_back_with_the_hooks_of_others() -> None:
    model, x = conv_net()
    counting = Counting()
    model.register_forward_pre_hook(counting.hook)
    model.register_forward_hook(counting.hook)
    kept = {name: set(vars(module)) for name, module in model.named_modules()}
    convert(model, "dfa", probe=x)
    convert(model, "bp")
    assert {name: set(vars(module)) for name, module in model.named_modules()} == kept
    counting.calls = 0
    model(x)
    assert counting.calls == 2
