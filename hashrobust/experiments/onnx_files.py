"""Models as ONNX files, and their answers by ONNX Runtime; needs the extra `hashrobust[onnx]`."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hashrobust.errors import HashRobustError, InputError

NEEDED = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "images", "outputs"


def write_onnx(model: nn.Module, images: Tensor, path: Path) -> None:
    """Write a model in eval mode as ONNX, for batches of any size; `images` (B, C, H, W) show their shape.

    Raises:
        InputError: the packages that it needs are not installed.
        HashRobustError: torch cannot express the model in ONNX.
    """
    for name in NEEDED:
        _package(name)
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (images,),
                path,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of many kinds
        first = " ".join(str(error).split())[:200]
        raise HashRobustError(
            f"the model cannot be written as ONNX ({first}): export without --onnx"
        ) from error


def onnx_outputs(path: Path, images: Tensor) -> Tensor:
    """The outputs (B, K) of an ONNX file for images (B, C, H, W), on the CPU.

    Raises:
        InputError: ONNX Runtime is not installed.
    """
    session = _package("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (outputs,) = session.run([OUTPUT], {INPUT: images.numpy()})
    return torch.from_numpy(outputs)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"ONNX needs {name} ({error}): pip install 'hashrobust[onnx]'") from error
