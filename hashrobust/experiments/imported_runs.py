"""Exports of `export_run` taken back as run folders: checked, never unpickled, and no code of theirs is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hashrobust.datasets import ClassificationDataset, LabelledDataset
from hashrobust.errors import InputError
from hashrobust.experiments.checksums import SealedFolder
from hashrobust.experiments.config import ClassifierConfig, FinetuneConfig, slug
from hashrobust.experiments.documents import check_numbers
from hashrobust.experiments.environment import choose_device, record_environment
from hashrobust.experiments.exports import DESCRIPTION, FORMAT
from hashrobust.experiments.files import file_digest, staging
from hashrobust.experiments.store import CHECKSUMS, EXPORTED, FOREIGN, Folder, config_hash
from hashrobust.experiments.trained_runs import FEEDBACK, load_data, load_trained
from hashrobust.experiments.weights import MODEL
from hashrobust.models import Classifier, HashModel, load_model
from hashrobust.progress import Progress, Silent

WITHOUT_FEEDBACK = "without feedback"
"""Beside the rule of a model that came without what the rule drew, and so follows none here."""


def import_run(
    directory: Path,
    results: Path,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Folder:
    """The run folder of an exported model; `dataset` says where its data are here, if not under their name.

    Raises:
        InputError: a folder that is no whole export, or data that the model was not made for.
    """
    progress = progress or Silent()
    described = _described(directory)
    config = _config(directory, described, dataset)
    model = _model(directory, described, config.backbone)
    data = load_data(config, data_dir, classify=isinstance(config, ClassifierConfig))
    _check_data(directory, described, model, data, progress)
    rule = config.rule
    if not described["feedback"] and rule != "bp":
        progress.say(
            f"the export has no feedback: the rule {rule} by which it was trained cannot be followed here"
        )
        config = replace(config, rule=f"{rule} {WITHOUT_FEEDBACK}")
    stored = {"task": FOREIGN, "model": EXPORTED, **_task(config), **config.to_dict()}
    run = Folder(results / _name(config, config_hash({**stored, "digest": file_digest(directory / MODEL)})))
    there = run.has(MODEL)
    try:
        if not there:
            with staging(run.path) as place:
                folder = Folder.create(place, stored)
                record_environment(folder, device=choose_device(device), fingerprint=data.fingerprint)
                _copy_weights(directory, folder, feedback=described["feedback"])
                load_imported(folder)
    except OSError:
        if not run.has(MODEL):
            raise
        there = True  # another process took the same export in meanwhile
    if there:
        progress.say(f"{run.name} is there already")
    return Folder.open(run.path, stored)


def _copy_weights(directory: Path, folder: Folder, *, feedback: bool) -> None:
    for file in (MODEL, *([FEEDBACK] if feedback else [])):
        with folder.writing(file) as temporary:
            shutil.copyfile(directory / file, temporary)


def load_imported(run: Folder) -> HashModel | Classifier:
    """The model of a run that `import_run` made, in eval mode; following its rule if its feedback came along.

    Raises:
        StoreError: damaged files.
    """
    if not run.has(FEEDBACK):
        return load_model(run.file(MODEL, made_by=run.command))
    model = load_trained(run, (ClassifierConfig if run.classifies else FinetuneConfig).from_dict(run.config))
    assert isinstance(model, HashModel | Classifier)
    return model


def _described(directory: Path) -> dict[str, Any]:
    """The description of an export whose files are all there and match their checksums.

    Raises:
        InputError: it is none, or a file is missing or changed.
    """
    path = directory / CHECKSUMS
    if not path.is_file():
        raise InputError(
            f"'{directory}' is no export, it has no {CHECKSUMS}: name a folder that `hashrobust export` made"
        )
    export = SealedFolder(directory)
    sums = export.checksums
    for name in sums:
        if Path(name).name != name:
            raise InputError(f"'{path}' names '{name}', which is no file of the export: get the export anew")
        if not export.matches(name):
            raise InputError(
                f"'{directory / name}' is missing or does not match its checksum: get the export anew"
            )
    described = _read_json(directory / DESCRIPTION) if DESCRIPTION in sums else {}
    if described.get("format") != FORMAT:
        raise InputError(
            f"'{directory}' has format {described.get('format')}, this version reads {FORMAT}: export the model again"
        )
    wanted = {"network": dict, "training": dict, "data": dict, "feedback": bool, "task": str}
    for key, kind in wanted.items():
        if not isinstance(described.get(key), kind):
            raise InputError(
                f"'{directory / DESCRIPTION}' says nothing useful of '{key}': export the model again"
            )
    for name in (MODEL, *([FEEDBACK] if described["feedback"] else [])):
        if name not in sums:
            raise InputError(f"'{directory}' has no checksum of {name}: get the export anew")
    return described


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        check_numbers(content)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' cannot be read ({error}): get the export anew") from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds no table of names and values: get the export anew")
    return content


def _config(
    directory: Path, described: Mapping[str, Any], dataset: str | None
) -> FinetuneConfig | ClassifierConfig:
    """How the model was trained, its data under the name that they have here.

    Raises:
        InputError: what is described cannot be a configuration.
    """
    kinds = {"hashing": FinetuneConfig, "classification": ClassifierConfig}
    if described["task"] not in kinds:
        raise InputError(
            f"'{directory / DESCRIPTION}' is of task '{described['task']}': hashing and classification are known"
        )
    known = kinds[described["task"]]()
    for key, value in described["training"].items():
        own = getattr(known, key, None)
        # The defaults show the types; what is None by default may be anything that the dataclass accepts.
        if own is not None and not isinstance(value, int | float if isinstance(own, float) else type(own)):
            raise InputError(f"'{directory / DESCRIPTION}' has {key} {value!r}: export the model again")
    try:
        config: FinetuneConfig | ClassifierConfig = type(known).from_dict(described["training"])
    except (TypeError, InputError) as error:
        raise InputError(
            f"'{directory / DESCRIPTION}' describes no training ({error}): export the model again"
        ) from error
    return config if dataset is None else replace(config, dataset=dataset)


def _model(directory: Path, described: Mapping[str, Any], backbone: str) -> HashModel | Classifier:
    """The plain model.

    Raises:
        InputError: its weights are not those of the network that is described.
    """
    model = load_model(directory / MODEL)
    if model.spec != described["network"] or model.spec["backbone"] != backbone:
        raise InputError(
            f"'{directory / MODEL}' is of another network than {DESCRIPTION} describes: get the export anew"
        )
    return model


def _check_data(
    directory: Path,
    described: Mapping[str, Any],
    model: HashModel | Classifier,
    data: LabelledDataset,
    progress: Progress,
) -> None:
    classes = model.output_count if isinstance(data, ClassificationDataset) else len(data.classes)
    if model.input_shape != data.image_shape or classes != len(data.classes):
        raise InputError(
            f"the model of '{directory}' is for images of shape {model.input_shape} and gives {model.output_count} "
            f"outputs, {data.name} has images of shape {data.image_shape} and {len(data.classes)} classes: name the "
            "data that it was made for with --dataset"
        )
    if described["data"].get("fingerprint") != data.fingerprint:
        progress.say(
            f"{data.name} here is not what the model was trained on and measured with: its numbers will be others"
        )


def _task(config: FinetuneConfig | ClassifierConfig) -> dict[str, Any]:
    if isinstance(config, ClassifierConfig):
        return {"protocol": "classification", "objective": "cross-entropy"}
    return {}


def _name(config: FinetuneConfig | ClassifierConfig, digits: str) -> str:
    kind = f"{config.objective}-{config.bits}" if isinstance(config, FinetuneConfig) else "classifier"
    rule = config.rule_slug.partition(" ")[0]
    name = f"imported-{slug(config.dataset)}-{config.backbone}-{kind}-{rule}-s{config.seed}-{digits}"
    # Whoever made the export chose the words; they are to lead nowhere.
    return "".join(letter if letter.isalnum() or letter in "_.:+@-" else "-" for letter in name)
