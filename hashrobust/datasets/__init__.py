"""Protocols: labelled images split into train, query, validation and database, or train, validation and test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hashrobust.datasets._base import ClassificationDataset, LabelledDataset, RetrievalDataset, Split
from hashrobust.datasets._decode import decode
from hashrobust.datasets._info import INFO, DatasetInfo, data_folder, written_out
from hashrobust.errors import InputError, UnknownNameError
from hashrobust.progress import Progress
from hashrobust.registry import Registry

__all__ = [
    "ClassificationDataset",
    "DatasetInfo",
    "LabelledDataset",
    "RetrievalDataset",
    "Split",
    "check_classifies",
    "dataset_info",
    "datasets",
    "decode",
    "load_classification",
    "load_dataset",
]

datasets: Registry[LabelledDataset] = Registry("dataset", "hashrobust.datasets")

PROTOCOLS = ("retrieval", "classification")


def _parse(name: str) -> tuple[str, str | None]:
    """A dataset's name as its registered kind and the path after the colon, if any."""
    kind, colon, path = str(name).partition(":")  # who gives a path is told how folders are named
    _check_kind(kind)
    takes_path = "path" in datasets.parameters(kind)
    if takes_path and not path:
        raise InputError(f"dataset '{name}' lacks its folder: write '{kind}:FOLDER'")
    if colon and not takes_path:
        raise InputError(f"dataset '{kind}' takes no folder: write '{kind}' without the colon")
    return kind, path or None


def _check_kind(name: str) -> None:
    """Tell whoever names a folder how folders are named."""
    if name not in datasets and written_out(name).is_dir():
        raise UnknownNameError(
            f"unknown dataset '{name}', which is a folder here: write folder:{name} if it holds a folder of images for "
            f"each class, list:{name} if it holds lists"
        )


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    progress: Progress | None = None,
    **own: Any,
) -> RetrievalDataset:
    """Load a dataset with the splits of its retrieval protocol.

    Args:
        name: a registered name, with a folder for some (`list:DIR`, `folder:DIR`).
        data_dir: where downloaded data sets live; None: HASHROBUST_DATA of the environment, else ./data.
        image_size: side of the square images in pixels; None: the dataset's own default.
        download: fetch what is missing, for the data sets whose publishers let a program do so.
        progress: told of downloads, and of files that are read.
        own: parameters of that dataset alone, such as `allow_overlap` of `list`.

    Raises:
        UnknownNameError: no such dataset.
        InputError: a parameter that the dataset does not take, a bad value, or another protocol.
        DataError: the data are missing, malformed, or break the protocol.
        HashRobustError: a download fails.
    """
    data = _load(name, data_dir=data_dir, image_size=image_size, download=download, progress=progress, **own)
    if not isinstance(data, RetrievalDataset):
        raise InputError(f"dataset '{name}' is asked for another protocol: load it by load_classification")
    return data


def load_classification(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    progress: Progress | None = None,
    **own: Any,
) -> ClassificationDataset:
    """Load a dataset with its official train and test sets, a tenth of train as validation.

    Arguments and errors are those of `load_dataset`; also

    Raises:
        InputError: the dataset has no such protocol.
        DataError: images with several labels.
    """
    check_classifies(name)
    data = _load(
        name,
        data_dir=data_dir,
        image_size=image_size,
        download=download,
        progress=progress,
        protocol="classification",
        **own,
    )
    assert isinstance(data, ClassificationDataset)
    return data


def check_classifies(name: str) -> None:
    """Refuse a dataset that has no classification protocol, whether or not its data are here.

    Raises:
        UnknownNameError: no such dataset.
        InputError: it has none.
    """
    if "protocol" not in datasets.parameters(_parse(name)[0]):
        raise InputError(f"dataset '{name}' has no classification protocol: use it for retrieval")


def _load(name: str, **given: Any) -> LabelledDataset:
    kind, path = _parse(name)
    takes = datasets.parameters(kind)
    if given.get("protocol", PROTOCOLS[0]) not in PROTOCOLS:
        raise InputError(f"protocol is {given['protocol']!r}: give {' or '.join(PROTOCOLS)}")
    common = {"path": path, **given}
    optional = ("path", "data_dir", "image_size", "download", "progress")
    return datasets.build(kind, **{k: v for k, v in common.items() if k in takes or k not in optional})


def dataset_info(name: str, *, data_dir: str | Path | None = None) -> DatasetInfo:
    """What dataset `name` is, where it is looked for, whether it is there and what fetches it.

    Takes bare names of kinds too (`list`); reads no image.

    Raises:
        UnknownNameError: no such dataset.
    """
    kind, _, path = str(name).partition(":")
    _check_kind(kind)
    summary = datasets.describe(kind)
    if kind not in INFO:
        return DatasetInfo(name, summary, "", "", "", "", (), None)
    return INFO[kind](data_folder(data_dir), written_out(path) if path else None)
