"""`hashrobust data`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashrobust.cli._console import ConsoleProgress, key_value_table, print_json, stdout
from hashrobust.cli._options import DataDir, ImageSize, Json, Plugin, Quiet, check_task
from hashrobust.errors import InputError

if TYPE_CHECKING:
    from hashrobust.datasets import DatasetInfo, LabelledDataset

SPLITS = ("train", "query", "validation", "database", "test")
NAMED = 10
"""At most so many skipped files are named."""


def command(
    name: Annotated[
        str, typer.Argument(help="Such as digits or folder:DIR; see `hashrobust list datasets`.")
    ],
    task: Annotated[str, typer.Option(help="hashing or classification: whose splits.")] = "hashing",
    download: Annotated[bool, typer.Option("--download", help="Fetch it first if it is missing.")] = False,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    plugin: Plugin = [],  # noqa: B006
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a dataset is, whether it is here, and its splits; or fetch it."""
    from hashrobust.datasets import dataset_info, datasets, load_classification, load_dataset
    from hashrobust.datasets._info import data_folder

    progress = ConsoleProgress(quiet=quiet)
    load = load_classification if check_task(task) == "classification" else load_dataset
    info = dataset_info(name, data_dir=data_dir)
    takes = datasets.parameters(name.partition(":")[0])
    if download and "download" not in takes:
        raise InputError(f"dataset '{name}' cannot be downloaded: {info.fetch}")
    data = None
    # A plugin's dataset has no passport, and says itself what it lacks.
    if download or info.present or (info.present is None and "path" not in takes):
        data = load(
            name, data_dir=data_dir, image_size=image_size, **({"download": True} if download else {})
        )
        info = dataset_info(name, data_dir=data_dir)
        if download:
            progress.say(f"{name} is in '{data_folder(data_dir)}'")
        for line in data.skipped_lines():
            progress.say(line)
    facts = _passport(info) | (_content(data) if data is not None else {})
    if task == "classification":
        facts["protocol"] = "official train and test sets; a tenth of each class of train to validate"
    if json:
        print_json(facts)
        return
    stdout.print(key_value_table(name, [(key, _words(value)) for key, value in facts.items()]))
    if info.present is False:
        progress.say(f"{name} is not here: {info.fetch}")


def _passport(info: DatasetInfo) -> dict[str, Any]:
    states = {True: "present", False: "missing", None: "name a folder"}
    return {
        "state": states[info.present],
        "source": info.source,
        "size": info.size,
        "protocol": info.protocol,
        "licence": info.licence,
        "what fetches it": info.fetch,
        "looked for in": list(info.places),
    }


def _content(data: LabelledDataset) -> dict[str, Any]:
    splits = {split: len(getattr(data, split)) for split in SPLITS if hasattr(data, split)}
    top_k = {"list length of mAP@k": getattr(data, "top_k", None) or "the whole database"}
    return {
        **{f"{split} images": size for split, size in splits.items()},
        "image shape (C, H, W)": list(data.image_shape),
        "classes": list(data.classes),
        "several labels an image": data.multi_label,
        **(top_k if hasattr(data, "top_k") else {}),
        "images with an exact copy": data.duplicates,
        f"{'queries' if hasattr(data, 'query') else 'test images'} that stand in another split": data.overlap,
        "left out": list(data.skipped),
        "fingerprint": data.fingerprint,
    }


def _words(value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(str(item) for item in value[:NAMED])
        return f"{len(value)}: {shown}, ..." if len(value) > NAMED else shown or "none"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
