"""Torchvision's networks for classification by family, so that their names are known without torchvision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def _no_arguments(image_size: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Family:
    """Networks of one paper.

    `minimum_image_size` is 32 where smaller images would run, but the last stage, with a stride of 32, would see
    little but padding. `arguments(image_size)` are those of torchvision's builder. `normalization` is
    (mean, std) of the weights where it is not that of their preset.
    """

    title: str
    source: str
    networks: tuple[str, ...]
    minimum_image_size: int = 32
    arguments: Callable[[int], dict[str, Any]] = _no_arguments
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def _of_image_size(image_size: int) -> dict[str, Any]:
    return {"image_size": image_size}


def _without_auxiliary(image_size: int) -> dict[str, Any]:
    return {"aux_logits": False, "init_weights": True}


FAMILIES = (
    Family("AlexNet", "Krizhevsky, arXiv 1404.5997", ("alexnet",), 63),
    Family(
        "ConvNeXt",
        "Liu et al., arXiv 2201.03545",
        ("convnext_base", "convnext_large", "convnext_small", "convnext_tiny"),
    ),
    Family(
        "DenseNet",
        "Huang et al., arXiv 1608.06993",
        ("densenet121", "densenet161", "densenet169", "densenet201"),
    ),
    Family(
        "EfficientNet",
        "Tan and Le, arXiv 1905.11946",
        tuple(f"efficientnet_b{number}" for number in range(8)),
    ),
    Family(
        "EfficientNetV2",
        "Tan and Le, arXiv 2104.00298",
        ("efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s"),
    ),
    # The next two have weights that were made for images normalised by halves; torchvision undoes its own within.
    Family(
        "GoogLeNet",
        "Szegedy et al., arXiv 1409.4842",
        ("googlenet",),
        arguments=_without_auxiliary,
        normalization=HALF,
    ),
    Family(
        "Inception v3", "Szegedy et al., arXiv 1512.00567", ("inception_v3",), 75, _without_auxiliary, HALF
    ),
    Family(
        "MaxViT",
        "Tu et al., arXiv 2204.01697",
        ("maxvit_t",),
        224,
        lambda image_size: {"input_size": (image_size, image_size)},
    ),
    Family(
        "MNASNet",
        "Tan et al., arXiv 1807.11626",
        ("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    ),
    Family("MobileNetV2", "Sandler et al., arXiv 1801.04381", ("mobilenet_v2",)),
    Family("MobileNetV3", "Howard et al., arXiv 1905.02244", ("mobilenet_v3_large", "mobilenet_v3_small")),
    Family(
        "RegNetX",
        "Radosavovic et al., arXiv 2003.13678",
        tuple(f"regnet_x_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
    ),
    Family(
        "RegNetY",
        "Radosavovic et al., arXiv 2003.13678",
        tuple(
            f"regnet_y_{size}"
            for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf", "128gf")
        ),
    ),
    Family(
        "ResNet",
        "He et al., arXiv 1512.03385",
        ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    ),
    Family(
        "ResNeXt",
        "Xie et al., arXiv 1611.05431",
        ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    ),
    Family(
        "ShuffleNetV2",
        "Ma et al., arXiv 1807.11164",
        tuple(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
    ),
    Family("SqueezeNet", "Iandola et al., arXiv 1602.07360", ("squeezenet1_0", "squeezenet1_1")),
    Family("Swin Transformer", "Liu et al., arXiv 2103.14030", ("swin_b", "swin_s", "swin_t")),
    Family("Swin Transformer V2", "Liu et al., arXiv 2111.09883", ("swin_v2_b", "swin_v2_s", "swin_v2_t")),
    Family(
        "VGG",
        "Simonyan and Zisserman, arXiv 1409.1556",
        tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    ),
    Family(
        "Vision Transformer",
        "Dosovitskiy et al., arXiv 2010.11929",
        ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32"),
        arguments=_of_image_size,
    ),
    Family("Vision Transformer", "Dosovitskiy et al., arXiv 2010.11929", ("vit_h_14",), 42, _of_image_size),
    Family(
        "Wide ResNet",
        "Zagoruyko and Komodakis, arXiv 1605.07146",
        ("wide_resnet50_2", "wide_resnet101_2"),
    ),
)
