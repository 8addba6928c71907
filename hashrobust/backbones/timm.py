"""Any model of timm without its classifier, under timm's parameter names."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hashrobust.backbones import backbones
from hashrobust.backbones._adopted import AdoptedBackbone, subclass
from hashrobust.errors import InputError, UnknownNameError
from hashrobust.registry import did_you_mean


class TimmBackbone(AdoptedBackbone):
    """A model of timm up to its pooled features.

    Source: Wightman, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models. What `--weights
    imagenet` loads are the weights that timm gives this name; NAME.TAG names others, and the tag says what
    they were trained on.
    """

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        self._become(self._create(pretrained=False))
        self.feature_dim = self._measured_feature_dim()
        if channels == 3:
            settings = self._settings()
            self.imagenet_normalization = tuple(settings.mean), tuple(settings.std)

    @classmethod
    def _settings(cls) -> Any:
        """Timm's own record of the model and its weights."""
        return _timm().models.get_pretrained_cfg(cls._timm_name())

    @classmethod
    def _timm_name(cls) -> str:
        return cls.registered_name.partition(":")[2]

    def _create(self, *, pretrained: bool) -> nn.Module:
        own = {"img_size": self.image_size} if self._settings().fixed_input_size else {}
        try:
            network: nn.Module = _timm().create_model(
                self._timm_name(), pretrained=pretrained, num_classes=0, in_chans=self.channels, **own
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise self._unfit(error) from error
        return network

    @torch.no_grad()
    def _measured_feature_dim(self) -> int:
        """The length of the features of an empty image, which also shows that such images can be seen."""
        training = self.training
        try:
            features = self.eval()(torch.zeros(1, self.channels, self.image_size, self.image_size))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise self._unfit(error) from error
        if features.ndim != 2:
            raise InputError(
                f"{self.registered_name} gives features of shape {tuple(features.shape[1:])}, "
                "not one vector an image: choose another model"
            )
        self.train(training)
        return int(features.shape[1])

    def _unfit(self, error: Exception) -> InputError:
        return InputError(
            f"{self.registered_name} cannot see images of {self.channels} channels and {self.image_size} pixels "
            f"({error}): choose another size or model"
        )

    @classmethod
    def imagenet_file(cls) -> Path | None:
        """The file in the cache of Hugging Face, or the folder there that it will come to; None if there is none."""
        repository = cls._settings().hf_hub_id
        if not repository:
            return None
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.constants import HF_HUB_CACHE

        found = try_to_load_from_cache(repository, "model.safetensors")
        folder = "models--" + repository.replace("/", "--")
        return Path(found if isinstance(found, str) else Path(HF_HUB_CACHE, folder, "model.safetensors"))

    def imagenet_state(self, *, progress: bool = False) -> dict[str, Tensor]:
        """Timm's weights for this model and image size, without the classifier.

        Raises:
            InputError: these channels have none, or the download failed.
        """
        file = self.imagenet_file()
        if file is None:
            raise self._no_imagenet_weights()
        self._check_colour()
        try:
            with torch.random.fork_rng(devices=[]):
                return self._create(pretrained=True).state_dict()
        except Exception as error:  # each library between here and the network raises its own kinds
            raise InputError(
                f"cannot get the weights of {self.registered_name} ({error}): "
                f"fetch them on a machine with a network and copy the folder {file.parent} from there"
            ) from error

    def load_imagenet(self, state: Mapping[str, Tensor] | None = None) -> None:
        """Load a timm state dict, `imagenet_state()` unless given; all but its classifier must fit.

        Raises:
            InputError: names or shapes that differ, or channels that the weights do not serve.
        """
        given = self.imagenet_state() if state is None else state
        self._check_colour()
        heads = self._settings().classifier or ()
        skipped = tuple(f"{name}." for name in ([heads] if isinstance(heads, str) else heads))
        try:
            self.load_state_dict(
                {name: value for name, value in given.items() if not name.startswith(skipped)}
            )
        except RuntimeError as error:
            raise InputError(
                f"the weights do not fit {self.registered_name}: {error}; give timm's own state dict"
            ) from error


@backbones.register_family("timm")
def find(name: str) -> type[TimmBackbone]:
    """Any model of timm, with or without a tag of its weights; needs `pip install 'hashrobust[timm]'`.

    Raises:
        InputError: timm is not installed.
        UnknownNameError: timm has no such model.
    """
    timm = _timm()
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        raise UnknownNameError(f"timm has no model '{name}': {did_you_mean(name, timm.list_models())}")
    tags = timm.list_pretrained(f"{model}.*")
    if tag and name not in tags:
        raise UnknownNameError(f"timm has no weights '{name}': {did_you_mean(name, tags)}")
    return _kind(name)


@functools.cache
def _kind(name: str) -> type[TimmBackbone]:
    least = _timm().models.get_pretrained_cfg(name).min_input_size
    return subclass(
        f"timm:{name}",
        TimmBackbone,
        registered_name=f"timm:{name}",
        minimum_image_size=least[-1] if least else 32,
        __module__=__name__,
        __doc__=TimmBackbone.__doc__,
    )


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise InputError(
            "backbones 'timm:NAME' need timm, which is not installed: pip install 'hashrobust[timm]'"
        ) from error
    return timm
