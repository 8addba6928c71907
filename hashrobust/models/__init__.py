"""Images in [0, 1] to outputs: normalise, backbone, head; saved as safetensors with their own description."""

from __future__ import annotations

from hashrobust.models.attackable import attackable
from hashrobust.models.files import load_model, load_tensors, load_weights, save_model, save_tensors
from hashrobust.models.foreign import (
    ForeignClassifier,
    ForeignModel,
    import_model,
    load_foreign_weights,
    told_of,
)
from hashrobust.models.image_model import ClassifyingModel, Hasher, ImageModel, frozen, sign
from hashrobust.models.layout import training_layout
from hashrobust.models.network import Classifier, HashModel, Network, Normalize
from hashrobust.models.source import plain_source

__all__ = [
    "Classifier",
    "ClassifyingModel",
    "ForeignClassifier",
    "ForeignModel",
    "HashModel",
    "Hasher",
    "ImageModel",
    "Network",
    "Normalize",
    "attackable",
    "frozen",
    "import_model",
    "load_foreign_weights",
    "load_model",
    "load_tensors",
    "load_weights",
    "plain_source",
    "save_model",
    "save_tensors",
    "sign",
    "told_of",
    "training_layout",
]
