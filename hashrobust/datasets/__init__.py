"""Retrieval protocols: labelled images split into train, query, validation and database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hashrobust.datasets._base import RetrievalDataset, Split
from hashrobust.datasets._info import INFO, DatasetInfo, data_folder
from hashrobust.errors import InputError
from hashrobust.registry import Registry

__all__ = ["DatasetInfo", "RetrievalDataset", "Split", "dataset_info", "datasets", "load_dataset"]

datasets: Registry[RetrievalDataset] = Registry("dataset", "hashrobust.datasets")


def _parse(name: str) -> tuple[str, str | None]:
    """A dataset's name as its registered kind and the path after the colon, if any."""
    kind, colon, path = name.partition(":")
    takes_path = "path" in datasets.parameters(kind)
    if takes_path and not path:
        raise InputError(f"dataset '{name}' lacks its folder: write '{kind}:FOLDER'")
    if colon and not takes_path:
        raise InputError(f"dataset '{kind}' takes no folder: write '{kind}' without the colon")
    return kind, path or None


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    **own: Any,
) -> RetrievalDataset:
    """Load a dataset with its protocol's splits.

    Args:
        name: a registered name, with a folder for some (`list:DIR`, `folder:DIR`).
        data_dir: where downloaded data sets live; None: HASHROBUST_DATA of the environment, else ./data.
        image_size: side of the square images in pixels; None: the dataset's own default.
        download: fetch what is missing, for the data sets that torchvision fetches.
        own: parameters of that dataset alone, such as `allow_overlap` of `list`.

    Raises:
        UnknownNameError: no such dataset.
        InputError: a parameter that the dataset does not take, or a bad value.
        DataError: the data are missing, malformed, or break the protocol.
        HashRobustError: a download fails.
    """
    kind, path = _parse(name)
    common = {"path": path, "data_dir": data_dir, "image_size": image_size, "download": download}
    takes = datasets.parameters(kind)
    return datasets.build(kind, **{key: value for key, value in common.items() if key in takes}, **own)


def dataset_info(name: str, *, data_dir: str | Path | None = None) -> DatasetInfo:
    """What dataset `name` is, where it is looked for, whether it is there and what fetches it.

    Takes bare names of kinds too (`list`); reads no image.

    Raises:
        UnknownNameError: no such dataset.
    """
    kind, _, path = name.partition(":")
    summary = datasets.describe(kind)
    if kind not in INFO:
        return DatasetInfo(name, summary, "", "", "", "", (), None)
    return INFO[kind](data_folder(data_dir), Path(path) if path else None)
