"""`hashrobust data`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashrobust.cli._console import ConsoleProgress, key_value_table, print_json, stdout, table
from hashrobust.cli._options import DataDir, ImageSize, Json, Plugin, Quiet, check_task
from hashrobust.errors import InputError

if TYPE_CHECKING:
    from hashrobust.datasets import DatasetInfo, LabelledDataset

SPLITS = ("train", "query", "validation", "database", "test")
CLASSIFICATION = (
    "official train and test sets, or where there are none a tenth of each class is drawn to test; a tenth of each "
    "class of train to validate"
)
NAMED = 10
"""At most so many skipped files are named."""


def command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[check] NAME",
            help="Such as digits or folder:DIR: see `hashrobust list datasets`. With the word check before it, every "
            "image is read and checked.",
        ),
    ],
    task: Annotated[str, typer.Option(help="Whose splits: hashing or classification.")] = "hashing",
    download: Annotated[bool, typer.Option("--download", help="Fetch it if it is missing.")] = False,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    plugin: Plugin = [],  # noqa: B006
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show, fetch or check a dataset."""
    from hashrobust.datasets import (
        check_classifies,
        dataset_info,
        datasets,
        load_classification,
        load_dataset,
    )
    from hashrobust.datasets._info import data_folder

    progress = ConsoleProgress(quiet=quiet)
    name, checks = _name(words)
    classifies = check_task(task) == "classification"
    if classifies:
        check_classifies(name)
    load = load_classification if classifies else load_dataset
    info = dataset_info(name, data_dir=data_dir)
    takes = datasets.parameters(name.partition(":")[0])
    if download and "download" not in takes:
        if not info.present:
            raise InputError(f"dataset '{name}' cannot be downloaded: {info.fetch}")
        progress.say(f"{name} is here and needs no download")
        download = False
    opened = partial(
        load,
        name,
        data_dir=data_dir,
        image_size=image_size,
        progress=progress,
        **({"download": True} if download else {}),
    )
    if checks:
        if info.present is False and not download:
            opened()  # says what fetches it
        # An overlap is found and named case by case, where it can be waived for that.
        _check(
            name, partial(opened, allow_overlap=True) if "allow_overlap" in takes else opened, json, progress
        )
        return
    data = None
    # A folder of the user's own that is not there is a mistake; so may be what a plugin's dataset lacks: both say so.
    if download or info.present or ":" in name or (info.present is None and "path" not in takes):
        data = opened()
        info = dataset_info(name, data_dir=data_dir)
        if download:
            progress.say(f"{name} is in '{data_folder(data_dir)}'")
        for line in data.skipped_lines():
            progress.say(line)
    facts = passport_rows(info) | (_content(data) if data is not None else {})
    if classifies:
        facts["protocol"] = CLASSIFICATION
    if json:
        print_json(facts)
        return
    stdout.print(key_value_table(name, [(key, words_of(value)) for key, value in facts.items()]))
    if info.present is False:
        progress.say(f"{name} is not here: {info.fetch}")


def _check(name: str, load: Callable[[], LabelledDataset], json: bool, progress: ConsoleProgress) -> None:
    from hashrobust.datasets._check import check_dataset

    findings = check_dataset(load, progress)
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(finding.check, finding.outcome.upper(), finding.words) for finding in findings]
        stdout.print(table(("check", "outcome", "found"), rows, title=name))
        for finding in findings:
            for case in finding.cases[:NAMED]:
                progress.say(f"{finding.check}: {case}")
            if len(finding.cases) > NAMED:
                progress.say(f"{finding.check}: and {len(finding.cases) - NAMED} more: --json names all")
    if any(finding.outcome == "fail" for finding in findings):
        raise typer.Exit(1)


def _name(words: list[str]) -> tuple[str, bool]:
    """The dataset's name, and whether it is to be checked."""
    checks = words[0] == "check"
    if len(words) != 1 + checks:
        raise InputError("name one dataset: `hashrobust data digits`, or `hashrobust data check digits`")
    return words[-1], checks


def passport_rows(info: DatasetInfo) -> dict[str, Any]:
    """A dataset's passport by the names of its fields in words."""
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


def words_of(value: Any) -> str:
    """A value in a cell of a table."""
    if isinstance(value, list):
        shown = ", ".join(str(item) for item in value[:NAMED])
        return f"{len(value)}: {shown}, ..." if len(value) > NAMED else shown or "none"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
