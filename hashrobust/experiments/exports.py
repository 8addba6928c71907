"""A run's model as a folder to share: weights, description and source that need torch alone, and ONNX if asked for.

What stands in the folder is said once, in `model.json`; the model card (README.md) tells it to people.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hashrobust.datasets import LabelledDataset, dataset_info
from hashrobust.errors import HashRobustError, InputError
from hashrobust.experiments.checksums import SealedFolder
from hashrobust.experiments.config import ClassifierConfig, FinetuneConfig
from hashrobust.experiments.files import staging
from hashrobust.experiments.onnx_files import onnx_outputs, write_onnx
from hashrobust.experiments.store import CHECKSUMS, CLASSIFY, EXPORTED, FOREIGN, Folder
from hashrobust.experiments.trained_runs import FEEDBACK, load_run_data
from hashrobust.experiments.weights import MODEL
from hashrobust.models import Classifier, HashModel, load_model, plain_source, sign
from hashrobust.progress import Progress, Silent

FORMAT = 1
DESCRIPTION, SOURCE, EXAMPLE, CARD, ONNX = "model.json", "model.py", "example.py", "README.md", "model.onnx"
_FILES = frozenset({DESCRIPTION, SOURCE, EXAMPLE, CARD, ONNX, MODEL, FEEDBACK, CHECKSUMS, "__pycache__"})
"""All that an export holds, and what Python leaves there of `model.py`: another export may replace them."""
IMAGES = 200
"""So many of the queries or test images check what is written."""
MOST_CHANGED = 1e-3
"""Another runtime rounds otherwise: the largest share of bits or classes that may differ."""

_EXAMPLE = """import torch
from model import Model
from safetensors.torch import load_file

model = Model().eval()
model.load_state_dict(load_file("model.safetensors"))
images = torch.rand(2, {channels}, {size}, {size})  # yours: float, in [0, 1], not normalised
with torch.no_grad():
    {answer}
print({name})
"""
_ANSWERS = {
    "hash": ("codes", "codes = torch.where(model(images) >= 0, 1, -1)"),
    "classifier": ("classes", "classes = model(images).argmax(dim=1)"),
}

Card = Callable[[Folder, Mapping[str, Any]], str]
"""From a run and the description of its export to the text of a model card."""


def export_run(
    run: Folder,
    to: Path,
    *,
    card: Card,
    onnx: bool = False,
    feedback: bool = False,
    data_dir: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the plain model of a run into the folder `to`; returns its description.

    The source and, with `onnx`, the ONNX file are held against the run's model on real images before anything
    appears under `to`. With `feedback` goes along what the rule drew, so that `import_run` restores its gradient.

    Raises:
        InputError: a run that has no model to share, a network that cannot be written down, or a folder that holds
            something else.
        HashRobustError: what was written answers otherwise than the run's model.
    """
    progress = progress or Silent()
    training = _training(run)
    feedback = feedback and training["rule"] != "bp"
    _check_place(to, overwrite=overwrite)
    model = load_model(run.file(MODEL, made_by=run.command))
    if feedback:
        run.file(FEEDBACK, made_by=run.command)
    data = load_run_data(run, data_dir)
    images = data.asked.load(range(min(IMAGES, len(data.asked))))
    with staging(to, replacing=True) as place:
        checked = _write_model(place, model, images, onnx=onnx, progress=progress)
        shutil.copyfile(run.path / MODEL, place / MODEL)
        if feedback:
            shutil.copyfile(run.path / FEEDBACK, place / FEEDBACK)
        description = _describe(run, model, data, training) | {"feedback": feedback, "checked": checked}
        (place / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
        (place / CARD).write_text(card(run, description), encoding="utf-8")
        SealedFolder(place).seal(*(path.name for path in place.iterdir()))
    return description


def _training(run: Folder) -> dict[str, Any]:
    """How the run's model was trained, as a configuration.

    Raises:
        InputError: the run's model was made elsewhere, or is no more than a start for others.
    """
    config = run.config
    task = config.get("task")
    if task == FOREIGN and config.get("model") != EXPORTED:
        raise InputError(f"run '{run.path}' is of a model made elsewhere: share it from where it was made")
    if task == "pretrain" and not run.classifies:
        raise InputError(
            f"run '{run.path}' holds a network to start from: export a run of `hashrobust finetune`, or give its "
            f"{MODEL} to others as --weights"
        )
    kind = ClassifierConfig if run.classifies or task == CLASSIFY else FinetuneConfig
    return kind.from_dict(config).to_dict()


def _check_place(to: Path, *, overwrite: bool) -> None:
    if not to.exists():
        return
    if Path.cwd().is_relative_to(to.resolve()):
        raise InputError(
            f"'{to}' is the folder that you are in, or above it: choose a folder of its own with --to"
        )
    held = sorted(path.name for path in to.iterdir()) if to.is_dir() else []
    others = [name for name in held if name not in _FILES]
    if not to.is_dir() or others or (held and DESCRIPTION not in held):
        what = f" ({others[0]})" if others else ""
        raise InputError(f"'{to}' holds something else{what}: choose another folder with --to")
    if held and not overwrite:
        raise InputError(
            f"'{to}' holds an export already: pass --overwrite, or choose another folder with --to"
        )


def _write_model(
    place: Path, model: HashModel | Classifier, images: Tensor, *, onnx: bool, progress: Progress
) -> dict[str, Any]:
    """Write what computes the model, each held against it on real images; what was found."""
    (place / SOURCE).write_text(plain_source(model), encoding="utf-8")
    name, answer = _ANSWERS[model.kind]
    channels, size, _ = model.input_shape
    (place / EXAMPLE).write_text(_EXAMPLE.format(channels=channels, size=size, name=name, answer=answer))
    with torch.inference_mode():
        expected = model(images)
        checked: dict[str, Any] = {"images": len(images)}
        checked[SOURCE] = _compared(model, expected, _from_source(place, model)(images), SOURCE)
    progress.say(f"{SOURCE}: {_words(checked[SOURCE], len(images))}")
    if onnx:
        write_onnx(model, images[:2], place / ONNX)
        checked[ONNX] = _compared(model, expected, onnx_outputs(place / ONNX, images), ONNX)
        progress.say(f"{ONNX}: {_words(checked[ONNX], len(images))}")
    return checked


def _from_source(place: Path, model: HashModel | Classifier) -> torch.nn.Module:
    """The network that the written source makes, with the model's weights."""
    names: dict[str, Any] = {"__name__": "model"}
    try:
        exec(compile((place / SOURCE).read_text(), SOURCE, "exec"), names)
        made: torch.nn.Module = names["Model"]().eval()
        made.load_state_dict(model.state_dict())
    except Exception as error:
        raise HashRobustError(
            f"{SOURCE} of backbone '{model.spec['backbone']}' does not work ({type(error).__name__}: {error}): "
            f"share its weights ({MODEL}) and the file that defines it"
        ) from error
    return made


def _compared(model: HashModel | Classifier, expected: Tensor, found: Tensor, name: str) -> dict[str, Any]:
    """How many codes' bits, or classes, differ, and by how much the outputs do.

    Raises:
        HashRobustError: more differ than rounding explains.
    """
    own, other = (sign(z) if model.kind == "hash" else z.argmax(dim=1) for z in (expected, found))
    values, differ = own.numel(), int((own != other).sum())
    largest = float((expected - found).abs().max())
    if differ > MOST_CHANGED * values or not largest <= MOST_CHANGED * float(expected.abs().mean()):
        raise HashRobustError(
            f"{name} answers otherwise than the run's model: {differ} of {values} values differ, outputs by up to "
            f"{largest:.2g}; nothing was exported"
        )
    return {"values": values, "differ": differ, "largest_difference": largest}


def _words(found: Mapping[str, Any], images: int) -> str:
    equal = "equal" if not found["differ"] else f"equal but for {found['differ']} of {found['values']} values"
    return f"answers to {images} real images are {equal}, outputs differ by at most {found['largest_difference']:.2g}"


def _describe(
    run: Folder, model: HashModel | Classifier, data: LabelledDataset, training: Mapping[str, Any]
) -> dict[str, Any]:
    info = dataset_info(data.name)
    environment = run.read_json("environment.json", made_by=run.command)
    return {
        "format": FORMAT,
        "run": run.name,
        "task": "classification" if run.classifies else "hashing",
        "network": model.spec,
        "classes": list(data.classes),
        "training": training,
        "data": {
            "name": data.name,
            "source": info.source,
            "protocol": info.protocol,
            "licence": info.licence,
            "fingerprint": data.fingerprint,
        },
        "versions": environment["versions"],
    }
