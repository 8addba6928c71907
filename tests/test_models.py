from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hashrobust.backbones import backbones, build_backbone
from hashrobust.datasets import load_dataset
from hashrobust.errors import HashRobustError, InputError, UnknownNameError
from hashrobust.models import (
    Classifier,
    HashModel,
    Normalize,
    frozen,
    load_model,
    load_weights,
    save_model,
    sign,
)
from hashrobust.rules import convert


@pytest.fixture(autouse=True)
def _seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def model() -> HashModel:
    return HashModel("lenet", 12, mean=[0.3], std=[0.2]).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, 1, 32, 32)


# ---- from images to codes


def test_normalize_is_the_formula_per_channel() -> None:
    x = torch.rand(2, 3, 4, 4)
    found = Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])(x)
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]):
        assert torch.allclose(found[:, channel], (x[:, channel] - mean) / std)


def test_outputs_are_head_of_backbone_of_normalised_images(model: HashModel, images: Tensor) -> None:
    features = model.backbone((images - 0.3) / 0.2)
    assert torch.allclose(model(images), features @ model.head.weight.T + model.head.bias, atol=1e-6)


def test_the_sign_of_zero_is_plus_one() -> None:
    z = torch.tensor([[-2.0, -0.0, 0.0, 1e-30, -1e-30]])
    assert sign(z).tolist() == [[-1, 1, 1, 1, -1]]
    assert sign(z).dtype == torch.int8


def test_encode_gives_signs_of_outputs(model: HashModel, images: Tensor) -> None:
    codes = model.encode(images)
    assert codes.dtype == torch.int8 and codes.shape == (40, 12)
    with torch.no_grad():
        assert torch.equal(codes, torch.where(model(images) >= 0, 1, -1).to(torch.int8))


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_codes_hardly_depend_on_batches(model: HashModel, images: Tensor, batch_size: int) -> None:
    same = (model.encode(images, batch_size) == model.encode(images)).float().mean()
    assert same >= 0.999


def test_a_split_and_its_images_have_the_same_codes(model: HashModel) -> None:
    split = load_dataset("digits").validation
    assert torch.equal(model.encode(split, 33), model.encode(split.images, 33))


def test_encoding_uses_eval_mode_and_keeps_the_models_own() -> None:
    model = HashModel("resnet20", 8, image_size=32)
    images = torch.rand(6, 1, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    codes = model.train().encode(images)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(codes, model.eval().encode(images))


def test_encoding_is_undone_module_by_module(model: HashModel, images: Tensor) -> None:
    model.train()
    model.backbone.conv1.eval()
    modes = [module.training for module in model.modules()]
    model.encode(images)
    assert [module.training for module in model.modules()] == modes


def test_no_images_no_codes(model: HashModel) -> None:
    assert model.encode(torch.empty(0, 1, 32, 32)).shape == (0, 12)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 3, 32, 32), r"shape \(2, 3, 32, 32\).*takes float images \(N, 1, H, W\)"),
        (torch.zeros(32, 32), r"shape \(32, 32\)"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), "uint8"),
        (torch.full((2, 1, 32, 32), 200.0), r"outside \[0, 1\]: divide bytes by 255"),
        (torch.full((2, 1, 32, 32), float("nan")), r"outside \[0, 1\]"),
    ],
)
def test_images_of_another_kind_are_refused(model: HashModel, bad: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.encode(bad)


@pytest.mark.parametrize("convert", [lambda images: images.numpy(), list])
def test_images_that_are_no_tensor_are_refused(model: HashModel, images: Tensor, convert: Any) -> None:
    with pytest.raises(InputError, match=r"images are a (ndarray|list): give a tensor"):
        model.encode(convert(images))


def test_images_in_double_precision_are_rounded_to_that_of_the_model(
    model: HashModel, images: Tensor
) -> None:
    """As numpy's own are: an array divided by 255."""
    assert torch.equal(model.outputs(images.double()), model.outputs(images))
    precise = HashModel("lenet", 12).double()
    assert precise.outputs(images.double()).dtype == torch.float64


@pytest.mark.parametrize("shape", [torch.tensor([0.3]), (0.3,)])
def test_means_are_any_sequence(shape: Any) -> None:
    assert HashModel("lenet", 12, mean=shape, std=shape).normalize.mean.item() == pytest.approx(0.3)


def test_accuracy_counts_any_own_label() -> None:
    data = load_dataset("digits")
    model = Classifier("lenet", 10)
    predicted = model.outputs(data.validation).argmax(dim=1)
    by_hand = [data.validation.labels[i, predicted[i]].item() for i in range(100)]
    assert model.accuracy(data.validation) == pytest.approx(sum(by_hand) / 100)


def test_hash_layer_starts_small() -> None:
    head = HashModel("lenet", 4096).head
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not head.bias.any()


@pytest.mark.parametrize("bits", [0, -1])
def test_models_have_at_least_one_output(bits: int) -> None:
    with pytest.raises(InputError, match=f"{bits} outputs"):
        HashModel("lenet", bits)


def test_unknown_backbones_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'lenet'"):
        HashModel("lenett", 8)


def test_a_module_of_ones_own_is_a_backbone() -> None:
    class Flat(nn.Module):
        feature_dim = 64

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)

    assert HashModel(Flat(), 8).encode(torch.rand(3, 1, 8, 8)).shape == (3, 8)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Flatten has no feature_dim"):
        HashModel(nn.Flatten(), 8)  # type: ignore[arg-type]


def test_frozen_is_undone_module_by_module(model: HashModel) -> None:
    model.train()
    model.backbone.conv1.eval()
    model.head.bias.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), frozen(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        1 / 0  # noqa: B018
    assert [module.training for module in model.modules()] == modes
    needed = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert [name for name, need in needed.items() if not need] == ["head.bias"]


# ---- files


def test_a_saved_model_comes_back_in_eval_mode(model: HashModel, images: Tensor, tmp_path: Path) -> None:
    save_model(model.train(), str(tmp_path / "model.safetensors"))
    state = torch.get_rng_state()
    back = load_model(str(tmp_path / "model.safetensors"))
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(back, HashModel) and back.bits == 12 and not back.training
    assert torch.equal(back(images), model.eval()(images))


@pytest.mark.parametrize("kind", [HashModel, Classifier])
def test_what_was_built_from_a_backbone_object_comes_back(kind: Any, tmp_path: Path) -> None:
    model = kind(build_backbone("lenet", channels=3, image_size=24), 5)
    save_model(model, tmp_path / "m.safetensors")
    back = load_model(tmp_path / "m.safetensors")
    assert type(back) is kind and back.spec == model.spec
    assert back.spec["backbone"] == "lenet" and back.input_shape == (3, 24, 24)


def test_converted_models_are_saved_as_plain_ones(model: HashModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "plain")
    convert(model, "frsf")
    save_model(model, tmp_path / "converted")
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "converted").read_bytes()


def test_files_describe_themselves(model: HashModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        described = json.loads(file.metadata()["hashrobust"])
    assert described == {"kind": "hash", "backbone": "lenet", "outputs": 12, "channels": 1, "image_size": 32}


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "model.pth").write_bytes(pickle.dumps(Trap()))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pth")
    for file in ("model.pth", "weights.pth"):
        with pytest.raises(InputError, match=r"not a readable safetensors.*pickled models.*save_file"):
            load_model(tmp_path / file)
        with pytest.raises(InputError, match="pickled models"):
            load_weights(HashModel("lenet", 4), tmp_path / file)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_files_cut_short_are_refused(model: HashModel, tmp_path: Path, keep: int) -> None:
    save_model(model, tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(content[:keep])
    with pytest.raises(InputError, match=r"m\.safetensors' is not a readable safetensors file"):
        load_model(tmp_path / "m.safetensors")


def test_missing_and_foreign_files(model: HashModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_model(tmp_path / "none.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign")
    save_file({"weight": torch.zeros(2)}, tmp_path / "half", metadata={"hashrobust": '{"kind": "hash"}'})
    save_file({"weight": torch.zeros(2)}, tmp_path / "odd", metadata={"hashrobust": "[1]"})
    for name in ("foreign", "half"):
        with pytest.raises(InputError, match="no description of a hashrobust model"):
            load_model(tmp_path / name)
    with pytest.raises(InputError, match="odd"):
        load_model(tmp_path / "odd")


def test_wrong_tensors_are_named(model: HashModel, tmp_path: Path) -> None:
    metadata = {"hashrobust": json.dumps(model.spec)}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({k: v for k, v in state.items() if k != "head.bias"}, "lacks head.bias"),
        (state | {"extra.weight": torch.zeros(1)}, "has unknown extra.weight"),
        (state | {"head.bias": torch.zeros(9)}, r"wrong shapes: head.bias is \(9,\), needed \(12,\)"),
    ]
    for tensors, message in cases:
        save_file(tensors, tmp_path / "m", metadata=metadata)
        with pytest.raises(InputError, match=message):
            load_model(tmp_path / "m")


def test_a_place_that_cannot_be_written_is_no_traceback(model: HashModel, tmp_path: Path) -> None:
    with pytest.raises(HashRobustError, match="cannot be written"):
        save_model(model, tmp_path / "no" / "such" / "folder" / "m.safetensors")


# ---- starting from weights


def test_a_pretrained_models_normalisation_is_taken_over(tmp_path: Path) -> None:
    pretrained = Classifier("lenet", 10, mean=[0.25], std=[0.125])
    save_model(pretrained, tmp_path / "p")
    model = HashModel("lenet", 12, mean=[0.5], std=[0.5])
    head = model.head.weight.clone()
    assert load_weights(model, tmp_path / "p") == ("head.bias", "head.weight")
    assert model.normalize.mean.item() == 0.25 and model.normalize.std.item() == 0.125
    assert torch.equal(model.backbone.conv2.weight, pretrained.backbone.conv2.weight)
    assert torch.equal(model.head.weight, head)


def test_plain_weights_under_the_backbones_own_names(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    published = resnet18(weights=None).state_dict()
    save_file(published, tmp_path / "resnet18")
    model = HashModel("resnet18", 8, channels=3, mean=[0.1] * 3, std=[0.2] * 3)
    assert load_weights(model, tmp_path / "resnet18") == ("fc.bias", "fc.weight")
    assert torch.equal(
        model.backbone.get_parameter("layer1.0.conv1.weight"), published["layer1.0.conv1.weight"]
    )
    assert model.normalize.mean.flatten().tolist() == pytest.approx([0.1] * 3)


def test_weights_of_another_model_name_both(tmp_path: Path) -> None:
    save_model(Classifier("resnet20", 10), tmp_path / "resnet20")
    save_model(Classifier("lenet", 10, channels=3), tmp_path / "colour")
    save_file({"layer.weight": torch.zeros(2)}, tmp_path / "foreign")
    save_file({"conv1.weight": torch.zeros(6, 1, 5, 5)}, tmp_path / "part")
    model = HashModel("lenet", 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name, message in {
        "resnet20": "model with backbone resnet20, and this one has backbone lenet",
        "colour": "model with channels 3, and this one has channels 1",
        "foreign": "share no tensor name with backbone 'lenet': it has conv1.bias.*the file layer.weight",
        "part": "lacks conv1.bias, conv2.bias, conv2.weight and 4 more",
    }.items():
        with pytest.raises(InputError, match=message):
            load_weights(model, tmp_path / name)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_of_another_image_size_fit_where_the_layers_do(tmp_path: Path) -> None:
    save_model(Classifier("resnet20", 10, image_size=32), tmp_path / "p")
    load_weights(HashModel("resnet20", 8, image_size=28), tmp_path / "p")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Stands for the ImageNet weights of resnet18."""
    from torchvision.models import resnet18

    state: dict[str, Tensor] = resnet18(weights=None).state_dict()
    monkeypatch.setattr(backbones["resnet18"], "imagenet_state", lambda self, progress=False: state)
    return state


@pytest.mark.parametrize("channels", [1, 3])
def test_imagenet_weights_bring_their_normalisation(channels: int, published: dict[str, Tensor]) -> None:
    model = HashModel("resnet18", 8, channels=channels, mean=[0.5] * channels, std=[0.5] * channels)
    model.use_imagenet_weights()
    assert model.normalize.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert model.normalize.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, published[name])


def with_imagenet_weights(channels: int, size: int = 40) -> HashModel:
    torch.manual_seed(1)
    model = HashModel("resnet18", 8, channels=channels, image_size=size)
    model.use_imagenet_weights()
    torch.manual_seed(2)
    nn.init.normal_(model.head.weight)
    return model.eval()


def test_a_grey_image_has_the_outputs_of_the_image_repeated_in_three_channels(
    published: dict[str, Tensor],
) -> None:
    grey, colour = with_imagenet_weights(1), with_imagenet_weights(3)
    images = torch.rand(3, 1, 40, 40)
    torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    assert grey.normalize(images).is_contiguous(memory_format=torch.channels_last)
    assert grey.input_shape == (1, 40, 40)
    assert grey.outputs(images).shape == (3, 8)


def test_a_grey_model_with_weights_for_colour_comes_back(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    grey = with_imagenet_weights(1)
    save_model(grey, tmp_path / "grey")
    images = torch.rand(3, 1, 40, 40)
    assert torch.equal(load_model(tmp_path / "grey")(images), grey(images))
    other = HashModel("resnet18", 8, channels=1, image_size=40).eval()
    load_weights(other, tmp_path / "grey", head=True)
    assert torch.equal(other(images), grey(images))


def test_taking_over_imagenet_weights_leaves_the_random_state_alone(published: dict[str, Tensor]) -> None:
    model = HashModel("resnet18", 8, channels=1, image_size=40)
    before = torch.random.get_rng_state()
    model.use_imagenet_weights()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_cannot_have_imagenet_weights_is_left_as_it_was() -> None:
    model = HashModel("lenet", 8)
    backbone = model.backbone
    with pytest.raises(InputError, match="no ImageNet weights for LeNet"):
        model.use_imagenet_weights()
    assert model.backbone is backbone and len(model.normalize.mean) == 1


def test_an_unregistered_backbone_for_grey_images_has_none_either() -> None:
    class Own(type(build_backbone("lenet", channels=1, image_size=32))):  # type: ignore[misc]
        pass

    with pytest.raises(InputError, match="no ImageNet weights for Own"):
        HashModel(Own(1, 32), 8).use_imagenet_weights()


def test_small_backbones_have_no_imagenet_weights() -> None:
    with pytest.raises(InputError, match="no ImageNet weights for LeNet"):
        HashModel("lenet", 8).use_imagenet_weights()
