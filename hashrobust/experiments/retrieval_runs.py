"""A run's codes, index, metrics and searches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from hashrobust._arrays import as_packed
from hashrobust.datasets import RetrievalDataset, decode
from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.documents import understood
from hashrobust.experiments.environment import choose_device
from hashrobust.experiments.files import read_arrays
from hashrobust.experiments.foreign_runs import load_any
from hashrobust.experiments.store import Folder
from hashrobust.experiments.trained_runs import load_retrieval_data
from hashrobust.metrics import retrieval_metrics
from hashrobust.models import Hasher
from hashrobust.progress import Progress, Silent
from hashrobust.registry import did_you_mean
from hashrobust.retrieval import KINDS, HammingIndex, pack, unpack

CODES = "codes.npz"
INDEX = "index.faiss"
METRICS = "metrics.json"
SPLITS = ("train", "query", "validation", "database")
BATCH = 100
"""Image files are decoded one batch ahead of the network, so that small batches wait less for the first one."""


@dataclass(frozen=True)
class StoredCodes:
    """Codes of K = `bits` bits packed as `pack` does, (N, ceil(K / 8)), labels (N, C) multi-hot and ids (N,) of one
    split."""

    packed: NDArray[np.uint8]
    bits: int
    labels: NDArray[np.uint8]
    ids: NDArray[np.int64]

    @cached_property
    def codes(self) -> NDArray[np.int8]:
        """Codes (N, K) in {-1, +1}."""
        return unpack(self.packed, self.bits)


def encode_run(
    folder: Folder,
    *,
    data: RetrievalDataset | None = None,
    model: Hasher | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, StoredCodes]:
    """The codes of every split of a run: computed once, stored in `codes.npz`.

    Raises:
        StoreError: the run has no finished model, or its data has changed.
    """
    if overwrite or not folder.has(CODES):
        data = data or load_retrieval_data(folder, data_dir, progress)
        model = model or load_any(folder).to(choose_device(device))
        folder.write_arrays(CODES, _encode_splits(model, data, progress or Silent()))
    path = folder.file(CODES, made_by=f"index {folder.path}")
    stored = read_arrays(path)
    with understood(path):
        bits = int(stored["bits"][0])
        return {name: _stored_codes(stored, name, bits) for name in SPLITS}


def _stored_codes(stored: dict[str, NDArray[Any]], name: str, bits: int) -> StoredCodes:
    packed = as_packed(stored[name], bits)
    labels, ids = stored[f"{name}_labels"], stored[f"{name}_ids"]
    count = len(packed)
    fits = labels.dtype == np.uint8 and labels.ndim == 2 and len(labels) == count
    fits = fits and ids.dtype == np.int64 and ids.shape == (count,)
    if not fits or labels.max(initial=0) > 1:
        raise ValueError(f"labels and ids of {name} are not those of its {count} codes")
    return StoredCodes(packed, bits, labels, ids)


def _encode_splits(
    model: Hasher, data: RetrievalDataset, progress: Progress
) -> dict[str, NDArray[np.uint8] | NDArray[np.int64]]:
    """Packed codes, labels and ids of every split, and the number of bits."""
    arrays: dict[str, NDArray[np.uint8] | NDArray[np.int64]] = {"bits": np.array([model.bits])}
    splits = {name: getattr(data, name) for name in SPLITS}
    with progress.track("encoding", sum(map(len, splits.values())), "images") as advance:
        for name, split in splits.items():
            codes = []
            for images, _ in split.batches(BATCH):
                codes.append(pack(model.encode(images)))
                advance(len(images), name)
            arrays |= {
                name: np.concatenate(codes),
                f"{name}_labels": split.labels.numpy(),
                f"{name}_ids": split.ids.numpy(),
            }
    return arrays


def index_run(
    folder: Folder,
    *,
    kind: str = "flat",
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> HammingIndex:
    """Build the FAISS index of a run's database codes, or open the one that is there.

    `overwrite` encodes anew and makes another index, of another kind too.

    Raises:
        InputError: an unknown kind of index, or an index of another kind is there already.
        StoreError: see `encode_run`.
    """
    if kind not in KINDS:
        raise InputError(f"unknown index kind '{kind}': {did_you_mean(kind, list(KINDS))}")
    if folder.has(INDEX) and not overwrite:
        index = HammingIndex.load(folder.file(INDEX, made_by=f"index {folder.path}"))
        if index.kind != kind:
            raise InputError(
                f"run '{folder.path}' has a {index.kind} index: pass --overwrite to make it {kind}"
            )
        return index
    with folder.lock():
        codes = encode_run(folder, data_dir=data_dir, device=device, overwrite=overwrite, progress=progress)
        database, started = codes["database"], time.perf_counter()
        index = HammingIndex.from_packed(database.packed, database.bits, kind)
        folder.add_timing(index_seconds=time.perf_counter() - started)
        with folder.writing(INDEX) as temporary:
            index.save(temporary)
        return index


def evaluate_run(
    folder: Folder,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, float]:
    """The retrieval metrics of a run's queries against its database, stored in `metrics.json`.

    Raises:
        StoreError: the run is a pre-training; or see `encode_run`.
    """
    if folder.config.get("task") == "pretrain":
        raise StoreError(
            f"run '{folder.path}' holds a network to start from, without codes: name a run of `hashrobust finetune`"
        )
    if folder.has(METRICS) and not overwrite:
        stored: dict[str, float] = folder.read_json(METRICS, made_by=f"evaluate {folder.path}")
        return stored
    with folder.lock():
        data = load_retrieval_data(folder, data_dir, progress)
        codes = encode_run(folder, data=data, device=device, progress=progress)
        query, database = codes["query"], codes["database"]
        metrics = retrieval_metrics(query.codes, database.codes, query.labels, database.labels, k=data.top_k)
        folder.write_json(METRICS, metrics)
        return metrics


@dataclass(frozen=True)
class SearchHit:
    """One result: rank from 1, Hamming distance in bits, classes, and the image's name and position."""

    rank: int
    distance: int
    classes: tuple[str, ...]
    name: str
    position: int


def search_run(
    folder: Folder,
    image: Tensor,
    *,
    k: int = 10,
    data: RetrievalDataset,
    device: str = "auto",
) -> list[SearchHit]:
    """The k database images nearest to one image (C, H, W) in [0, 1].

    Raises:
        InputError: k below 1.
        StoreError: the run has no index.
    """
    if k < 1:
        raise InputError(f"k is {k}: ask for at least 1 result")
    model = load_any(folder).to(choose_device(device))
    index = HammingIndex.load(folder.file(INDEX, made_by=f"index {folder.path}"))
    if len(index) != len(data.database):
        raise StoreError(
            f"run '{folder.path}' has an index of {len(index)} codes and a database of {len(data.database)} images: "
            f"make it anew with `hashrobust index {folder.path} --overwrite`"
        )
    distances, positions = index.search(model.encode(image[None]), min(k, len(index)))
    labels = data.database.labels
    return [
        SearchHit(
            rank=rank,
            distance=int(distance),
            classes=tuple(data.classes[c] for c in torch.nonzero(labels[position]).flatten().tolist()),
            name=data.database.path(int(position)),
            position=int(position),
        )
        for rank, (distance, position) in enumerate(zip(distances[0], positions[0], strict=True), start=1)
        if position >= 0
    ]


def read_image(path: Path, image_shape: tuple[int, int, int]) -> Tensor:
    """An image file as (C, H, W) in [0, 1] of the shape that a dataset's images have.

    Photographs for 3 channels are scaled so that the short side is H and cropped in the middle;
    one channel means grey.

    Raises:
        InputError: the file is missing or no image that Pillow reads.
    """
    channels, height, width = image_shape
    if channels not in (1, 3):
        raise InputError(
            f"images of {channels} channels cannot be read from a file: search in Python instead"
        )
    if not path.exists():
        raise InputError(f"image '{path}' does not exist: check the path")
    if not path.is_file():
        raise InputError(f"'{path}' is a folder, no image: give a PNG or JPEG file")
    try:
        picture = decode(path.read_bytes()).convert("L" if channels == 1 else "RGB")
    except Exception as error:  # readers of damaged images raise whatever they stumble over
        # Pillow's own words for what is no image at all name an object in memory.
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise InputError(f"'{path}' is no image that can be read{why}: give a PNG or JPEG file") from error
    scale = max(height / picture.height, width / picture.width)
    size = max(round(picture.width * scale), width), max(round(picture.height * scale), height)
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    picture = picture.crop((left, top, left + width, top + height))
    pixels = np.asarray(picture, dtype=np.float32).reshape(height, width, channels) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Images (N, C, H, W) in [0, 1] as pixels (N, H, W, C) uint8, for pictures."""
    pixels = (images * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
