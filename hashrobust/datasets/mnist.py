"""Fashion-MNIST and MNIST: 70,000 grey images each, in the same four idx files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hashrobust.datasets import datasets
from hashrobust.datasets._base import LabelledDataset
from hashrobust.datasets._idx import read_idx
from hashrobust.datasets._info import DatasetInfo, absent, data_folder, describes, downloaded
from hashrobust.datasets._memory import MemoryImages
from hashrobust.datasets._protocol import Sizes, classification, pooled_dataset
from hashrobust.errors import DataError

SIZES = Sizes(train=500, query=100, validation=100)
TOP_K = 5000
PARTS = ("train", "t10k")
IMAGE_SHAPE = (28, 28)


@dataclass(frozen=True)
class _Set:
    name: str
    torchvision: str
    classes: tuple[str, ...]
    class_sizes: tuple[int, ...]  # they tell the two sets apart, whose files carry the same names
    debian: Path | None
    fetch: str

    def places(self, data_dir: Path) -> list[Path]:
        """Where its files are looked for, in this order."""
        here = [data_dir, data_dir / self.name, data_dir / self.torchvision / "raw"]
        return here if self.debian is None else [*here, self.debian]

    def find(self, data_dir: Path) -> dict[str, Path] | None:
        """Its four files, from the first place that has all of them; None: no place has."""
        for place in self.places(data_dir):
            files = {}
            for part in PARTS:
                for kind in ("images-idx3", "labels-idx1"):
                    stem = place / f"{part}-{kind}-ubyte"
                    found = [file for file in (stem, stem.with_name(f"{stem.name}.gz")) if file.is_file()]
                    files.update({f"{part}-{kind}": file for file in found[:1]})
            if len(files) == 2 * len(PARTS):
                return files
        return None


FASHION = _Set(
    name="fashion-mnist",
    torchvision="FashionMNIST",
    classes=(
        "t-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    class_sizes=(7000,) * 10,
    debian=Path("/usr/share/datasets/fashion-mnist"),
    fetch="run `hashrobust data fashion-mnist --download` (31 MB, by torchvision; download=True in Python), or on "
    "Debian: apt install dataset-fashion-mnist",
)
MNIST = _Set(
    name="mnist",
    torchvision="MNIST",
    classes=tuple(str(digit) for digit in range(10)),
    class_sizes=(6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958),
    debian=None,
    fetch="run `hashrobust data mnist --download` (12 MB, by torchvision; download=True in Python)",
)


def _download(kind: _Set, data_dir: Path) -> None:
    import torchvision.datasets

    fetcher: Callable[..., Any] = getattr(torchvision.datasets, kind.torchvision)
    downloaded(kind.name, lambda: fetcher(root=str(data_dir), download=True))


def _load(
    kind: _Set, data_dir: str | Path | None, image_size: int | None, download: bool, protocol: str
) -> LabelledDataset:
    folder = data_folder(data_dir)
    files = kind.find(folder)
    if files is None and download:
        _download(kind, folder)
        files = kind.find(folder)
    if files is None:
        raise absent(kind.name, kind.places(folder), kind.fetch)
    images, labels = [], []
    for part in PARTS:
        images.append(read_idx(files[f"{part}-images-idx3"], ndim=3))
        labels.append(read_idx(files[f"{part}-labels-idx1"], ndim=1))
        if images[-1].shape != (len(labels[-1]), *IMAGE_SHAPE):
            raise DataError(
                f"'{files[f'{part}-images-idx3']}' holds {images[-1].shape} pixels and its labels are "
                f"{len(labels[-1])}, not one for each image of 28x28: fetch both files again"
            )
    targets = np.concatenate(labels).astype(np.int64)
    found = tuple(np.bincount(targets, minlength=len(kind.classes)).tolist())
    if found != kind.class_sizes:
        raise DataError(
            f"the files in '{files['train-labels-idx1'].parent}' are not {kind.name}'s (images a class: "
            f"{found}, not {kind.class_sizes}): put each data set in a folder of its own name"
        )
    source = MemoryImages(kind.name, np.concatenate(images)[:, None], image_size=image_size)
    if protocol == "classification":
        test = np.repeat([False, True], [len(part) for part in labels])
        return classification(kind.name, source, targets, kind.classes, test)
    return pooled_dataset(kind.name, source, targets, kind.classes, SIZES, TOP_K)


@datasets.register("fashion-mnist")
def fashion_mnist(
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    protocol: str = "retrieval",
) -> LabelledDataset:
    """70,000 pooled grey images of clothing, 28x28, ten classes.

    Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv 1708.07747.
    """
    return _load(FASHION, data_dir, image_size, download, protocol)


@datasets.register("mnist")
def mnist(
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    protocol: str = "retrieval",
) -> LabelledDataset:
    """70,000 pooled grey images of handwritten digits, 28x28, ten classes.

    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    return _load(MNIST, data_dir, image_size, download, protocol)


def _passport(kind: _Set, data_dir: Path, source: str, licence: str) -> DatasetInfo:
    return DatasetInfo(
        name=kind.name,
        source=source,
        size="70,000 grey images, 28x28, 10 classes",
        protocol="train 5,000, query 1,000, validation 1,000 (500, 100, 100 a class), database 63,000; "
        "mAP@5000",
        licence=licence,
        fetch=kind.fetch,
        places=tuple(str(place) for place in kind.places(data_dir)),
        present=kind.find(data_dir) is not None,
    )


@describes("fashion-mnist")
def _fashion_info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return _passport(FASHION, data_dir, "Zalando Research (Xiao et al., arXiv 1708.07747)", "MIT")


@describes("mnist")
def _mnist_info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return _passport(MNIST, data_dir, "LeCun, Cortes and Burges", "CC BY-SA 3.0")
