"""Images in [0, 1] to outputs: normalise, backbone, head; saved as safetensors with their own description."""

from __future__ import annotations

from hashrobust.models.files import load_model, load_tensors, load_weights, save_model, save_tensors
from hashrobust.models.network import Classifier, HashModel, Network, Normalize, frozen, sign

__all__ = [
    "Classifier",
    "HashModel",
    "Network",
    "Normalize",
    "frozen",
    "load_model",
    "load_tensors",
    "load_weights",
    "save_model",
    "save_tensors",
    "sign",
]
